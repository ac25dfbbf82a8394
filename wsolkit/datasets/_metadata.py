"""The WSOL benchmark's metadata folders.

A metadata folder is ``image_ids.txt`` (one id a line: the image's path below the image folder), ``class_labels.txt``
(``id,label``), ``image_sizes.txt`` (``id,width,height``) and ``localization.txt``: ``id,x0,y0,x1,y1`` with one line a
box, or ``id,mask,ignore`` with one line an instance, where the ignore mask stands on one line of an image only. In
the benchmark's own metadata (https://github.com/clovaai/wsolevaluation) OpenImages has no sizes, and its training
images have no localization.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wsolkit.datasets._sources import BENCHMARK, stays_below
from wsolkit.errors import DataError

FOLDERS = {"train-weaksup": "train", "train-fullsup": "val", "test": "test"}
"""The benchmark's folder of each split."""


LINES = {
    "image_ids.txt": "an image id a line, e.g. birds/1.jpg",
    "class_labels.txt": "id,class index, e.g. birds/1.jpg,0",
    "image_sizes.txt": "id,width,height in pixels, e.g. birds/1.jpg,500,375",
    "localization.txt": "id,x0,y0,x1,y1 in pixels, a line a box, e.g. birds/1.jpg,10,20,300,200; or id,mask,ignore",
}
"""What a metadata folder's files hold."""


class MaskFiles(NamedTuple):
    """Masks of one image, relative to the mask folder: one file an instance, and what to ignore (None: nothing)."""

    instances: tuple[str, ...]
    ignore: str | None


@dataclass(frozen=True)
class Metadata:
    """One split as its metadata folder describes it.

    Attributes:
        image_ids: every image once, in the order of ``image_ids.txt``.
        labels: (N,) int64, in the same order.
        sizes: (width, height) of every image in pixels; None for masks, or where only labels were read.
        boxes: (k, 4) int64 for every image, ``x0, y0, x1, y1`` in its own pixels, k >= 1; None where there are none.
        masks: files of every image; None where there are none.
    """

    image_ids: tuple[str, ...]
    labels: np.ndarray
    sizes: Mapping[str, tuple[int, int]] | None = None
    boxes: Mapping[str, np.ndarray] | None = None
    masks: Mapping[str, MaskFiles] | None = None

    def fingerprint(self) -> str:
        """A short text that changes with any image, label, size, box or mask file."""
        seen = hashlib.sha256("\n".join(self.image_ids).encode() + self.labels.tobytes())
        if self.sizes is not None:
            seen.update(np.array([self.sizes[image] for image in self.image_ids]).tobytes())
        if self.boxes is not None:
            boxes = [self.boxes[image] for image in self.image_ids]
            seen.update(np.array([len(each) for each in boxes]).tobytes() + np.concatenate(boxes).tobytes())
        if self.masks is not None:
            seen.update(repr([self.masks[image] for image in self.image_ids]).encode())
        return seen.hexdigest()[:16]


