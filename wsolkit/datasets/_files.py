"""Where pictures are found: in folders, or in an archive that is read without unpacking it."""

import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from glob import glob
from pathlib import Path

from PIL import Image

from wsolkit.datasets._pictures import decode
from wsolkit.datasets._tables import Table, parse_table
from wsolkit.errors import DataError, turned_into


@dataclass(frozen=True)
class ImageFolders:
    """Images below one of several folders.

    Attributes:
        roots: folders that an id is relative to; the first that has the image is taken.
        other_names: another relative path under which an image may be found, by id.
    """

    roots: tuple[Path, ...]
    other_names: Mapping[str, str] = field(default_factory=dict)

    def picture(self, image_id: str) -> Image.Image:
        """The picture of an image id.

        Raises:
            DataError: if no folder has it, or it cannot be decoded.
        """
        for path in self._candidates(image_id):
            if os.path.isfile(path):
                with turned_into(DataError, f"Cannot read {path}", "Copy the file again.", OSError):
                    return decode(Path(path).read_bytes(), path)
        folders = " or ".join(map(str, self.roots))
        raise DataError(f"Image {image_id} is not in {folders}. `wsolkit data check` lists what is missing.")

    def count(self, names: Iterable[str]) -> int:
        """How many of some files exist; folders are listed instead of asking for every single file."""
        listings: dict[str, frozenset[str]] = {}

        def exists(path: str) -> bool:
            folder, name = os.path.split(path)
            if folder not in listings:
                listings[folder] = frozenset(os.listdir(folder)) if os.path.isdir(folder) else frozenset()
            return name in listings[folder]

        return sum(any(map(exists, self._candidates(name))) for name in names)

    def _candidates(self, name: str) -> Iterable[str]:
        names = [name, *([self.other_names[name]] if name in self.other_names else [])]
        return (os.path.join(root, each) for root in self.roots for each in names)


class Files:
    """Files below a folder, or below a folder in a zip or tar archive, read by their relative name.

    A tar archive, compressed or not, is held in memory as a whole, because it can only be read from front to back.
    """

    def __init__(self, root: Path, marker: str, pattern: str):
        """Find the place that holds a file or folder, ``marker``.

        Args:
            root: that folder or archive, or a folder that has it below a name that fits ``pattern``.
            marker: relative path of the file or folder by which it is recognised.
            pattern: names of such folders and archives, e.g. ``"tiny-imagenet*"``; a folder is preferred.

        Raises:
            DataError: if there is no such place or more than one, or it is neither a folder nor a complete archive.
        """
        if not root.exists():
            raise DataError(f"{root} does not exist. Give the folder or archive that holds {marker} as data_root.")
        below = sorted(root.glob(pattern)) if root.is_dir() and not (root / marker).exists() else []
        folders = [place for place in below if (place / marker).exists()]
        places = folders or [place for place in below if place.is_file()] or [root]
        self.root = places[0]
        inside = [marker] if (self.root / marker).exists() else list(self._archive)
        wanted = re.compile(rf"((?:\./)?(?:[^/]+/)?){re.escape(marker)}(/.*)?")
        prefixes = {match[1] for match in map(wanted.fullmatch, map(_slashes, inside)) if match}
        if len(places) > 1 or len(prefixes) != 1:
            found = ", ".join(place.name for place in places) if len(places) > 1 else len(prefixes)
            raise DataError(
                f"Expected {marker} once in {root}, or in one folder or archive {pattern} there, found {found}. "
                "Give the folder or archive that holds it as data_root."
            )
        self._prefix = prefixes.pop()

    @cached_property
    def _archive(self) -> Mapping[str, Callable[[], bytes]]:
        """How to read each file of the archive; empty for a folder."""
        what = f"{self.root} is neither a folder nor a complete zip or tar file"
        with turned_into(DataError, what, "Copy it again."):
            if self.root.is_dir():
                return {}
            if zipfile.is_zipfile(self.root):
                opened = zipfile.ZipFile(self.root)
                return {name: partial(opened.read, name) for name in opened.namelist()}
            with tarfile.open(self.root) as tar:
                contents = ((member.name, tar.extractfile(member)) for member in tar)
                return {name: partial(bytes, content.read()) for name, content in contents if content}

    def __getstate__(self) -> dict:
        """A worker process opens the archive for itself."""
        return {name: value for name, value in self.__dict__.items() if name != "_archive"}

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            DataError: if it is missing or damaged, naming it.
        """
        try:
            if self.root.is_dir():
                return (self.root / self._prefix / name).read_bytes()
            return self._archive[self._prefix + name]()
        except Exception as error:  # a damaged archive may raise anything
            reason = "it is missing" if isinstance(error, KeyError | FileNotFoundError) else error
            raise DataError(f"Cannot read {name} in {self.root}: {reason}. Copy the data again.") from error

    def picture(self, name: str) -> Image.Image:
        """A picture, in RGB; DataError if it is missing or damaged."""
        return decode(self.read(name), f"{name} in {self.root}")

    def picture_of(self, paths: Mapping[str, str], image_id: str) -> Image.Image:
        """The picture of an image id, from the relative names of all of them."""
        return self.picture(paths[image_id])

    def table(self, name: str, counts: Sequence[int], separator: str | None = "\t") -> Table:
        """A text file in columns; DataError if it is missing or damaged."""
        return parse_table(self.read(name), f"{name} in {self.root}", counts, separator)

    def names(self) -> set[str]:
        """The relative names of all files."""
        if self.root.is_dir():
            return set(map(_slashes, glob("**/*", root_dir=self.root / self._prefix, recursive=True)))
        return {name.removeprefix(self._prefix) for name in self._archive}


def _slashes(name: str) -> str:
    return name.replace(os.sep, "/")
