"""CUB-200-2011, with CUBV2 as its train-fullsup split: 200 birds, one box per image.

Below the data root: ``metadata/CUB/<train|val|test>/`` of the WSOL benchmark, and images in ``CUB/<id>`` (the
benchmark's folder, with those of CUBV2) or in ``CUB_200_2011/images/<id>`` (the original archive, unpacked).

The archive has annotations of its own. Its boxes are ``x, y, width, height``; the benchmark has the same boxes as
``x, y, min(x + width, W - 1), min(y + height, H - 1)`` in an image of W x H pixels, so both give the same boxes.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic.dataclasses import dataclass

from wsolkit.datasets._benchmark import Benchmark
from wsolkit.datasets._files import ImageFolders
from wsolkit.datasets._metadata import BENCHMARK, LAST_LABEL, Metadata, class_names
from wsolkit.datasets._pictures import PictureDataset
from wsolkit.datasets._tables import LARGEST, read_table
from wsolkit.errors import DataError
from wsolkit.system.plugins import STRICT

ARCHIVE_FOLDER = "CUB_200_2011"


@dataclass(frozen=True, config=STRICT)
class Options:
    """Where the annotations come from.

    Attributes:
        annotations: ``"benchmark"``: the benchmark's metadata; ``"archive"``: CUB's own lists for train-weaksup and
            test. train-fullsup is CUBV2, which only the benchmark has.
    """

    annotations: Literal["benchmark", "archive"] = "benchmark"


class Cub(Benchmark):
    """CUB, annotated by the benchmark or its own archive; None: by the archive if the benchmark's is missing."""

    name = "cub"

    def __init__(self, annotations: Literal["benchmark", "archive"] | None = None):
        """Choose the annotations."""
        self.annotations = annotations

    def metadata_folder(self, split: str, root: Path) -> Path:
        """The benchmark's folder or the archive's."""
        benchmark, archive = super().metadata_folder(split, root), root / ARCHIVE_FOLDER
        if split == "train-fullsup" or self.annotations == "benchmark":
            return benchmark
        if self.annotations is None and (benchmark.is_dir() or not archive.is_dir()):
            return benchmark
        return archive

    def read(self, split: str, root: Path) -> Metadata:
        """The annotations of a split from the chosen source."""
        folder = self.metadata_folder(split, root)
        if folder == root / ARCHIVE_FOLDER:
            return _read_archive(split, folder)
        if folder.is_dir():
            return super().read(split, root)
        advice = (
            "train-fullsup is CUBV2, which CUB's own archive does not have, so it always needs that folder."
            if split == "train-fullsup"
            else "Or use CUB's own lists with the option annotations = 'archive'."
        )
        raise DataError(f"{folder} is missing. Copy the folder metadata/ of {BENCHMARK} into the data root. {advice}")

    def images_of(self, split: str, root: Path) -> ImageFolders:
        """The benchmark's folder, and the archive's."""
        return ImageFolders((root / "CUB", root / ARCHIVE_FOLDER / "images"))

    def shown_folder(self, split: str, root: Path) -> Path:
        """The benchmark's folder if it exists or the archive does not have the images."""
        benchmark, archive = self.images_of(split, root).roots
        return benchmark if split == "train-fullsup" or benchmark.is_dir() else archive

    def class_names(self, split: str, metadata: Metadata, root: Path) -> tuple[str, ...]:
        """``001.Black_footed_Albatross/...`` gives ``Black footed Albatross``."""
        return class_names(metadata, lambda image: image.split("/")[0].split(".", 1)[-1].replace("_", " "))


def open_split(split: str, size: int, options: Options, data_root: Path | None) -> PictureDataset:
    """One split; see `Benchmark.open_split`."""
    return Cub(options.annotations).open_split(split, size, options, data_root)


parts, extent = Cub().parts, Cub().extent


def _read_archive(split: str, folder: Path) -> Metadata:
    """The archive's lists, joined by image number; boxes are not yet cut at the image's border."""
    images = read_table(folder / "images.txt", (2,), None)
    images.require_paths(1)
    images.index(1)
    known = images.index()
    labels = read_table(folder / "image_class_labels.txt", (2,), None).by_image(known, 1, LAST_LABEL)[:, 0] - 1
    in_training = read_table(folder / "train_test_split.txt", (2,), None).by_image(known, 0, 1)[:, 0] == 1
    chosen = np.flatnonzero(in_training == (split == "train-weaksup"))
    if not len(chosen):
        raise DataError(f"train_test_split.txt in {folder} has no image of {split}. Copy CUB's archive again.")
    image_ids = tuple(images.columns[1][row] for row in chosen)
    if split == "train-weaksup":
        return Metadata(image_ids, labels[chosen])
    table = read_table(folder / "bounding_boxes.txt", (5,), None)
    x, y, width, height = table.by_image(known, 0, LARGEST, float)[chosen].T
    boxes = np.stack([x, y, x + width, y + height], 1).astype(np.int64)
    return Metadata(image_ids, labels[chosen], boxes=dict(zip(image_ids, boxes[:, None], strict=True)))
