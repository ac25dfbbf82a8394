"""Writing files so that nothing is ever half-written: beside the target first, then renamed over it."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wsolkit.errors import WsolkitError, turned_into

#: Ending of files that are being written; one that a kill left behind means nothing.
PARTIAL = ".partial"

#: What says that a disk is full, over its quota, read-only or broken.
UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO})


def not_written(path: Path, error: Exception) -> WsolkitError:
    """The error for a file that could not be written, with the space that is left."""
    with suppress(OSError):
        free = shutil.disk_usage(path.parent).free
        return WsolkitError(
            f"Cannot write {path}: {error}. {free / 1e6:,.0f} MB are free there. What was there before is kept; free "
            "some space or allow writing, then run the same command again."
        )
    return WsolkitError(f"Cannot write {path}: {error}. The folder is no longer there.")


def writable_folder(path: Path) -> Path:
    """Create a folder if necessary, and make sure that a file can be written in it.

    Raises:
        WsolkitError: if it cannot be created or written.
    """
    advice = "Choose another folder or change its permissions."
    with turned_into(WsolkitError, f"Cannot write to {path}", advice, OSError):
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it over ``path`` at the end, or remove it on an error.

    Raises:
        WsolkitError: if the disk is full or cannot be written; ``path`` is as before then.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with _explained(path):
            yield partial
            os.replace(partial, path)
    finally:
        # On a disk that has become read-only not even that is possible.
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file as `atomic_file` does; text is written in UTF-8."""
    with atomic_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; rename it to ``path`` at the end, or remove it on an error.

    Where another process has made ``path`` meanwhile, that one stays.
    """
    writable_folder(path.parent)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        with _explained(path):
            yield partial
            if not path.exists():
                os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise not_written(path, error) from error
        raise
