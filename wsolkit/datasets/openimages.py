"""OpenImages30k: 100 classes, with masks for train-fullsup and test and no boxes.

Below the data root: ``metadata/OpenImages/<train|val|test>/`` of the WSOL benchmark, images in ``OpenImages/<id>``, and
masks in ``maskdata/OpenImages/`` where that folder exists, else beside the images.
"""

from pathlib import Path, PurePosixPath

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from wsolkit.datasets._base import SPLITS
from wsolkit.datasets._benchmark import BenchmarkDataset, ImageFiles, required
from wsolkit.datasets._metadata import Metadata, class_names, metadata_folder, read_metadata
from wsolkit.datasets._sources import BENCHMARK, Contents, Part, split_parts

PUBLISHED = {"train-weaksup": 29_819, "train-fullsup": 2_500, "test": 5_000}

PUBLISHED_CLASSES = 100

PUBLISHED_MASKS = {"train-fullsup": 6_354, "test": 12_632}
"""Files: one an instance, and one an image for what to ignore."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Options:
    """None: the benchmark fixes the splits."""


def open_split(split: str, size: int, options: Options, data_root: Path | None) -> BenchmarkDataset:
    """One split; ``data_root`` is the folder of all real data. A class is named by its identifier in OpenImages.

    Raises:
        DataError: if there is no ``data_root``, or its metadata is missing or damaged.
    """
    root = required("openimages", data_root)
    metadata = _read(split, root)
    classes = class_names(metadata, lambda image_id: PurePosixPath(image_id).parent.name)
    return BenchmarkDataset("openimages", split, size, metadata, classes, _images(root), _mask_root(root))


def parts(data_root: Path) -> tuple[Part, ...]:
    """What OpenImages30k needs, and what of it is there."""
    return tuple(part for split in SPLITS for part in _parts_of(split, data_root))


def _parts_of(split: str, root: Path) -> list[Part]:
    def count_images(metadata: Metadata) -> tuple[int, int]:
        return len(metadata.image_ids), _images(root).count(metadata.image_ids)

    def count_masks(metadata: Metadata) -> tuple[int, int]:
        listed = (metadata.masks or {}).values()
        files = {path for masks in listed for path in (*masks.instances, masks.ignore) if path is not None}
        return len(files), ImageFiles((_mask_root(root),)).count(files)

    where = f"'Download {{}}' of OpenImages30k in the README of {BENCHMARK}, unpacked into OpenImages/"
    contents = [Contents("images", root / "OpenImages", PUBLISHED[split], count_images, where.format("images"))]
    if split in PUBLISHED_MASKS:
        masks_from = where.format("segmentation masks")
        contents.append(Contents("masks", _mask_root(root), PUBLISHED_MASKS[split], count_masks, masks_from))
    metadata = metadata_folder(root, "OpenImages", split)
    return split_parts(split, PUBLISHED[split], metadata, lambda: _read(split, root), contents)


def _read(split: str, root: Path) -> Metadata:
    return read_metadata(metadata_folder(root, "OpenImages", split), localization=split != "train-weaksup")


def _images(root: Path) -> ImageFiles:
    return ImageFiles((root / "OpenImages",))


def _mask_root(root: Path) -> Path:
    apart = root / "maskdata" / "OpenImages"
    return apart if apart.is_dir() else root / "OpenImages"