def read_metadata(folder: Path, localization: bool = True) -> Metadata:
    """Read a metadata folder; every file must name the same images.

    Args:
        folder: e.g. ``metadata/CUB/test``.
        localization: read boxes with image sizes, or mask paths, too; without, only ids and labels are read, which is
            all that weak supervision has.

    Returns:
        The split. With ``localization``, either ``boxes`` and ``sizes`` or ``masks`` are there.

    Raises:
        DataError: naming file and line, for a file that is missing, empty or not text; a line of the wrong shape; an
            image that is missing in one file or doubled; a number that is no integer; a box that is upside down,
            negative or ends beyond its image; a path that leads out of its folder.
    """
    if not folder.is_dir():
        raise DataError(f"Metadata not found: {folder} is no folder. It is part of {BENCHMARK}, under metadata/.")
    ids_file, labels_file, sizes_file, places_file = (
        folder / f"{name}.txt" for name in ("image_ids", "class_labels", "image_sizes", "localization")
    )
    (image_ids,) = read_columns(ids_file, (1,))
    check_paths(ids_file, image_ids)
    known = {image: number for number, image in enumerate(image_ids)}
    if len(known) < len(image_ids):
        number = next(n for n, image in enumerate(image_ids) if known[image] != n)
        raise _damaged(ids_file, number, f"{image_ids[number]!r} is there twice")
    metadata = Metadata(tuple(image_ids), _numbers_by_image(labels_file, 2, known, least=0)[:, 0])
    if not localization:
        return metadata
    columns = read_columns(places_file, (5, 3))
    if len(columns) == 3:
        return replace(metadata, masks=_masks(places_file, columns, known))
    sizes = _numbers_by_image(sizes_file, 3, known, least=1)
    boxes = _boxes(places_file, columns, known, sizes)
    return replace(metadata, sizes=dict(zip(image_ids, map(tuple, sizes.tolist()), strict=True)), boxes=boxes)


def read_columns(path: Path, counts: Sequence[int], separator: str | None = ",") -> list[list[str]]:
    """The columns of a text file in which every line has as many.

    Args:
        path: the file.
        counts: how many columns there may be; the first line decides.
        separator: what stands between columns; None for white space.

    Raises:
        DataError: naming the file and the line.
    """
    try:
        text = path.read_text(encoding="utf-8").rstrip("\n")
    except FileNotFoundError:
        holds = f" It holds {LINES[path.name]}." if path.name in LINES else " Copy the whole folder again."
        raise DataError(f"{path.name} is missing in {path.parent}.{holds}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Cannot read {path} as text: {error}. Fetch it again.") from error
    if not text:
        raise DataError(f"{path} is empty. Fetch it again.")
    lines = text.split("\n")
    found = [len(line.split()) if separator is None else line.count(separator) + 1 for line in lines]
    count = found[0] if found[0] in counts else counts[0]
    if set(found) != {count}:
        number = next(n for n, columns in enumerate(found) if columns != count)
        between = "white space" if separator is None else repr(separator)
        allowed = count if number else " or ".join(map(str, counts))
        raise _damaged(path, number, f"it has {found[number]} columns, not {allowed}, with {between} between them")
    # One flat list: a list for each of a million lines takes several times as long.
    cells = text.split() if separator is None else text.replace("\n", separator).split(separator)
    return [cells[column::count] for column in range(count)]


def check_paths(path: Path, names: Iterable[str]) -> None:
    """Refuse a list that names something outside the folder it is about.

    Raises:
        DataError: naming the file and the line.
    """
    for number, name in enumerate(names):
        if not stays_below(name):
            raise _damaged(path, number, f"{name!r} is no path below the data's folder")


def class_names(metadata: Metadata, name_of: Callable[[str], str]) -> tuple[str, ...]:
    """Class names in the order of labels, each from the first image of its class.

    Raises:
        DataError: if a label between 0 and the highest has no image.
    """
    labels, first = np.unique(metadata.labels, return_index=True)
    if len(labels) <= labels[-1]:
        missing = np.setdiff1d(np.arange(labels[-1]), labels)[0]
        raise DataError(f"Labels go up to {labels[-1]}, but no image has label {missing}. Labels must leave no gap.")
    return tuple(name_of(metadata.image_ids[number]) for number in first)


def metadata_folder(data_root: Path, benchmark: str, split: str) -> Path:
    """The metadata folder of a split, e.g. ``metadata/CUB/test`` for ``"CUB"`` and ``"test"``."""
    return data_root / "metadata" / benchmark / FOLDERS[split]


