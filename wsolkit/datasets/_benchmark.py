"""The WSOL benchmark's masks, and images under the paths that its metadata names."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from wsolkit.datasets._base import Sample, WsolDataset, scale_boxes
from wsolkit.datasets._metadata import Metadata
from wsolkit.errors import DataError

NO_BOXES = np.zeros((0, 4), np.int64)


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


def _inside(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Where a mask file, resized to height and width, is not black; colour is weighed to grey, transparency ignored."""
    try:
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
    except (OSError, cv2.error) as error:
        raise DataError(f"Cannot read the mask {path}: {error}. `wsolkit data check` lists what is missing.") from error
    if image is None:
        raise DataError(f"Cannot decode the mask {path}. Fetch the data again.")
    return cv2.resize(image, shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
