"""ImageNet-1K (ILSVRC 2012), with ImageNetV2 as its train-fullsup split: 1,000 classes, one or more boxes an image.

Below the data root: ``metadata/ILSVRC/<train|val|test>/`` of the WSOL benchmark, and images in ``ILSVRC/train/<wnid>/``
(train-weaksup), ``ILSVRC/val2/<class>/`` (ImageNetV2, threshold 0.7: train-fullsup) and ``ILSVRC/val/`` (test).

Today's archive of ImageNetV2 names its images otherwise than the benchmark does. Where the benchmark's table of both
names, ``metadata/ILSVRC/val/mapping.txt``, is there, images are found under either.
"""

from pathlib import Path, PurePosixPath

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from wsolkit.datasets._base import SPLITS
from wsolkit.datasets._benchmark import BenchmarkDataset, ImageFiles, required
from wsolkit.datasets._metadata import Metadata, check_paths, class_names, metadata_folder, read_columns, read_metadata
from wsolkit.datasets._sources import Contents, Part, split_parts

PUBLISHED = {"train-weaksup": 1_281_167, "train-fullsup": 10_000, "test": 50_000}

PUBLISHED_CLASSES = 1_000

_LOGIN = "after a login at https://image-net.org/download.php (ILSVRC 2012)"

IMAGES_FROM = {
    "train-weaksup": f"training images, {_LOGIN}, each class unpacked into ILSVRC/train/<wnid>/",
    "train-fullsup": (
        "imagenetv2-threshold0.7.tar.gz, linked from https://github.com/modestyachts/ImageNetV2, its 1,000 folders "
        "into ILSVRC/val2/; and mapping.txt of the benchmark's metadata/ILSVRC/val/"
    ),
    "test": f"validation images, {_LOGIN}, into ILSVRC/val/",
}


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Options:
    """None: the benchmark fixes the splits."""


def open_split(split: str, size: int, options: Options, data_root: Path | None) -> BenchmarkDataset:
    """One split; ``data_root`` is the folder of all real data.

    A class is named by its wnid, from the ids of the training images; where these are not there, by its number.

    Raises:
        DataError: if there is no ``data_root``, or its metadata is missing or damaged.
    """
    root = required("ilsvrc", data_root)
    metadata = _read(split, root)
    classes = _class_names(split, metadata, root)
    return BenchmarkDataset("ilsvrc", split, size, metadata, classes, _images(split, root))


def parts(data_root: Path) -> tuple[Part, ...]:
    """What ILSVRC needs, and what of it is there."""
    return tuple(part for split in SPLITS for part in _parts_of(split, data_root))


def _parts_of(split: str, root: Path) -> list[Part]:
    def count(metadata: Metadata) -> tuple[int, int]:
        return len(metadata.image_ids), _images(split, root).count(metadata.image_ids)

    folder = {"train-weaksup": "train", "train-fullsup": "val2", "test": "val"}[split]
    contents = Contents("images", root / "ILSVRC" / folder, PUBLISHED[split], count, IMAGES_FROM[split])
    metadata = metadata_folder(root, "ILSVRC", split)
    return split_parts(split, PUBLISHED[split], metadata, lambda: _read(split, root), [contents])


def _read(split: str, root: Path) -> Metadata:
    return read_metadata(metadata_folder(root, "ILSVRC", split), localization=split != "train-weaksup")


def _images(split: str, root: Path) -> ImageFiles:
    names = _names_today(root) if split == "train-fullsup" else {}
    return ImageFiles((root / "ILSVRC",), names)


def _names_today(root: Path) -> dict[str, str]:
    """From the benchmark's id of an ImageNetV2 image to its path in today's archive."""
    path = metadata_folder(root, "ILSVRC", "train-fullsup") / "mapping.txt"
    if not path.is_file():
        return {}
    former, today = read_columns(path, (2,))
    today = [name.strip() for name in today]
    check_paths(path, today)
    return {f"val2/{then}": f"val2/{now}" for then, now in zip(former, today, strict=True)}


def _class_names(split: str, metadata: Metadata, root: Path) -> tuple[str, ...]:
    if split != "train-weaksup" and not metadata_folder(root, "ILSVRC", "train-weaksup").is_dir():
        return tuple(f"class {label}" for label in range(metadata.labels.max() + 1))
    training = metadata if split == "train-weaksup" else _read("train-weaksup", root)
    return class_names(training, lambda image_id: PurePosixPath(image_id).parent.name)
