"""The WSOL benchmark's files: metadata folders, masks, and images under the paths that the metadata names.

A metadata folder is ``image_ids.txt`` (one id a line: the image's path below the image folder), ``class_labels.txt``
(``id,label``), ``image_sizes.txt`` (``id,width,height``) and ``localization.txt``: ``id,x0,y0,x1,y1`` with one line a
box, or ``id,mask,ignore`` with one line an instance, where the ignore mask stands on one line of an image only. In
the benchmark's own metadata (https://github.com/clovaai/wsolevaluation) OpenImages has no sizes, and its training
images have no localization.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from wsolkit.boxes import scale_boxes
from wsolkit.datasets._base import Sample, WsolDataset
from wsolkit.datasets._sources import BENCHMARK, stays_below
from wsolkit.errors import DataError

FOLDERS = {"train-weaksup": "train", "train-fullsup": "val", "test": "test"}
"""The benchmark's folder of each split."""

NO_BOXES = np.zeros((0, 4), np.int64)


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
            image that is missing in one file or doubled; a number that is no integer; a box that is upside down or
            negative; a path that leads out of its folder.
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
    sizes = map(tuple, _numbers_by_image(sizes_file, 3, known, least=1).tolist())
    boxes = _boxes(places_file, columns, known)
    return replace(metadata, sizes=dict(zip(image_ids, sizes, strict=True)), boxes=boxes)


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
        raise DataError(f"{path.name} is missing in {path.parent}. Copy the whole folder again.") from None
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


def read_mask(
    mask_root: Path, mask_paths: Iterable[str], ignore_path: str | None, size: int | tuple[int, int]
) -> np.ndarray:
    """The mask of one image at the evaluation size, as the benchmark makes it.

    Each file is resized with nearest neighbour; what is not black is inside. Foreground is the union of the instances,
    ignored is what the ignore mask covers and the foreground does not.

    Args:
        mask_root: folder that the paths are relative to.
        mask_paths: the instances' files, at least one.
        ignore_path: file of the ignore mask; None for nothing to ignore.
        size: side of the evaluation image in pixels, or its height and width.

    Returns:
        (H, W) uint8: 1 foreground, 0 background, 255 ignored.

    Raises:
        DataError: naming a file that is missing or cannot be decoded.
    """
    shape = (size, size) if isinstance(size, int) else size
    foreground = np.any([_inside(mask_root / path, shape) for path in mask_paths], axis=0)
    mask = foreground.astype(np.uint8)
    if ignore_path is not None:
        mask[_inside(mask_root / ignore_path, shape) & ~foreground] = 255
    return mask


@dataclass(frozen=True)
class ImageFiles:
    """Where the images of a split lie.

    Attributes:
        roots: folders that an id is relative to; the first that has the image is taken.
        other_names: another relative path under which an image may lie, by id.
    """

    roots: tuple[Path, ...]
    other_names: Mapping[str, str] = field(default_factory=dict)

    def find(self, image_id: str) -> Path:
        """The file of an image.

        Raises:
            DataError: if no folder has it.
        """
        for path in self._candidates(image_id):
            if os.path.isfile(path):
                return Path(path)
        folders = " or ".join(map(str, self.roots))
        raise DataError(f"Image {image_id} is not in {folders}. `wsolkit data check` lists what is missing.")

    def count(self, image_ids: Iterable[str]) -> int:
        """How many of the images are there; folders are listed instead of asking for every single file."""
        listings: dict[str, frozenset[str]] = {}

        def there(path: str) -> bool:
            folder, name = os.path.split(path)
            if folder not in listings:
                listings[folder] = frozenset(os.listdir(folder)) if os.path.isdir(folder) else frozenset()
            return name in listings[folder]

        return sum(any(map(there, self._candidates(image))) for image in image_ids)

    def _candidates(self, image_id: str) -> Iterable[str]:
        names = [image_id, *([self.other_names[image_id]] if image_id in self.other_names else [])]
        return (os.path.join(root, name) for root in self.roots for name in names)


