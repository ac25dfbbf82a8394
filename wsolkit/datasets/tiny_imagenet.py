"""Tiny ImageNet: real 64x64 photographs, each with a box, in their original layout, as a folder or an archive.

The layout: ``wnids.txt``, ``words.txt``, ``train/<wnid>/<wnid>_boxes.txt`` and ``train/<wnid>/images/*.JPEG``,
``val/val_annotations.txt`` and ``val/images/*.JPEG``. The original's ``val`` is our ``test``. ``train-fullsup`` is
every tenth training image of a class, by the number in its name; it is never trained on.
"""

import hashlib
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from wsolkit.datasets._base import SPLITS, Extent, Share, box_share
from wsolkit.datasets._files import Files
from wsolkit.datasets._metadata import Metadata
from wsolkit.datasets._pictures import PictureDataset
from wsolkit.datasets._sources import Part
from wsolkit.errors import DataError
from wsolkit.system.plugins import STRICT

#: One in so many training images of a class belongs to train-fullsup: those whose number ends in 9.
HELD_OUT = 10

#: Names of the folders and archives in which it is published.
PATTERN = "tiny-imagenet*"

#: Side of every picture in pixels.
SIDE = 64

Count = Annotated[int, Field(ge=1)]

#: Path of a picture, its label, and its box.
Item = tuple[str, int, tuple[int, ...]]


@dataclass(frozen=True, config=STRICT)
class Options:
    """Which part of the data is used.

    Attributes:
        first_class: number of the first class, in the order of ``wnids.txt``.
        classes: how many classes from there on.
        train_per_class: at most so many training images of each class, the first by number.
        fullsup_per_class: at most so many train-fullsup images of each class.
        test_per_class: at most so many test images of each class.
        max_box_share: train-fullsup and test have only images whose box covers at most this share.
    """

    first_class: Annotated[int, Field(ge=0)] = 0
    classes: Count = 20
    train_per_class: Count = 450
    fullsup_per_class: Count = 50
    test_per_class: Count = 50
    max_box_share: Share = 1.0

    def per_class(self) -> dict[str, int]:
        """The most images of a class, by split."""
        return dict(zip(SPLITS, (self.train_per_class, self.fullsup_per_class, self.test_per_class), strict=True))


def open_split(split: str, size: int, options: Options, data_root: Path | None) -> PictureDataset:
    """One split; ``data_root`` is the folder or the archive.

    Raises:
        DataError: if no ``data_root`` is given, it is not Tiny ImageNet, or one of its lists is missing or damaged.
    """
    if data_root is None:
        raise DataError(
            "tiny_imagenet needs data_root: the folder or the zip of Tiny ImageNet (--data-root PATH). "
            "`wsolkit data get tiny_imagenet --data-root data` downloads it."
        )
    files = Files(data_root, "wnids.txt", PATTERN)
    (wnids,), (known, words) = files.table("wnids.txt", (1,)).columns, files.table("words.txt", (2,)).columns
    last = options.first_class + options.classes
    chosen = wnids[options.first_class : last]
    if len(chosen) < options.classes:
        raise DataError(
            f"{data_root} has {len(wnids)} classes; the options ask for classes {options.first_class} to {last - 1}. "
            "Lower first_class or classes."
        )
    items = list(_items(files, chosen, split, options.per_class()[split]))
    if split != "train-weaksup":
        items = [item for item in items if box_share(np.array([item[2]]), SIDE, SIDE) <= options.max_box_share]
    if not items:
        raise DataError(f"{data_root} has no {split} image of the classes {', '.join(chosen)} that the options admit.")
    paths = {PurePosixPath(name).stem: name for name, _, _ in items}
    if len(paths) < len(items):
        raise DataError(f"The lists in {data_root} name an image of {split} twice. Copy the data again.")
    metadata = Metadata(
        tuple(paths),
        np.array([label for _, label, _ in items]),
        sizes=dict.fromkeys(paths, (SIDE, SIDE)),
        boxes={image: np.minimum([box], SIDE - 1) for image, (_, _, box) in zip(paths, items, strict=True)},
    )
    name_of = dict(zip(known, words, strict=True))
    classes = [name_of.get(wnid, wnid).split(",")[0] for wnid in chosen]
    fingerprint = hashlib.sha256(repr(items).encode()).hexdigest()[:16]
    picture = partial(files.picture_of, paths)
    return PictureDataset("tiny_imagenet", split, size, metadata, classes, picture, fingerprint=fingerprint)


def extent(options: Options) -> Extent:
    """How many images and classes the options choose."""
    images = {split: options.classes * count for split, count in options.per_class().items()}
    return Extent(images, options.classes)


def parts(data_root: Path, options: Options) -> tuple[Part, ...]:
    """What Tiny ImageNet needs, and how much of it was found: the images that its own lists name."""
    where = f"`wsolkit data get tiny_imagenet --data-root {data_root}`"
    try:
        files = Files(data_root, "wnids.txt", PATTERN)
        (wnids,) = files.table("wnids.txt", (1,)).columns
        listed = {split: [name for name, *_ in _items(files, wnids, split)] for split in SPLITS}
    except DataError as error:
        return (Part("lists of images", data_root, 1, 0, f"{where}. {error}"),)
    found = files.names()
    return tuple(
        Part(f"images of {split}", data_root, len(names), sum(name in found for name in names), where)
        for split, names in listed.items()
    )


def _items(files: Files, wnids: list[str], split: str, limit: int | None = None) -> Iterator[Item]:
    """Images of a split by class, at most ``limit`` of each: training images by number, test images as listed."""
    test = _listed(files, "val/val_annotations.txt", 6, "val/images") if split == "test" else None
    for label, wnid in enumerate(wnids):
        if test is not None:
            chosen = [(path, box) for path, of, box in test if of == wnid]
        else:
            listed = _listed(files, f"train/{wnid}/{wnid}_boxes.txt", 5, f"train/{wnid}/images")
            numbered = sorted((int(re.findall(r"\d+", path)[-1]), path, box) for path, _, box in listed)
            last, held_out = HELD_OUT - 1, split == "train-fullsup"
            chosen = [(path, box) for number, path, box in numbered if (number % HELD_OUT == last) == held_out]
        yield from ((path, label, box) for path, box in chosen[:limit])


def _listed(files: Files, name: str, columns: int, folder: str) -> list[tuple[str, str, tuple[int, ...]]]:
    """The rows of a list of images: path, second column, and the box, which is in the last four columns."""
    table = files.table(name, (columns,))
    table.require_paths(0)
    boxes = map(tuple, table.numbers(first=columns - 4).tolist())
    paths = (f"{folder}/{image}" for image in table.columns[0])
    return list(zip(paths, table.columns[1], boxes, strict=True))