def _numbers_by_image(path: Path, count: int, known: Mapping[str, int], least: int) -> np.ndarray:
    """Integers (N, count - 1) of a file with one line an image, in the order of the ids."""
    images, *cells = read_columns(path, (count,))
    ranks = _ranks(path, images, known, once=True)
    numbers = _integers(path, cells)
    if numbers.min() < least:
        number = int(np.argmax((numbers < least).any(1)))
        raise _damaged(path, number, f"{numbers[number].min()} is below {least}")
    ordered = np.empty_like(numbers)
    ordered[ranks] = numbers
    return ordered


def _boxes(path: Path, columns: list[list[str]], known: Mapping[str, int], sizes: np.ndarray) -> dict[str, np.ndarray]:
    """The boxes of every image; the benchmark's own end at width and height, a pixel beyond the last."""
    ranks, boxes = _ranks(path, columns[0], known), _integers(path, columns[1:])
    wrong = (boxes < 0).any(1) | (boxes[:, 2:] < boxes[:, :2]).any(1)
    beyond = (boxes[:, 2:] > sizes[ranks]).any(1)
    if wrong.any():
        number = int(np.argmax(wrong))
        raise _damaged(path, number, f"box {boxes[number].tolist()} is upside down or negative; expected x0,y0,x1,y1")
    if beyond.any():
        number = int(np.argmax(beyond))
        width, height = sizes[ranks[number]].tolist()
        stated = f"its image, which has {width}x{height} pixels in image_sizes.txt"
        raise _damaged(path, number, f"box {boxes[number].tolist()} ends beyond {stated}")
    ends = np.cumsum(np.bincount(ranks))[:-1]
    return dict(zip(known, np.split(boxes[np.argsort(ranks, kind="stable")], ends), strict=True))


def _masks(path: Path, columns: list[list[str]], known: Mapping[str, int]) -> dict[str, MaskFiles]:
    _ranks(path, columns[0], known)
    check_paths(path, columns[1])
    check_paths(path, (ignore or "nothing" for ignore in columns[2]))
    instances: dict[str, list[str]] = {image: [] for image in known}
    ignored: dict[str, str] = {}
    for number, (image, mask, ignore) in enumerate(zip(*columns, strict=True)):
        instances[image].append(mask)
        if ignore and ignored.setdefault(image, ignore) != ignore:
            raise _damaged(path, number, f"{image!r} has a second ignore mask")
    return {image: MaskFiles(tuple(instances[image]), ignored.get(image)) for image in known}


def _ranks(path: Path, images: list[str], known: Mapping[str, int], once: bool = False) -> np.ndarray:
    """Which image, by its line in ``image_ids.txt``, each line is about; every image must occur."""
    try:
        ranks = np.fromiter(map(known.__getitem__, images), np.int64, len(images))
    except KeyError as error:
        (stranger,) = error.args
        raise _damaged(path, images.index(stranger), f"{stranger!r} is not in image_ids.txt") from None
    counts = np.bincount(ranks, minlength=len(known))
    if not counts.all():
        line = int(counts.argmin())
        raise DataError(f"{path} has no line for {list(known)[line]!r}, which is line {line + 1} of image_ids.txt.")
    if once and counts.max() > 1:
        doubled = int(np.flatnonzero(ranks == counts.argmax())[1])
        raise _damaged(path, doubled, f"{images[doubled]!r} is there twice")
    return ranks


def _integers(path: Path, columns: list[list[str]]) -> np.ndarray:
    try:
        return np.stack([np.fromiter(map(int, column), np.int64, len(column)) for column in columns], 1)
    except (ValueError, OverflowError):
        lines = enumerate(zip(*columns, strict=True))
        number, cells = next((n, cells) for n, cells in lines if not all(map(_is_integer, cells)))
        raise _damaged(path, number, f"expected integers, received {','.join(cells)!r}") from None


def _is_integer(cell: str) -> bool:
    try:
        return abs(int(cell)) < 2**63
    except ValueError:
        return False


def _damaged(path: Path, number: int, what: str) -> DataError:
    return DataError(f"{path.name} in {path.parent} is damaged: line {number + 1}: {what}. Mend it, or fetch it again.")
