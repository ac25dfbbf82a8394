"""Data sets with all their images as one array: decoded once into a folder or memory, or decoded at every access.

A cache folder is filled in parallel and can be filled further after a kill. It is checked, and read by memory mapping.
"""

import hashlib
import json
import os
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from wsolkit.datasets._base import Sample, WsolDataset
from wsolkit.errors import DataError, turned_into
from wsolkit.system.atomic_files import atomic_file, writable_folder
from wsolkit.system.processes import cores
from wsolkit.system.progress import progress

#: What a cache holds; image i's boxes end at ``box_ends[i]``, and ``sums`` has the CRC-32 of every chunk of images.
ARRAYS = ("images", "boxes", "box_ends", "masks", "ids", "sums")

#: Images that one thread reads at a time; they are read again if the process ends meanwhile.
CHUNK = 256

Arrays = dict[str, np.ndarray]


class OpenedDataset(WsolDataset):
    """A split whose images can be read many at a time.

    Attributes:
        images: (N, S, S, 3) uint8, indexable by an array of image numbers.
    """

    images: "np.ndarray | Decoded"

    def __init__(self, source: WsolDataset):
        """Take over what describes ``source``."""
        self.name, self.split, self.size = source.name, source.split, source.size
        self.classes, self.labels, self.fingerprint = source.classes, source.labels, source.fingerprint


class UncachedDataset(OpenedDataset):
    """The same samples as the source's, each image decoded whenever it is asked for."""

    def __init__(self, source: WsolDataset):
        """Read nothing yet."""
        super().__init__(source)
        self._source, self.images = source, Decoded(source)

    def __getitem__(self, index: int) -> Sample:
        return self._source[index]


