"""Tiny ImageNet: real 64x64 photographs, every one with a box, in their original layout, as a folder or a zip.

The layout: ``wnids.txt``, ``words.txt``, ``train/<wnid>/<wnid>_boxes.txt`` and ``train/<wnid>/images/*.JPEG``,
``val/val_annotations.txt`` and ``val/images/*.JPEG``. The original's ``val`` is our ``test``. ``train-fullsup`` is
every tenth training image of a class, by the number in its name; it is never trained on.
"""

import hashlib
import io
import os
import re
import zipfile
import zlib
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from wsolkit.datasets._base import Sample, WsolDataset, scale_boxes
from wsolkit.datasets._sources import Archive, Part
from wsolkit.errors import DataError

HELD_OUT = 10
"""One in so many training images of a class belongs to train-fullsup: those whose number ends in 9."""

ARCHIVES = (
    Archive(
        name="tiny-imagenet-200.zip",
        url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        checksum="md5:90528d7ca1a48142e341f4ef8d21d0de",
        bytes=248_100_043,
        unpacks_to="tiny-imagenet-200",
        licence="photographs of ImageNet, whose terms are at https://image-net.org/download.php",
    ),
)

Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Options:
    """Which part of the data is used.

    Attributes:
        first_class: number of the first class, in the order of ``wnids.txt``.
        classes: how many classes from there on.
        train_per_class: at most so many training images of each class, the first by number.
        fullsup_per_class: at most so many train-fullsup images of each class.
        test_per_class: at most so many test images of each class.
    """

    first_class: Annotated[int, Field(ge=0)] = 0
    classes: Count = 20
    train_per_class: Count = 450
    fullsup_per_class: Count = 50
    test_per_class: Count = 50


