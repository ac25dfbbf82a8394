"""The WSOL benchmark's metadata folders.

A metadata folder is ``image_ids.txt`` (one id per line: the image's path below the image folder), ``class_labels.txt``
(``id,label``), ``image_sizes.txt`` (``id,width,height``) and ``localization.txt``: ``id,x0,y0,x1,y1`` with one line per
box, or ``id,mask,ignore`` with one line per instance, where only one line of an image names the ignore mask. In
the benchmark's own metadata (https://github.com/clovaai/wsolevaluation) OpenImages has no sizes, and its training
images have no localization.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wsolkit.datasets._tables import Table, read_table
from wsolkit.errors import DataError

#: Home of the WSOL benchmark: metadata of every split, and links to the images that it has collected.
BENCHMARK = "https://github.com/clovaai/wsolevaluation"

#: The highest class index that is accepted.
LAST_LABEL = 999_999


class MaskFiles(NamedTuple):
    """Masks of one image, relative to the mask folder: one file per instance, and what to ignore (None: nothing)."""

    instances: tuple[str, ...]
    ignore: str | None


@dataclass(frozen=True)
class Metadata:
    """One split as its metadata folder describes it.

    Attributes:
        image_ids: every image once, in the order of ``image_ids.txt``.
        labels: (N,) int64, in the same order.
        sizes: (width, height) of every image in pixels; None with masks, or if only labels were read.
        boxes: (k, 4) int64 for every image, ``x0, y0, x1, y1`` in its own pixels, k >= 1; None if there are none.
        masks: files of every image; None if there are none.
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
        localization: also read boxes with image sizes, or mask paths. Without it only ids and labels are read, which
            is all that weak supervision has.

    Returns:
        The split. With ``localization`` it has either ``boxes`` and ``sizes``, or ``masks``.

    Raises:
        DataError: naming file and line, for a file that is missing, empty or not text; a line with too few or too many
            columns; an image that is missing from one file or listed twice; a number that is not an integer or out of
            range; a box that is upside down or ends beyond its image; a path that leads out of its folder.
    """
    if not folder.is_dir():
        raise DataError(f"Metadata not found: {folder} is not a folder. It is part of {BENCHMARK}, under metadata/.")
    ids = read_table(folder / "image_ids.txt", (1,))
    ids.require_paths(0)
    known = ids.index()
    labels = read_table(folder / "class_labels.txt", (2,)).by_image(known, 0, LAST_LABEL)[:, 0]
    metadata = Metadata(tuple(known), labels)
    if not localization:
        return metadata
    places = read_table(folder / "localization.txt", (5, 3))
    if len(places.columns) == 3:
        return replace(metadata, masks=_masks(places, known))
    sizes = read_table(folder / "image_sizes.txt", (3,)).by_image(known, 1)
    boxes = _boxes(places, known, sizes)
    return replace(metadata, sizes=dict(zip(known, map(tuple, sizes.tolist()), strict=True)), boxes=boxes)


def class_names(metadata: Metadata, name_of: Callable[[str], str]) -> tuple[str, ...]:
    """Class names in the order of labels, each from the first image of its class.

    Raises:
        DataError: if a label between 0 and the highest has no image.
    """
    labels, first = np.unique(metadata.labels, return_index=True)
    if len(labels) <= labels[-1]:
        missing = np.flatnonzero(labels != np.arange(len(labels)))[0]
        raise DataError(f"Labels go up to {labels[-1]}, but no image has label {missing}. Number them without gaps.")
    return tuple(name_of(metadata.image_ids[number]) for number in first)


def _boxes(table: Table, known: Mapping[str, int], sizes: np.ndarray) -> dict[str, np.ndarray]:
    """The boxes of every image; the benchmark's own end at width and height, one pixel beyond the last."""
    ranks, boxes = table.ranks(known), table.numbers()
    upside_down, beyond = (boxes[:, 2:] < boxes[:, :2]).any(1), (boxes[:, 2:] > sizes[ranks]).any(1)
    if upside_down.any():
        row = int(upside_down.argmax())
        raise table.damaged(row, f"box {boxes[row].tolist()} is upside down; expected x0,y0,x1,y1")
    if beyond.any():
        row = int(beyond.argmax())
        width, height = sizes[ranks[row]].tolist()
        stated = f"its image, which has {width}x{height} pixels in image_sizes.txt"
        raise table.damaged(row, f"box {boxes[row].tolist()} ends beyond {stated}")
    ends = np.cumsum(np.bincount(ranks))[:-1]
    return dict(zip(known, np.split(boxes[np.argsort(ranks, kind="stable")], ends), strict=True))


def _masks(table: Table, known: Mapping[str, int]) -> dict[str, MaskFiles]:
    table.ranks(known)
    table.require_paths(1)
    table.require_paths(2, empty=True)
    instances: dict[str, list[str]] = {image: [] for image in known}
    ignored: dict[str, str] = {}
    for row, (image, mask, ignore) in enumerate(zip(*table.columns, strict=True)):
        instances[image].append(mask)
        if ignore and ignored.setdefault(image, ignore) != ignore:
            raise table.damaged(row, f"{image!r} has a second ignore mask")
    return {image: MaskFiles(tuple(instances[image]), ignored.get(image)) for image in known}