class Decoded:
    """The images of a data set, indexed like an array and decoded at every access.

    Attributes:
        shape: as the array would have.
    """

    def __init__(self, source: WsolDataset):
        """Read nothing yet."""
        self._source, self._numbers = source, np.arange(len(source))
        self.shape = (len(source), source.size, source.size, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        if isinstance(index, tuple):
            return self[index[0]][index[1:]]
        chosen = self._numbers[index]
        if chosen.ndim == 0:
            return self._source[int(chosen)].image
        return np.stack([self._source[int(number)].image for number in chosen])


class CachedDataset(OpenedDataset):
    """The same samples, each decoded or drawn once and then held in memory or in a folder."""

    images: np.ndarray

    def __init__(self, source: WsolDataset, folder: Path | None = None):
        """Fill the cache, go on filling it, or open a complete one.

        Args:
            source: the data set to read once.
            folder: where to keep the arrays, memory-mapped when read; None keeps them in memory.

        Raises:
            DataError: if an image cannot be read (what was read is kept), the disk is too small, or the cache damaged.
        """
        super().__init__(source)
        arrays = _filled(source, None) if folder is None else _on_disk(source, Path(folder))
        self.images, self._boxes, self._box_ends, self._masks, self._ids, _ = (arrays[name] for name in ARRAYS)

    def __getitem__(self, index: int) -> Sample:
        self.require_index(index)
        boxes = self._boxes[self._box_ends[index - 1] if index else 0 : self._box_ends[index]]
        mask = self._masks[index] if len(self._masks) else None
        return Sample(self.images[index], int(self.labels[index]), boxes, mask, str(self._ids[index]))


def verify(folder: Path) -> list[str]:
    """Read every image of a cache and compare it with the sum it was written with.

    Args:
        folder: of one split, below the cache folder.

    Returns:
        What is wrong, one line each; nothing if the cache is intact.
    """
    try:
        arrays = _loaded(folder)
    except Exception as error:  # NumPy may raise anything for a damaged byte
        return [f"{folder} cannot be read: {error}"]
    chunks = progress(_chunks(len(arrays["images"])), f"images of {folder.name}")
    wrong = [part for part, known in zip(chunks, arrays["sums"], strict=True) if _sum(arrays["images"], part) != known]
    return [f"{folder}: images {part.start} to {part.stop - 1} were altered; delete that folder" for part in wrong]


def _on_disk(source: WsolDataset, folder: Path) -> Arrays:
    """The arrays of a cache below ``folder``, filled first if need be."""
    identity = [source.name, source.split, source.size, source.fingerprint]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    target = folder / f"{source.name}-{source.split}-{source.size}-{key}"
    with FileLock(writable_folder(folder) / f"{target.name}.lock"):
        if not target.exists():
            partial = folder / f".{target.name}"
            partial.mkdir(exist_ok=True)
            for name, array in _filled(source, partial).items():
                if isinstance(array, np.memmap):
                    array.flush()
                else:
                    with atomic_file(partial / f"{name}.npy") as file, file.open("wb") as opened:
                        np.save(opened, array)
            for file in partial.glob("*.npz"):
                file.unlink()
            os.replace(partial, target)
    with turned_into(DataError, f"The cache in {target} is damaged", "Delete that folder; it is rebuilt."):
        arrays = _loaded(target)
        if len(arrays["images"]) != len(source):
            raise ValueError(f"{len(arrays['images'])} images instead of {len(source)}")
    return arrays


def _loaded(folder: Path) -> Arrays:
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    count, ends = len(arrays["images"]), arrays["box_ends"]
    lengths = len(arrays["ids"]), len(ends), int(ends[-1]), len(arrays["sums"])
    if lengths != (count, count, len(arrays["boxes"]), len(_chunks(count))) or len(arrays["masks"]) not in (0, count):
        raise ValueError("its files do not belong together")
    return arrays


def _filled(source: WsolDataset, folder: Path | None) -> Arrays:
    """Read all images into memory, or into a folder, where chunks that an earlier process has read are kept."""
    count, shape = len(source), (source.size, source.size)
    images = _room(source, folder, "images", (count, *shape, 3))
    masks = _room(source, folder, "masks", (0 if source[0].mask is None else count, *shape))

    def read(chunk: range) -> Arrays:
        file = folder and folder / f"chunk-{chunk.start:08d}.npz"
        part = _kept(file, chunk, images, masks) if file else None
        if part is None:
            part = _read(source, chunk, images, masks)
            if file:
                with atomic_file(file) as partial, partial.open("wb") as opened:
                    np.savez(opened, **part)  # type: ignore[arg-type]  # its stub takes any name for `allow_pickle`
        return part

    chunks = _chunks(count)
    # Decoding and resizing release Python's lock, so threads are as fast as processes, and start at once.
    with ThreadPoolExecutor(cores()) as pool:
        title = f"images of {source.name} {source.split}"
        parts = list(progress(pool.map(read, chunks), title, len(chunks), "chunk"))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    ends, sums = np.cumsum(joined.pop("counts"), dtype=np.int64), joined.pop("sums")[::2].astype(np.uint32)
    return {"images": images, "masks": masks, "box_ends": ends, "sums": sums, **joined}


def _room(source: WsolDataset, folder: Path | None, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array to fill. On disk its space is reserved: a full disk would end a process that writes to mapped memory."""
    if folder is None or not shape[0]:
        return np.zeros(shape, np.uint8)
    file = folder / f"{name}.npy"
    with suppress(Exception):  # what an earlier process left is rebuilt if it cannot be opened
        begun = np.lib.format.open_memmap(file, "r+")
        if (begun.shape, begun.dtype) == (shape, np.uint8):
            return begun
    needed, free = int(np.prod(shape)), shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"The decoded {name} of {source.name} {source.split} take {needed / 1e9:.1f} GB, and {folder.parent} "
            f"has {free / 1e9:.1f} GB left. Set WSOLKIT_CACHE to a folder with more room, or to 'off'."
        )
    with atomic_file(file) as partial:
        np.lib.format.open_memmap(partial, "w+", np.uint8, shape).flush()
        if hasattr(os, "posix_fallocate"):
            with partial.open("r+b") as opened:
                os.posix_fallocate(opened.fileno(), 0, partial.stat().st_size)
    return np.lib.format.open_memmap(file, "r+")


def _read(source: WsolDataset, chunk: range, images: np.ndarray, masks: np.ndarray) -> Arrays:
    """Read a chunk: its images and masks into their place, and the rest as small arrays."""
    boxes, ids = [], []
    for index in chunk:
        sample = source[index]
        images[index] = sample.image
        if len(masks):
            masks[index] = sample.mask
        boxes.append(sample.boxes)
        ids.append(sample.image_id)
    counts, sums = [len(each) for each in boxes], [_sum(images, chunk), _sum(masks, chunk)]
    return {"boxes": np.concatenate(boxes), "counts": np.array(counts), "ids": np.array(ids), "sums": np.array(sums)}


def _kept(file: Path, chunk: range, images: np.ndarray, masks: np.ndarray) -> Arrays | None:
    """What an earlier process has read of a chunk, if its images and masks are as they were written."""
    try:
        with np.load(file) as opened:
            part = dict(opened)
        return part if part["sums"].tolist() == [_sum(images, chunk), _sum(masks, chunk)] else None
    except Exception:  # NumPy may raise anything for a damaged byte
        return None


def _chunks(count: int) -> list[range]:
    return [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]


def _sum(array: np.ndarray, chunk: range) -> int:
    return zlib.crc32(np.ascontiguousarray(array[chunk.start : chunk.stop]).data)
