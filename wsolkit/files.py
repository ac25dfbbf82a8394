"""Writing files so that nothing is ever half-written: beside the target first, then renamed over it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsolkit.errors import WsolkitError


def writable_folder(path: Path) -> Path:
    """Create a folder if need be and show that a file can be written in it.

    Raises:
        WsolkitError: if it cannot be created or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise WsolkitError(
            f"Cannot write in {path}: {error.strerror or error}. Choose another folder or change its permissions."
        ) from error


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it over ``path`` at the end, or remove it on an error."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; rename it to ``path`` at the end, or remove it on an error.

    Where another process has made ``path`` meanwhile, that one stays.
    """
    writable_folder(path.parent)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield partial
        if not path.exists():
            os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
