"""Archives from the web: downloads that can be resumed, verified, and unpacked without trusting them."""

import hashlib
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from math import ceil
from pathlib import Path

import requests
from filelock import FileLock

from wsolkit.datasets._sources import Archive
from wsolkit.datasets._tables import stays_below
from wsolkit.errors import DataError, turned_into
from wsolkit.system.atomic_files import writable_folder
from wsolkit.system.progress import progress

BLOCK = 2**20

#: Seconds without a byte from the server after which a download is given up.
TIMEOUT = 60

#: The most bytes that an archive may unpack to, far more than any of ours does.
UNPACKED_LIMIT = 16 * 2**30


def fetch(archive: Archive, data_root: Path) -> Path:
    """The unpacked folder of an archive; a folder that exists already is not fetched again.

    Args:
        archive: what to fetch.
        data_root: folder for the archive and, beside it, its contents.

    Raises:
        DataError: if it cannot be fetched, is not what its publisher states, or cannot be unpacked.
    """
    folder = data_root / archive.unpacks_to
    return folder if folder.exists() else unpack(download(archive, data_root), folder, archive.unpacks_to)


def download(archive: Archive, folder: Path) -> Path:
    """The archive's file in a folder, downloaded if it does not exist; its checksum is verified in either case.

    A download that is interrupted leaves a ``.part`` file, and the next call resumes it, unless the server cannot:
    then it starts over.

    Raises:
        DataError: for an address other than http or https; if the server cannot be reached or the connection ends
            early; if the checksum is wrong, in which case nothing of a new download is kept.
    """
    target = writable_folder(folder) / archive.name
    part = target.with_name(f"{target.name}.part")
    with FileLock(target.with_name(f".{target.name}.lock")):
        if target.exists():
            if not _is_genuine(target, archive.checksum):
                raise DataError(f"{target} differs from {archive.url}: expected {archive.checksum}. Remove the file.")
            return target
        _receive(archive, part)
        if not _is_genuine(part, archive.checksum):
            part.unlink()
            raise DataError(
                f"The file that {archive.url} sent is not the published one: expected {archive.checksum}. It was "
                "removed; try again, or fetch the file by other means."
            )
        os.replace(part, target)
    return target


def unpack(archive: Path, folder: Path, top: str = "", limit: int = UNPACKED_LIMIT) -> Path:
    """Unpack a zip or tar file into a new folder, completely or not at all.

    Args:
        archive: the file.
        folder: the folder to make.
        top: unpack only what is below this folder of the archive, without it in the names.
        limit: most bytes that may be unpacked.

    Raises:
        DataError: if ``folder`` exists; if the archive is damaged, holds a link, a device, a path that leads out of
            the folder, the same name twice or nothing below ``top``, or unpacks to more than ``limit``.
    """
    if folder.exists():
        raise DataError(f"{folder} exists already and is not overwritten. Remove or rename it to unpack {archive}.")
    writable_folder(folder.parent)
    with (
        tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch,
        turned_into(DataError, f"Cannot unpack {top or 'all'} of {archive} into {folder}", "Fetch it again."),
    ):
        _extract(archive, Path(scratch) / "unpacked", limit)
        (Path(scratch) / "unpacked" / top).rename(folder)
    return folder


def _extract(archive: Path, folder: Path, limit: int) -> None:
    """Unpack an archive after a look at all of its members."""
    with tarfile.open(archive) if tarfile.is_tarfile(archive) else zipfile.ZipFile(archive) as opened:
        members: list[tuple[str, bool, int, Callable | None]]  # a folder has nothing to read
        if isinstance(opened, tarfile.TarFile):
            reads = ((each, None if each.isdir() else partial(opened.extractfile, each)) for each in opened)
            members = [(each.name, each.isreg() or each.isdir(), each.size, read) for each, read in reads]
        else:
            kinds = ((each, stat.S_IFMT(each.external_attr >> 16)) for each in opened.infolist())
            plain = (0, stat.S_IFREG, stat.S_IFDIR)
            members = [
                (each.filename, kind in plain, each.file_size, None if each.is_dir() else partial(opened.open, each))
                for each, kind in kinds
            ]
        for name, is_plain, *_ in members:
            if not is_plain or not stays_below(name):
                raise DataError(f"{archive} is not safe to unpack: {name!r} is a link, a device, or leads out of it.")
        if len({name for name, *_ in members}) < len(members):
            raise DataError(f"{archive} is not safe to unpack: it holds the same name twice.")
        if sum(size for _, _, size, _ in members) > limit:
            raise DataError(f"{archive} is not safe to unpack: it grows to more than {limit} bytes.")
        for name, _, _, read in progress(members, f"files of {archive.name}"):
            (folder / name if read is None else (folder / name).parent).mkdir(parents=True, exist_ok=True)
            if read is not None:
                with read() as source, open(folder / name, "xb") as file:
                    shutil.copyfileobj(source, file)


def _receive(archive: Archive, part: Path) -> None:
    """Append to ``part`` what is missing, or start over if the server cannot resume."""
    have = part.stat().st_size if part.exists() else 0
    asked = {"User-Agent": f"wsolkit/{version('wsolkit')}", "Accept-Encoding": "identity", "Range": f"bytes={have}-"}
    advice = "Run the same command again to resume it."
    # Errors of requests are OSErrors.
    with (
        turned_into(DataError, f"Cannot download {archive.url}", advice, OSError, ValueError),
        requests.get(archive.url, headers=asked, stream=True, timeout=TIMEOUT) as answer,
    ):
        if have and answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is left to send; the checksum tells whether it is the file
        answer.raise_for_status()
        resumed = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        total = ceil(int(answer.headers.get("Content-Length", 0)) / BLOCK) or None
        with open(part, "ab" if resumed else "wb") as file:
            for block in progress(answer.iter_content(BLOCK), archive.name, total, "MiB"):
                file.write(block)
                if archive.bytes is not None and file.tell() > archive.bytes:
                    raise DataError(f"{archive.url} sends more than its {archive.bytes} bytes. Get it elsewhere.")


def _is_genuine(path: Path, checksum: str) -> bool:
    algorithm, expected = checksum.split(":")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return digest.hexdigest().startswith(expected.lower())
