"""A cache that decodes or draws each image once: in parallel, resumable, checked, read through memory mapping."""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from filelock import FileLock

from wsolkit.datasets._base import Sample, WsolDataset
from wsolkit.datasets._uncached import OpenedDataset
from wsolkit.errors import DataError
from wsolkit.system.processes import cores
from wsolkit.system.progress import progress
from wsolkit.system.writing import atomic_file, writable_folder

ARRAYS = ("images", "boxes", "box_ends", "masks", "ids", "sums")
"""What a cache holds; image i's boxes end at ``box_ends[i]``, and ``sums`` has the CRC-32 of every chunk of images."""

CHUNK = 256
"""Images that are read by one thread at a time, and redone if the process ends meanwhile."""


class CachedDataset(OpenedDataset):
    """The same samples, each decoded or drawn once and then held in memory or in a folder."""

    images: np.ndarray

    def __init__(self, source: WsolDataset, folder: Path | None = None):
        """Fill the cache, or go on filling it, or open it where it is whole.

        Args:
            source: the data set to read once.
            folder: where to keep the arrays, memory-mapped when read; None keeps them in memory.

        Raises:
            DataError: if an image cannot be read (what was read is kept), the disk is too small, or the cache damaged.
        """
        self.name, self.split, self.size = source.name, source.split, source.size
        self.classes, self.labels, self.fingerprint = source.classes, source.labels, source.fingerprint
        arrays = _in_memory(source) if folder is None else _on_disk(source, Path(folder))
        self.images, self._boxes, self._box_ends, self._masks, self._ids, self._sums = (arrays[n] for n in ARRAYS)

    def __getitem__(self, index: int) -> Sample:
        start = 0 if index == 0 else self._box_ends[index - 1]
        mask = self._masks[index] if len(self._masks) else None
        boxes = self._boxes[start : self._box_ends[index]]
        return Sample(self.images[index], int(self.labels[index]), boxes, mask, str(self._ids[index]))


def verify(folder: Path) -> list[str]:
    """Read every image of a cache against the sum it was written with.

    Args:
        folder: of one split, below the cache folder.

    Returns:
        What is wrong, one line each; nothing if the cache is whole.
    """
    try:
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    except (OSError, ValueError, EOFError) as error:
        return [f"{folder} cannot be read: {error}"]
    chunks = progress(list(_chunks(len(arrays["images"]))), f"images of {folder.name}")
    wrong = [
        chunk for chunk, known in zip(chunks, arrays["sums"], strict=True) if _sum(arrays["images"], chunk) != known
    ]
    return [f"{folder}: images {chunk.start} to {chunk.stop - 1} were altered; delete that folder" for chunk in wrong]


def _in_memory(source: WsolDataset) -> dict[str, np.ndarray]:
    images = np.empty((len(source), source.size, source.size, 3), np.uint8)
    chunks = list(_chunks(len(source)))
    parts = [_read(source, images, chunk) for chunk in progress(chunks, _title(source))]
    return {"images": images, **_together(parts)}


