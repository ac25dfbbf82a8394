"""fast.ai's subsets of ImageNet, Imagewoof and Imagenette: ten classes each, in any of their sizes.

The layout: ``train/<wnid>/*.JPEG`` and ``val/<wnid>/*.JPEG``, as a folder or an archive. The publisher spread
ImageNet's training and validation photographs over both, so names decide here, not folders: ``train-weaksup`` is
every training photograph; of the 50 validation photographs of a class, ``ILSVRC2012_val_*``, the first 20 by number are
``train-fullsup`` and the other 30 ``test``. Their boxes and sizes, ``fastai_subset.csv``, were taken from the
metadata of the WSOL benchmark (https://github.com/clovaai/wsolevaluation, MIT licence).
"""

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
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
        max_box_share: of train-fullsup and test only photographs are judged whose largest box covers at most this share.
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
    known = _boxes()
    chosen = list(_photographs(files, split, options))
    if split != "train-weaksup":
        shares = (box_share(*known[PurePosixPath(path).stem]) for path, _ in chosen)
        chosen = [item for item, share in zip(chosen, shares, strict=True) if share <= options.max_box_share]
    if not chosen:
        raise DataError(f"{files.root} has no {split} photograph that the options admit. Copy the data again.")
    paths = {PurePosixPath(path).stem: path for path, _ in chosen}
    metadata = Metadata(tuple(paths), np.array([label for _, label in chosen]))
    if split != "train-weaksup":
        boxes = {image: known[image][0] for image in paths}
        metadata = Metadata(*(metadata.image_ids, metadata.labels), {image: known[image][1:] for image in paths}, boxes)
    # The publisher's sizes have the same names: the first photograph tells them apart.
    seen = hashlib.sha256(metadata.fingerprint().encode() + files.read(chosen[0][0])).hexdigest()[:16]
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


def parts(data_root: Path, options: Options | None = None) -> tuple[Part, ...]:
    """What a subset needs, and how much of it was found."""
    options = options or Options()
    where = f"`wsolkit data get {options.subset} --data-root {data_root}`"
    expected = extent(Options(options.subset, train_per_class=1)).images
    try:
        files = _files(data_root, options.subset)
        found = {split: sum(1 for _ in _photographs(files, split, options)) for split in SPLITS}
    except DataError as error:
        return (Part("photographs", data_root, 1, 0, f"{where}. {error}"),)
    return tuple(Part(f"photographs of {split}", files.root, expected[split], found[split], where) for split in SPLITS)


def _files(data_root: Path, subset: str) -> Files:
    return Files(data_root, f"train/{next(iter(CLASSES[subset]))}", f"{subset}2*")


def _photographs(files: Files, split: str, options: Options) -> Iterator[tuple[str, int]]:
    """Path and label of a split's photographs, by class and by number; train-fullsup and test whatever their boxes."""
    known = _boxes()
    by_class: dict[str, list[tuple[int, str]]] = {wnid: [] for wnid in CLASSES[options.subset]}
    for path in files.names():
        place = re.fullmatch(r"(?:train|val)/(n\d+)/(\w+?_(\d+))\.JPEG", path)
        if place and place[1] in by_class:
            validation = place[2].startswith(VALIDATION) and place[2] in known
            if validation != (split == "train-weaksup"):
                by_class[place[1]].append((int(place[3]), path))
    first = {"train-weaksup": slice(options.train_per_class), "train-fullsup": slice(FULLSUP)}
    for label, photographs in enumerate(by_class.values()):
        yield from ((path, label) for _, path in sorted(photographs)[first.get(split, slice(FULLSUP, None))])


@cache
def _boxes() -> Mapping[str, tuple[np.ndarray, int, int]]:
    """Of every validation photograph of both subsets its boxes (k, 4), width and height."""
    found: dict[str, tuple[list[list[int]], int, int]] = {}
    with open(Path(__file__).with_suffix(".csv"), encoding="utf-8", newline="") as opened:
        for row in csv.DictReader(opened):
            boxes, *_ = found.setdefault(row["image"], ([], int(row["width"]), int(row["height"])))
            boxes.append([int(row[corner]) for corner in ("x0", "y0", "x1", "y1")])
    return {image: (np.array(boxes), width, height) for image, (boxes, width, height) in found.items()}


def _picture(files: Files, paths: Mapping[str, str], image_id: str) -> Image.Image:
    return files.picture(paths[image_id])
