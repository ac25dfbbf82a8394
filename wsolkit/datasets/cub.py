"""CUB-200-2011, with CUBV2 as its train-fullsup split: 200 birds, one box an image.

Below the data root: ``metadata/CUB/<train|val|test>/`` of the WSOL benchmark, and images in ``CUB/<id>`` (the
benchmark's folder, with those of CUBV2) or in ``CUB_200_2011/images/<id>`` (the original archive, unpacked).

The archive has annotations of its own. Its boxes are ``x, y, width, height``; the benchmark's are these as
``x, y, min(x + width, W - 1), min(y + height, H - 1)`` in an image of W x H pixels, so both give the same boxes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from wsolkit.datasets._base import SPLITS
from wsolkit.datasets._benchmark import BenchmarkDataset, ImageFiles, required
from wsolkit.datasets._metadata import Metadata, check_paths, class_names, metadata_folder, read_columns, read_metadata
from wsolkit.datasets._sources import BENCHMARK, Archive, Contents, Part, split_parts
from wsolkit.errors import DataError

ARCHIVE_FOLDER = "CUB_200_2011"

ARCHIVES = (
    Archive(
        name="CUB_200_2011.tgz",
        url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
        checksum="md5:97eceeb196236b17998738112f37df78",
        bytes=1_150_585_339,
        unpacks_to=ARCHIVE_FOLDER,
        licence="its terms are at https://data.caltech.edu/records/65de6-vp158",
    ),
)

PUBLISHED = {"train-weaksup": 5_994, "train-fullsup": 1_000, "test": 5_794}

PUBLISHED_CLASSES = 200


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Options:
    """Where the annotations come from.

    Attributes:
        annotations: ``"benchmark"``: the benchmark's metadata; ``"archive"``: CUB's own lists for train-weaksup and
            test. train-fullsup is CUBV2, which only the benchmark has.
    """

    annotations: Literal["benchmark", "archive"] = "benchmark"


def open_split(split: str, size: int, options: Options, data_root: Path | None) -> BenchmarkDataset:
    """One split; ``data_root`` is the folder of all real data.

    Raises:
        DataError: if there is no ``data_root``, or its annotations are missing or damaged.
    """
    root = required("cub", data_root)
    metadata = _read(split, options.annotations, root)
    return BenchmarkDataset("cub", split, size, metadata, class_names(metadata, _bird), _images(root))


def parts(data_root: Path) -> tuple[Part, ...]:
    """What CUB needs, and what of it is there; the archive's lists count where the benchmark's metadata is missing."""
    return tuple(part for split in SPLITS for part in _parts_of(split, data_root))


def _parts_of(split: str, root: Path) -> list[Part]:
    own = split == "train-fullsup"
    images = _images(root)
    where = (
        f"'Download images' of CUBV2 in the README of {BENCHMARK}, unpacked into CUB/"
        if own
        else f"`wsolkit data get cub --data-root {root}`"
    )
    folder, source = metadata_folder(root, "CUB", split), "benchmark"
    if not own and not folder.is_dir() and (root / ARCHIVE_FOLDER).is_dir():
        folder, source = root / ARCHIVE_FOLDER, "archive"
    contents = Contents(
        "images",
        images.roots[0] if own or images.roots[0].is_dir() else images.roots[1],
        PUBLISHED[split],
        lambda metadata: (len(metadata.image_ids), images.count(metadata.image_ids)),
        where,
    )
    return split_parts(split, PUBLISHED[split], folder, lambda: _read(split, source, root), [contents])


def _images(root: Path) -> ImageFiles:
    return ImageFiles((root / "CUB", root / ARCHIVE_FOLDER / "images"))


def _bird(image_id: str) -> str:
    """The class name in an id's folder: ``001.Black_footed_Albatross/...`` gives ``Black footed Albatross``."""
    return image_id.split("/")[0].split(".", 1)[-1].replace("_", " ")


def _read(split: str, annotations: str, root: Path) -> Metadata:
    if annotations == "archive" and split != "train-fullsup":
        return _read_archive(split, root / ARCHIVE_FOLDER)
    folder = metadata_folder(root, "CUB", split)
    if not folder.is_dir():
        cure = (
            "train-fullsup is CUBV2, which CUB's own archive does not have, so it always needs that folder."
            if split == "train-fullsup"
            else "Or use CUB's own lists with the option annotations = 'archive'."
        )
        raise DataError(f"{folder} is missing. Copy the folder metadata/ of {BENCHMARK} into the data root. {cure}")
    return read_metadata(folder, localization=split != "train-weaksup")


def _read_archive(split: str, folder: Path) -> Metadata:
    """The archive's lists, joined by image number; boxes are not yet cut at the image's border."""
    numbers, names = read_columns(folder / "images.txt", (2,), None)
    check_paths(folder / "images.txt", names)
    labels = _by_number(folder / "image_class_labels.txt", numbers, 2).astype(np.int64)[:, 0] - 1
    in_training = _by_number(folder / "train_test_split.txt", numbers, 2)[:, 0] == 1
    chosen = np.flatnonzero(in_training == (split == "train-weaksup"))
    if not len(chosen):
        raise DataError(f"train_test_split.txt in {folder} has no image of {split}. Fetch CUB's archive again.")
    image_ids = tuple(names[number] for number in chosen)
    if split == "train-weaksup":
        return Metadata(image_ids, labels[chosen])
    x, y, width, height = _by_number(folder / "bounding_boxes.txt", numbers, 5)[chosen].T
    boxes = np.stack([x, y, x + width, y + height], 1).astype(np.int64)
    return Metadata(image_ids, labels[chosen], boxes=dict(zip(image_ids, boxes[:, None], strict=True)))


def _by_number(path: Path, numbers: Sequence[str], columns: int) -> np.ndarray:
    """Numbers (N, columns - 1) of one of the archive's lists, in the order of ``images.txt``."""
    rows = {number: cells for number, *cells in zip(*read_columns(path, (columns,), None), strict=True)}
    if rows.keys() != set(numbers):
        odd = min(rows.keys() ^ set(numbers), key=lambda number: (len(number), number))
        raise DataError(f"{path.name} and images.txt in {path.parent} do not agree on image {odd}. Fetch both again.")
    try:
        return np.array([rows[number] for number in numbers], np.float64)
    except ValueError as error:
        raise DataError(f"{path.name} in {path.parent} is damaged: {error}. Fetch it again.") from None
