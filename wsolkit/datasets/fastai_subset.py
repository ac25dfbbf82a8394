"""fast.ai's subsets of ImageNet, Imagewoof and Imagenette: ten classes each, in any of their sizes.

The layout: ``train/<wnid>/*.JPEG`` and ``val/<wnid>/*.JPEG``, as a folder or an archive. The publisher spread
ImageNet's training and validation photographs over both, so names decide here, not folders: ``train-weaksup`` is
every training photograph; of the 50 validation photographs of a class, ``ILSVRC2012_val_*``, the first 20 by number are
``train-fullsup`` and the other 30 ``test``. Their boxes and sizes, ``fastai_subset.csv``, were taken from the
metadata of the WSOL benchmark (https://github.com/clovaai/wsolevaluation, MIT licence).
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field
from pydantic.dataclasses import dataclass
from torchvision.models import MobileNet_V2_Weights

from wsolkit.datasets._base import SPLITS, Extent, Share, box_share
from wsolkit.datasets._files import Files
from wsolkit.datasets._metadata import Metadata
from wsolkit.datasets._pictures import PictureDataset
from wsolkit.datasets._sources import Part
from wsolkit.errors import DataError
from wsolkit.system.plugins import STRICT

#: Of the validation photographs of a class, so many belong to train-fullsup; the rest is test.
FULLSUP = 20


@dataclass(frozen=True, config=STRICT)
class Options:
    """Which photographs are used.

    Attributes:
        subset: ``"imagewoof"``, ten breeds of dog, or ``"imagenette"``, ten classes with nothing in common.
        train_per_class: at most so many training photographs of each class, the first by number.
        max_box_share: train-fullsup and test have only photographs whose largest box covers at most this share.
    """

    subset: Literal["imagewoof", "imagenette"] = "imagewoof"
    train_per_class: Annotated[int, Field(ge=1)] = 1_000
    max_box_share: Share = 1.0


def open_split(split: str, size: int, options: Options, data_root: Path | None) -> PictureDataset:
    """One split; ``data_root`` is the folder or the archive, or the folder that has either.

    Raises:
        DataError: if no ``data_root`` is given, or it does not have the split.
    """
    if data_root is None:
        raise DataError(
            f"{options.subset} needs data_root: the folder or the archive of its photographs (--data-root PATH). "
            f"`wsolkit data get {options.subset} --data-root data` downloads it."
        )
    files = _files(data_root, options.subset)
    labels = {PurePosixPath(path).stem: (path, label) for path, label in _photographs(files, split, options)}
    if len(labels) < (expected := _least(options)[split]):
        raise DataError(f"{files.root} has {len(labels)} of {expected} {split} photographs. Copy the data again.")
    boxes = sizes = None
    if split != "train-weaksup":
        known = {image: _known()[image] for image in labels}
        chosen = [image for image, each in known.items() if box_share(each.boxes, *each.size) <= options.max_box_share]
        if not chosen:
            raise DataError(f"No {split} photograph has max_box_share = {options.max_box_share} or less. Raise it.")
        labels = {image: labels[image] for image in chosen}
        boxes, sizes = {image: known[image].boxes for image in chosen}, {image: known[image].size for image in chosen}
    paths = {image: path for image, (path, _) in labels.items()}
    metadata = Metadata(tuple(paths), np.array([label for _, label in labels.values()]), sizes, boxes)
    # The publisher's sizes have the same names: the first photograph tells them apart.
    seen = hashlib.sha256(metadata.fingerprint().encode() + files.read(next(iter(paths.values())))).hexdigest()[:16]
    picture = partial(files.picture_of, paths)
    return PictureDataset("fastai_subset", split, size, metadata, class_names(options), picture, fingerprint=seen)


def class_names(options: Options) -> list[str]:
    """The names of the classes, as torchvision has them."""
    names = MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]
    return [names[index] for index in classes_of(options.subset).values()]


def classes_of(subset: str) -> dict[str, int]:
    """The classes of a subset in order: each wnid with its index in ImageNet-1K."""
    rows = _table().query("subset == @subset").drop_duplicates("wnid")
    return dict(zip(rows["wnid"], rows["index"], strict=True))


def extent(options: Options) -> Extent:
    """How many photographs and classes the options choose."""
    classes = len(classes_of(options.subset))
    judged = {"train-fullsup": FULLSUP * classes, "test": (50 - FULLSUP) * classes}
    return Extent({"train-weaksup": options.train_per_class * classes} | judged, classes)


def parts(data_root: Path, options: Options) -> tuple[Part, ...]:
    """What a subset needs, and how much of it was found."""
    where, expected = f"`wsolkit data get {options.subset} --data-root {data_root}`", _least(options)
    try:
        files = _files(data_root, options.subset)
        found = {split: sum(1 for _ in _photographs(files, split, options)) for split in SPLITS}
    except DataError as error:
        return (Part("photographs", data_root, 1, 0, f"{where}. {error}"),)
    return tuple(Part(f"photographs of {split}", files.root, expected[split], found[split], where) for split in SPLITS)


def _least(options: Options) -> dict[str, int]:
    """The fewest photographs of each split that can be used: all that are judged, and one of each class to learn."""
    return {**extent(options).images, "train-weaksup": len(classes_of(options.subset))}


def _files(data_root: Path, subset: str) -> Files:
    return Files(data_root, f"train/{next(iter(classes_of(subset)))}", f"{subset}2*")


def _photographs(files: Files, split: str, options: Options) -> Iterator[tuple[str, int]]:
    """Path and label of a split's photographs, by class and by number; train-fullsup and test whatever their boxes."""
    by_class: dict[str, list[tuple[int, str]]] = {wnid: [] for wnid in classes_of(options.subset)}
    for path in files.names():
        place = re.fullmatch(r"(?:train|val)/(n\d+)/(\w+?_(\d+))\.JPEG", path)
        if place and place[1] in by_class:
            judged = _known().get(place[2])
            if split == (judged.split if judged else "train-weaksup"):
                by_class[place[1]].append((int(place[3]), path))
    most = options.train_per_class if split == "train-weaksup" else None
    for label, photographs in enumerate(by_class.values()):
        yield from ((path, label) for _, path in sorted(photographs)[:most])


class _Known(NamedTuple):
    """What is known of a validation photograph: its split, boxes (k, 4) in its own pixels, width and height."""

    split: str
    boxes: np.ndarray
    size: tuple[int, int]


@cache
def _table() -> pd.DataFrame:
    """``subset, wnid, index, image, width, height, x0, y0, x1, y1``: a row a box, by class and by number."""
    return pd.read_csv(Path(__file__).with_suffix(".csv"))


@cache
def _known() -> Mapping[str, _Known]:
    """Every validation photograph of both subsets."""
    found = {}
    for _, rows in _table().groupby("wnid", sort=False):
        for rank, (image, boxes) in enumerate(rows.groupby("image")):
            size = boxes["width"].iat[0], boxes["height"].iat[0]
            split = "train-fullsup" if rank < FULLSUP else "test"
            found[str(image)] = _Known(split, boxes[["x0", "y0", "x1", "y1"]].to_numpy(), size)
    return found