class BenchmarkDataset(WsolDataset):
    """One split of a benchmark's data set; images, boxes and masks are scaled to the asked size."""

    def __init__(
        self,
        name: str,
        split: str,
        size: int,
        metadata: Metadata,
        classes: Sequence[str],
        images: ImageFiles,
        mask_root: Path | None = None,
    ):
        """Describe a split; images and masks are read when asked for.

        Args:
            name: the data set's name.
            split: one of the three splits.
            size: side of the square images in pixels.
            metadata: the split. Boxes without sizes are scaled by the size of the picture itself and end inside it.
            classes: class names.
            images: where the images lie.
            mask_root: folder of the masks; needed where the metadata has masks.

        Raises:
            DataError: if a label is not the index of a class.
        """
        self.name, self.split, self.size = name, split, size
        self.classes, self.labels, self.fingerprint = tuple(classes), metadata.labels, metadata.fingerprint()
        if self.labels.max() >= len(self.classes):
            raise DataError(f"{name} {split} has label {self.labels.max()}, but there are {len(self.classes)} classes.")
        self._metadata, self._images, self._mask_root = metadata, images, mask_root

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"Image {index} of {self.name} {self.split}, which has {len(self)} images.")
        image_id = self._metadata.image_ids[index]
        path = self._images.find(image_id)
        try:
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"Cannot decode {path}: {error}. Fetch the data again.") from error
        resized = np.asarray(picture.resize((self.size, self.size), Image.Resampling.BILINEAR))
        boxes, mask = self._boxes(image_id, picture.size), self._mask(image_id)
        return Sample(resized, int(self.labels[index]), boxes, mask, image_id)

    def _mask(self, image_id: str) -> np.ndarray | None:
        if self._metadata.masks is None:
            return None
        if self._mask_root is None:
            raise DataError(f"{self.name} {self.split} names masks; give the folder that they are in (mask_root).")
        return read_mask(self._mask_root, *self._metadata.masks[image_id], self.size)

    def _boxes(self, image_id: str, picture_size: tuple[int, int]) -> np.ndarray:
        if self._metadata.boxes is None:
            return NO_BOXES
        boxes = self._metadata.boxes[image_id]
        if self._metadata.sizes is not None:
            return scale_boxes(boxes, *self._metadata.sizes[image_id], self.size)
        width, height = picture_size
        return scale_boxes(np.minimum(boxes, [width - 1, height - 1] * 2), width, height, self.size)


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


def required(name: str, data_root: Path | None) -> Path:
    """The folder of all real data.

    Raises:
        DataError: if none is given, or it is none.
    """
    if data_root is None or not data_root.is_dir():
        received = "none was given" if data_root is None else f"{data_root} is no folder"
        raise DataError(
            f"{name} needs data_root, the folder that holds metadata/ and the images; {received}. "
            f"`wsolkit data check {name} --data-root FOLDER` says what belongs there."
        )
    return data_root


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


def _boxes(path: Path, columns: list[list[str]], known: Mapping[str, int]) -> dict[str, np.ndarray]:
    ranks, boxes = _ranks(path, columns[0], known), _integers(path, columns[1:])
    wrong = (boxes < 0).any(1) | (boxes[:, 2:] < boxes[:, :2]).any(1)
    if wrong.any():
        number = int(np.argmax(wrong))
        raise _damaged(path, number, f"box {boxes[number].tolist()} is upside down or negative; expected x0,y0,x1,y1")
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


def _inside(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Where a mask file, resized to height and width, is not black; colour is weighed to grey, transparency ignored."""
    try:
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
    except (OSError, cv2.error) as error:
        raise DataError(f"Cannot read the mask {path}: {error}. `wsolkit data check` lists what is missing.") from error
    if image is None:
        raise DataError(f"Cannot decode the mask {path}. Fetch the data again.")
    return cv2.resize(image, shape[::-1], interpolation=cv2.INTER_NEAREST) > 0


def _damaged(path: Path, number: int, what: str) -> DataError:
    return DataError(f"{path.name} in {path.parent} is damaged: line {number + 1}: {what}. Mend it, or fetch it again.")