class Files:
    """Files below a folder, or below a folder in a zip, read by their relative name; nothing is unpacked."""

    def __init__(self, root: Path):
        """Find the folder that holds ``wnids.txt``: ``root`` itself, or the only one below it that does.

        Raises:
            DataError: if there is none, or ``root`` is neither a folder nor a zip.
        """
        self.root = root
        if not root.exists():
            raise DataError(f"Tiny ImageNet not found: {root} does not exist. Give its folder or zip as data_root.")
        if not root.is_dir() and not zipfile.is_zipfile(root):
            raise DataError(f"{root} is neither a folder nor a complete zip file; fetch it again.")
        markers = self._zip.namelist() if root.is_file() else (str(p.relative_to(root)) for p in self._candidates())
        prefixes = {name.removesuffix("wnids.txt") for name in markers if re.fullmatch(r"([^/]+/)?wnids\.txt", name)}
        if len(prefixes) != 1:
            zips = sorted(root.glob("*.zip")) if root.is_dir() else []
            advice = f"the zip itself, {zips[0]}," if zips else "the folder that holds wnids.txt, train/ and val/"
            raise DataError(
                f"Expected Tiny ImageNet's wnids.txt in {root} or in one folder below it, found {len(prefixes)}. "
                f"Give {advice} as data_root."
            )
        self._prefix = prefixes.pop()

    def _candidates(self):
        return (path for pattern in ("wnids.txt", "*/wnids.txt") for path in self.root.glob(pattern))

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.root)

    def __getstate__(self) -> dict:
        """A worker process opens the zip anew."""
        return {name: value for name, value in self.__dict__.items() if name != "_zip"}

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            DataError: if it is missing or damaged, naming it.
        """
        try:
            if self.root.is_file():
                return self._zip.read(self._prefix + name)
            return (self.root / self._prefix / name).read_bytes()
        except (KeyError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise DataError(f"Tiny ImageNet in {self.root} is incomplete: cannot read {name} ({error}).") from error

    def names(self) -> set[str]:
        """The relative names of all files."""
        if self.root.is_file():
            return {name.removeprefix(self._prefix) for name in self._zip.namelist()}
        top = self.root / self._prefix
        below = ((Path(folder).relative_to(top), names) for folder, _, names in os.walk(top))
        return {(folder / name).as_posix() for folder, names in below for name in names}

    def rows(self, name: str, columns: int) -> list[list[str]]:
        """The lines of a tab-separated text file, each with so many columns.

        Raises:
            DataError: if the file is missing, damaged, empty or cut inside a line, naming it and the line.
        """
        try:
            text = self.read(name).decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{name} in {self.root} is not a text file: {error}. Fetch the data again.") from error
        rows = [line.split("\t") for line in text.splitlines() if line.strip()]
        for number, row in enumerate(rows, start=1):
            if len(row) != columns:
                raise DataError(
                    f"{name} in {self.root} is damaged: line {number} has {len(row)} columns, not {columns}."
                )
        if not rows:
            raise DataError(f"{name} in {self.root} is empty. Fetch the data again.")
        return rows


class TinyImageNet(WsolDataset):
    """One split of Tiny ImageNet, images and boxes scaled to the asked size."""

    def __init__(self, split: str, size: int, options: Options, root: Path):
        """Read the lists of the split; images are read when asked for.

        Raises:
            DataError: if a list is missing or names classes that are not there.
        """
        self.name, self.split, self.size = "tiny_imagenet", split, size
        self._files = Files(root)
        wnids = [row[0] for row in self._files.rows("wnids.txt", 1)]
        chosen = wnids[options.first_class : options.first_class + options.classes]
        if len(chosen) < options.classes:
            raise DataError(
                f"{root} has {len(wnids)} classes; classes {options.first_class} to "
                f"{options.first_class + options.classes - 1} were asked for. Lower first_class or classes."
            )
        words = {row[0]: row[1].split(",")[0] for row in self._files.rows("words.txt", 2)}
        self.classes = tuple(words.get(wnid, wnid) for wnid in chosen)
        listed = _test_items if split == "test" else _training_items
        self._items = listed(self._files, chosen, split, options)
        self.labels = np.array([label for _, label, _ in self._items], np.int64)
        if not self._items:
            raise DataError(f"{root} has no {split} image of the classes {', '.join(chosen)}.")
        self.fingerprint = hashlib.sha256(repr(self._items).encode()).hexdigest()[:16]

    def __getitem__(self, index: int) -> Sample:
        name, label, box = self._items[index]
        try:
            with Image.open(io.BytesIO(self._files.read(name))) as opened:
                picture = opened.convert("RGB")
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"Cannot decode {name} in {self._files.root}: {error}. Fetch the data again.") from error
        boxes = scale_boxes(np.array([box]), *picture.size, self.size)
        resized = picture.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return Sample(np.asarray(resized), label, boxes, None, Path(name).stem)


Item = tuple[str, int, tuple[int, int, int, int]]


def _training_items(files: Files, wnids: list[str], split: str, options: Options) -> list[Item]:
    held_out = split == "train-fullsup"
    limit = options.fullsup_per_class if held_out else options.train_per_class
    items = []
    for label, wnid in enumerate(wnids):
        boxes = files.rows(f"train/{wnid}/{wnid}_boxes.txt", 5)
        numbered = sorted((int(re.findall(r"\d+", row[0])[-1]), row) for row in boxes)
        kept = [row for number, row in numbered if (number % HELD_OUT == HELD_OUT - 1) == held_out][:limit]
        items += [(f"train/{wnid}/images/{row[0]}", label, _box(row[1:])) for row in kept]
    return items


def _test_items(files: Files, wnids: list[str], split: str, options: Options) -> list[Item]:
    by_class: dict[str, list[Item]] = {wnid: [] for wnid in wnids}
    for row in files.rows("val/val_annotations.txt", 6):
        if row[1] in by_class:
            by_class[row[1]].append((f"val/images/{row[0]}", wnids.index(row[1]), _box(row[2:])))
    return [item for wnid in wnids for item in by_class[wnid][: options.test_per_class]]


def _box(cells: list[str]) -> tuple[int, int, int, int]:
    try:
        x0, y0, x1, y1 = map(int, cells)
    except ValueError:
        raise DataError(f"Expected a box as four integers in Tiny ImageNet's lists, received {cells}.") from None
    return x0, y0, x1, y1


def open_split(split: str, size: int, options: Options, data_root: Path | None) -> TinyImageNet:
    """One split; ``data_root`` is the folder or the zip.

    Raises:
        DataError: if no ``data_root`` is given, or it is not Tiny ImageNet.
    """
    if data_root is None:
        raise DataError(
            "tiny_imagenet needs data_root: the folder or the zip of Tiny ImageNet (--data-root PATH). "
            "`wsolkit data get tiny_imagenet --data-root data` downloads it."
        )
    return TinyImageNet(split, size, options, data_root)


def parts(data_root: Path) -> tuple[Part, ...]:
    """What Tiny ImageNet needs, and what of it is there: the images that its own lists name."""
    where = f"`wsolkit data get tiny_imagenet --data-root {data_root}`"
    try:
        files = Files(data_root)
        training = [
            f"train/{row[0]}/images/{image[0]}"
            for row in files.rows("wnids.txt", 1)
            for image in files.rows(f"train/{row[0]}/{row[0]}_boxes.txt", 5)
        ]
        test = [f"val/images/{row[0]}" for row in files.rows("val/val_annotations.txt", 6)]
    except DataError as error:
        return (Part("lists of images", data_root, 1, 0, f"{where}. {error}"),)
    there = files.names()
    return tuple(
        Part(f"images of {what}", data_root, len(listed), sum(name in there for name in listed), where)
        for what, listed in (("train-weaksup and train-fullsup", training), ("test", test))
    )
