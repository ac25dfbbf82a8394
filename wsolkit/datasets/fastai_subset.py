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
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass
from torchvision.models import MobileNet_V2_Weights

from wsolkit.datasets._base import SPLITS, STRICT, Extent, Share, box_share
from wsolkit.datasets._files import Files
from wsolkit.datasets._metadata import Metadata
from wsolkit.datasets._pictures import PictureDataset
from wsolkit.datasets._sources import Part
from wsolkit.errors import DataError

#: By subset, the index of each class in ImageNet-1K.
CLASSES = {
    "imagewoof": {
        "n02086240": 155,
        "n02087394": 159,
        "n02088364": 162,
        "n02089973": 167,
        "n02093754": 182,
        "n02096294": 193,
        "n02099601": 207,
        "n02105641": 229,
        "n02111889": 258,
        "n02115641": 273,
    },
    "imagenette": {
        "n01440764": 0,
        "n02102040": 217,
        "n02979186": 482,
        "n03000684": 491,
        "n03028079": 497,
        "n03394916": 566,
        "n03417042": 569,
        "n03425413": 571,
        "n03445777": 574,
        "n03888257": 701,
    },
}

#: Of the validation photographs of a class, so many belong to train-fullsup; the rest is test.
FULLSUP = 20

#: How the names of validation photographs begin.
VALIDATION = "ILSVRC2012_val_"


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
    picture = partial(_picture, files, paths)
    return PictureDataset("fastai_subset", split, size, metadata, class_names(options), picture, fingerprint=seen)


def class_names(options: Options) -> list[str]:
    """The names of the classes, as torchvision has them."""
    names = MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]
    return [names[index] for index in CLASSES[options.subset].values()]


def extent(options: Options) -> Extent:
    """How many photographs and classes the options choose."""
    classes = len(CLASSES[options.subset])
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
    return {**extent(options).images, "train-weaksup": len(CLASSES[options.subset])}


def _files(data_root: Path, subset: str) -> Files:
    return Files(data_root, f"train/{next(iter(CLASSES[subset]))}", f"{subset}2*")


def _photographs(files: Files, split: str, options: Options) -> Iterator[tuple[str, int]]:
    """Path and label of a split's photographs, by class and by number; train-fullsup and test whatever their boxes."""
    by_class: dict[str, list[tuple[int, str]]] = {wnid: [] for wnid in CLASSES[options.subset]}
    for path in files.names():
        place = re.fullmatch(r"(?:train|val)/(n\d+)/(\w+?_(\d+))\.JPEG", path)
        if place and place[1] in by_class and _split_of(place[2]) == split:
            by_class[place[1]].append((int(place[3]), path))
    most = options.train_per_class if split == "train-weaksup" else None
    for label, photographs in enumerate(by_class.values()):
        yield from ((path, label) for _, path in sorted(photographs)[:most])


def _split_of(image: str) -> str | None:
    """The split of a photograph, by its name alone; None for a validation photograph that no box is known of."""
    return "train-weaksup" if not image.startswith(VALIDATION) else _validation().get(image)


class _Known(NamedTuple):
    """What is known of a validation photograph: boxes (k, 4) in its own pixels, width and height."""

    wnid: str
    boxes: np.ndarray
    size: tuple[int, int]


@cache
def _known() -> Mapping[str, _Known]:
    """Every validation photograph of both subsets, by class and by number."""
    table = pd.read_csv(Path(__file__).with_suffix(".csv"))
    return {
        str(image): _Known(
            rows["wnid"].iat[0],
            rows[["x0", "y0", "x1", "y1"]].to_numpy(),
            (rows["width"].iat[0], rows["height"].iat[0]),
        )
        for image, rows in table.groupby("image", sort=False)
    }


@cache
def _validation() -> Mapping[str, str]:
    """The split of every validation photograph of both subsets."""
    by_class: dict[str, list[str]] = {}
    for image, known in _known().items():
        by_class.setdefault(known.wnid, []).append(image)
    ranked = ((rank, image) for images in by_class.values() for rank, image in enumerate(sorted(images)))
    return {image: "train-fullsup" if rank < FULLSUP else "test" for rank, image in ranked}


def _picture(files: Files, paths: Mapping[str, str], image_id: str) -> Image.Image:
    return files.picture(paths[image_id])
