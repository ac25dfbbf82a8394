"""What every data set gives (`Sample`, `WsolDataset`) and a cache that decodes or draws each image once."""

import hashlib
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from torch.utils.data import Dataset

from wsolkit.errors import DataError
from wsolkit.files import atomic_folder, writable_folder
from wsolkit.progress import progress

SPLITS = ("train-weaksup", "train-fullsup", "test")
"""Roles of the WSOL benchmark: labels only; boxes for tuning and model selection; the final report."""


@dataclass(frozen=True)
class Sample:
    """One image with its annotation, at one size.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        label: class index.
        boxes: (k, 4) int64, ``x0, y0, x1, y1`` in pixels of ``image``; (0, 4) where the data set has none.
        mask: (H, W) uint8, 1 foreground, 0 background, 255 ignored; None where the data set has none.
        image_id: a name, unique within the split.
    """

    image: np.ndarray
    label: int
    boxes: np.ndarray
    mask: np.ndarray | None
    image_id: str


class WsolDataset(Dataset, ABC):
    """One split of a data set at one size; ``dataset[i]`` is a :class:`Sample`.

    Attributes:
        name: the data set's name.
        split: one of :data:`SPLITS`.
        size: side of the square images in pixels.
        classes: class names; a label is an index into them.
        labels: (N,) int64, known without decoding an image.
        fingerprint: a short text that changes whenever a pixel or a label might.
    """

    name: str
    split: str
    size: int
    classes: Sequence[str]
    labels: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Image ``index`` with its annotation; IndexError beyond the last."""


CACHED = ("images", "boxes", "box_ends", "masks", "ids")
"""Arrays that a cache holds; image i's boxes end at ``box_ends[i]``."""


class CachedDataset(WsolDataset):
    """The same samples, each decoded or drawn once and then held in memory or in a folder.

    Attributes:
        images: (N, S, S, 3) uint8, indexable by an array of image numbers.
    """

    def __init__(self, source: WsolDataset, folder: Path | None = None):
        """Fill the cache, or open it where it exists.

        Args:
            source: the data set to read once.
            folder: where to keep the arrays, memory-mapped when read; None keeps them in memory.
        """
        self.name, self.split, self.size = source.name, source.split, source.size
        self.classes, self.labels, self.fingerprint = source.classes, source.labels, source.fingerprint
        arrays = _read_all(source) if folder is None else _read_through(source, Path(folder))
        self.images, self._boxes, self._box_ends, self._masks, self._ids = (arrays[name] for name in CACHED)

    def __getitem__(self, index: int) -> Sample:
        start = 0 if index == 0 else self._box_ends[index - 1]
        mask = self._masks[index] if len(self._masks) else None
        boxes = self._boxes[start : self._box_ends[index]]
        return Sample(self.images[index], int(self.labels[index]), boxes, mask, str(self._ids[index]))


def _read_all(source: WsolDataset, file: Path | None = None) -> dict[str, np.ndarray]:
    """Read every sample; the images go straight into a file where one is given, since they may exceed the memory."""
    count, side = len(source), source.size
    shape = (count, side, side, 3)
    images = np.empty(shape, np.uint8) if file is None else np.lib.format.open_memmap(file, "w+", np.uint8, shape)
    boxes, masks, ids = [], [], []
    for index in progress(range(count), f"images of {source.name} {source.split}"):
        sample = source[index]
        images[index] = sample.image
        boxes.append(sample.boxes)
        ids.append(sample.image_id)
        if sample.mask is not None:
            masks.append(sample.mask)
    return {
        "images": images,
        "boxes": np.concatenate([*boxes, np.zeros((0, 4), np.int64)]),
        "box_ends": np.cumsum([len(b) for b in boxes], dtype=np.int64),
        "masks": np.stack(masks) if masks else np.zeros((0, side, side), np.uint8),
        "ids": np.array(ids),
    }


def _read_through(source: WsolDataset, folder: Path) -> dict[str, np.ndarray]:
    identity = [source.name, source.split, source.size, source.fingerprint]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    target = folder / f"{source.name}-{source.split}-{source.size}-{key}"
    with FileLock(writable_folder(folder) / f"{target.name}.lock"):
        if not target.exists():
            with atomic_folder(target) as partial:
                _require_room(source, folder)
                arrays = _read_all(source, partial / "images.npy")
                arrays.pop("images").flush()
                for name, array in arrays.items():
                    np.save(partial / f"{name}.npy", array)
    try:
        return {name: np.load(target / f"{name}.npy", mmap_mode="r") for name in CACHED}
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"The cache in {target} is damaged ({error}). Delete that folder; it is made anew.") from error


def _require_room(source: WsolDataset, folder: Path) -> None:
    """Ask for the disk space first: a full disk ends a process that writes through memory without a word."""
    needed, free = 3 * len(source) * source.size**2, shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"The decoded images of {source.name} {source.split} take {needed / 1e9:.1f} GB, and {folder} has "
            f"{free / 1e9:.1f} GB left. Set WSOLKIT_CACHE to a folder with more room."
        )