def _on_disk(source: WsolDataset, folder: Path) -> dict[str, np.ndarray]:
    identity = [source.name, source.split, source.size, source.fingerprint]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    target = folder / f"{source.name}-{source.split}-{source.size}-{key}"
    with FileLock(writable_folder(folder) / f"{target.name}.lock"):
        if not target.exists():
            partial = folder / f".{target.name}"
            _fill(source, partial)
            os.replace(partial, target)
    try:
        arrays = {name: np.load(target / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
        if len(arrays["ids"]) != len(source) or len(arrays["images"]) != len(source):
            raise ValueError(f"{len(arrays['images'])} images instead of {len(source)}")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"The cache in {target} is damaged ({error}). Delete that folder; it is made anew.") from error
    return arrays


def _fill(source: WsolDataset, folder: Path) -> None:
    """Read all images into a folder; one that an earlier process has begun is gone on with."""
    folder.mkdir(exist_ok=True)
    images, chunks = _room_for(source, folder / "images.npy"), list(_chunks(len(source)))
    files = [folder / f"part-{chunk.start:08d}.npz" for chunk in chunks]
    todo = [(chunk, file) for chunk, file in zip(chunks, files, strict=True) if not _is_whole(images, chunk, file)]
    pool = ThreadPoolExecutor(cores())
    try:
        # Decoding and resizing leave Python's lock, so that threads are as fast as processes, and begin at once.
        tasks = [pool.submit(_read_to_file, source, images, chunk, file) for chunk, file in todo]
        for task in progress(as_completed(tasks), _title(source), total=len(tasks), unit="chunk"):
            task.result()
    finally:
        pool.shutdown(cancel_futures=True)
    images.flush()
    _write_masks(source, folder / "masks.npy", files)
    for name, array in _together([_load(file, without="masks") for file in files]).items():
        with atomic_file(folder / f"{name}.npy") as partial, partial.open("wb") as opened:
            np.save(opened, array)
    for file in files:
        file.unlink()


def _write_masks(source: WsolDataset, target: Path, files: list[Path]) -> None:
    """Put the masks of all chunks into one file, a chunk at a time: together they may exceed the memory."""
    masked = len(np.load(files[0])["masks"]) > 0
    shape = (len(source) if masked else 0, source.size, source.size)
    with atomic_file(target) as partial:
        masks = np.lib.format.open_memmap(partial, "w+", np.uint8, shape) if masked else np.zeros(shape, np.uint8)
        for start, file in zip(range(0, len(masks), CHUNK), files, strict=False):
            masks[start : start + CHUNK] = np.load(file)["masks"]
        if isinstance(masks, np.memmap):
            masks.flush()
        else:
            with partial.open("wb") as opened:
                np.save(opened, masks)


def _load(file: Path, without: str) -> dict[str, np.ndarray]:
    with np.load(file) as part:
        return {name: part[name] for name in part.files if name != without}


def _room_for(source: WsolDataset, file: Path) -> np.memmap:
    """The images' file, with its whole space reserved: a full disk ends a process that writes through memory."""
    shape = (len(source), source.size, source.size, 3)
    if file.exists():
        return np.lib.format.open_memmap(file, "r+")
    needed, free = int(np.prod(shape)), shutil.disk_usage(file.parent).free
    if needed > free:
        raise DataError(
            f"The decoded images of {source.name} {source.split} take {needed / 1e9:.1f} GB, and {file.parent.parent} "
            f"has {free / 1e9:.1f} GB left. Set WSOLKIT_CACHE to a folder with more room."
        )
    with atomic_file(file) as partial:
        np.lib.format.open_memmap(partial, "w+", np.uint8, shape).flush()
        if hasattr(os, "posix_fallocate"):
            with partial.open("r+b") as opened:
                os.posix_fallocate(opened.fileno(), 0, partial.stat().st_size)
    return np.lib.format.open_memmap(file, "r+")


def _read_to_file(source: WsolDataset, images: np.ndarray, chunk: range, file: Path) -> None:
    part = _read(source, images, chunk)
    with atomic_file(file) as partial, partial.open("wb") as opened:
        np.savez(opened, **part)  # type: ignore[arg-type]  # its stub takes any name for `allow_pickle`, which none is


def _read(source: WsolDataset, images: np.ndarray, chunk: range) -> dict[str, np.ndarray]:
    """Read a chunk: its images into their place, and the rest as small arrays."""
    boxes, counts, masks, ids = [np.zeros((0, 4), np.int64)], [], [], []
    for index in chunk:
        sample = source[index]
        images[index] = sample.image
        boxes.append(sample.boxes)
        counts.append(len(sample.boxes))
        ids.append(sample.image_id)
        masks += [] if sample.mask is None else [sample.mask]
    found = np.stack(masks) if masks else np.zeros((0, source.size, source.size), np.uint8)
    arrays = {"boxes": np.concatenate(boxes), "counts": np.array(counts), "masks": found, "ids": np.array(ids)}
    return arrays | {"sum": np.array([_sum(images, chunk)], np.uint32)}


def _together(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    ends = np.cumsum(joined.pop("counts"), dtype=np.int64)
    return {**joined, "sums": joined.pop("sum"), "box_ends": ends}


def _is_whole(images: np.ndarray, chunk: range, file: Path) -> bool:
    """Whether an earlier process has read a chunk, and its images are as they were written."""
    try:
        with np.load(file) as part:
            return len(part["ids"]) == len(chunk) and int(part["sum"][0]) == _sum(images, chunk)
    except (OSError, ValueError, KeyError, EOFError):
        return False


def _chunks(count: int) -> Iterator[range]:
    return (range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK))


def _sum(images: np.ndarray, chunk: range) -> int:
    return zlib.crc32(np.ascontiguousarray(images[chunk.start : chunk.stop]).data)


def _title(source: WsolDataset) -> str:
    return f"images of {source.name} {source.split}"
