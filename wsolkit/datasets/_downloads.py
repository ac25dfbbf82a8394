"""Archives from the web: fetched so that a cut is no loss, verified, and unpacked without trusting them."""

import hashlib
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from http.client import HTTPException
from importlib.metadata import version
from math import ceil
from pathlib import Path, PurePosixPath
from typing import IO
from urllib import request
from urllib.error import HTTPError
from urllib.parse import urlsplit

from filelock import FileLock

from wsolkit.datasets import Archive
from wsolkit.datasets._sources import stays_below
from wsolkit.errors import DataError
from wsolkit.system.progress import progress
from wsolkit.system.writing import atomic_folder, writable_folder

BLOCK = 2**20

TIMEOUT = 60
"""Seconds without a byte from the server after which a download is given up."""

UNPACKED_LIMIT = 16 * 2**30
"""No archive of ours unpacks to nearly as much; one that does is not what it says."""


def fetch(archive: Archive, data_root: Path) -> Path:
    """The unpacked folder of an archive; what is there already is not fetched again.

    Args:
        archive: what to fetch.
        data_root: folder for the archive and, beside it, what is in it.

    Raises:
        DataError: if it cannot be fetched, is not what its publisher states, or cannot be unpacked.
    """
    folder = data_root / archive.unpacks_to
    if not folder.exists():
        unpack(download(archive, data_root), folder, archive.unpacks_to)
    return folder


def download(archive: Archive, folder: Path) -> Path:
    """The archive's file in a folder, downloaded where it is not there; its checksum is verified in either case.

    A download that is cut leaves a ``.part`` file, and the next call goes on from there, unless the server cannot:
    then it starts over.

    Raises:
        DataError: for an address other than http or https; if the server cannot be reached or the connection ends
            early; if the checksum is wrong, in which case nothing of a new download is kept.
    """
    if urlsplit(archive.url).scheme not in ("http", "https"):
        raise DataError(f"Cannot download {archive.url}: only http and https addresses are fetched.")
    target = writable_folder(folder) / archive.name
    part = target.with_name(f"{target.name}.part")
    with FileLock(target.with_name(f".{target.name}.lock")):
        if target.exists():
            if not _is_genuine(target, archive.checksum):
                raise DataError(f"{target} is not what {archive.url} is: its {archive.checksum} differs. Remove it.")
            return target
        _receive(archive, part)
        if not _is_genuine(part, archive.checksum):
            part.unlink()
            raise DataError(
                f"What {archive.url} sent is not the published file: expected {archive.checksum}. It was removed; "
                "try again, or fetch the file by other means."
            )
        os.replace(part, target)
    return target


def unpack(archive: Path, folder: Path, top: str = "", limit: int = UNPACKED_LIMIT) -> Path:
    """Unpack a zip or tar file into a new folder, completely or not at all.

    Only plain files and folders are made, with default permissions; nothing else that the archive says of them counts.

    Args:
        archive: the file.
        folder: the folder to make.
        top: unpack only what lies below this folder of the archive, without it in the names.
        limit: most bytes that may come out.

    Raises:
        DataError: if ``folder`` exists; if the archive is damaged, holds a link, a device, a doubled name, a path that
            leads out of the folder or nothing below ``top``, or unpacks to more than ``limit``.
    """
    if folder.exists():
        raise DataError(f"{folder} exists already and is not overwritten. Remove or rename it to unpack {archive}.")
    above = PurePosixPath(top).parts
    room, empty = limit, True
    try:
        with atomic_folder(folder) as partial:
            partial.chmod(0o700 | partial.parent.stat().st_mode & 0o055)
            for name, content in progress(_members(archive), f"files of {archive.name}"):
                parts = PurePosixPath(name).parts
                if parts[: len(above)] != above:
                    continue
                path, empty = partial.joinpath(*parts[len(above) :]), False
                if content is None:
                    path.mkdir(parents=True, exist_ok=True)
                else:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with content:
                        room -= _copy(content, path, room)
            if empty:
                raise DataError(f"{archive} holds nothing below {top or 'its root'}. Fetch it again.")
    except (OSError, RuntimeError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"Cannot unpack {archive} into {folder}: {error}.") from error
    return folder


def _receive(archive: Archive, part: Path) -> None:
    """Append to ``part`` what is missing, or write it anew where the server does not continue."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": f"wsolkit/{version('wsolkit')}", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        with _web().open(request.Request(archive.url, headers=headers), timeout=TIMEOUT) as answer:
            continued = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            length = int(answer.headers.get("Content-Length", -1))
            blocks = iter(lambda: answer.read(BLOCK), b"")
            total = ceil(length / BLOCK) if length >= 0 else None
            with open(part, "ab" if continued else "wb") as file:
                begin = file.tell()
                for block in progress(blocks, archive.name, total, "MiB"):
                    file.write(block)
                    if archive.bytes is not None and file.tell() > archive.bytes:
                        raise DataError(f"{archive.url} sends more than the {archive.bytes} bytes that it should have.")
                received = file.tell() - begin
    except HTTPError as error:
        if error.code == 416 and have:
            return  # Nothing is left to send; the checksum tells whether it is the file.
        raise DataError(f"Cannot download {archive.url}: the server says {error.code} {error.reason}.") from error
    except (OSError, HTTPException) as error:
        raise _cut(archive, str(error)) from error
    if received < length:
        raise _cut(archive, f"the connection ended after {received} of {length} bytes")


def _cut(archive: Archive, reason: str) -> DataError:
    return DataError(f"Cannot download {archive.url}: {reason}. The same command goes on from what has been received.")


def _web() -> request.OpenerDirector:
    """Opens http and https and nothing else, wherever a server redirects to."""
    web = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPRedirectHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPErrorProcessor,
        request.UnknownHandler,
    ):
        web.add_handler(handler())
    return web


def _is_genuine(path: Path, checksum: str) -> bool:
    algorithm, expected = checksum.split(":")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return digest.hexdigest() == expected.lower()


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Name and content of each file, None for a folder; a member that must not be unpacked is an error."""
    if tarfile.is_tarfile(archive):
        members = _tar_members(archive)
    elif zipfile.is_zipfile(archive):
        members = _zip_members(archive)
    else:
        raise DataError(f"{archive} is neither a zip nor a tar file. Fetch it again.")
    for name, plain, content in members:
        if not stays_below(name):
            raise DataError(f"{archive} is not safe to unpack: its member {name!r} leads out of the folder.")
        if not plain:
            raise DataError(f"{archive} is not safe to unpack: its member {name!r} is a link or a device.")
        yield name, content


def _zip_members(archive: Path) -> Iterator[tuple[str, bool, IO[bytes] | None]]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
            yield info.filename, plain, None if info.is_dir() else opened.open(info)


def _tar_members(archive: Path) -> Iterator[tuple[str, bool, IO[bytes] | None]]:
    with tarfile.open(archive) as opened:
        for info in opened:
            plain = info.isreg() or info.isdir()
            yield info.name, plain, opened.extractfile(info) if info.isreg() else None


def _copy(content: IO[bytes], path: Path, room: int) -> int:
    """Write a new file of at most ``room`` bytes; returns its size."""
    with open(path, "xb") as file:
        while block := content.read(BLOCK):
            if file.tell() + len(block) > room:
                raise DataError(f"The archive unpacks to more than was allowed ({path.name} is too much).")
            file.write(block)
        return file.tell()
