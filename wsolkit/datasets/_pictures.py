"""Pictures and masks from files, and the data set that scales them to the asked size."""

import io
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from wsolkit.datasets._base import Sample, WsolDataset, box_share, scale_boxes
from wsolkit.datasets._metadata import Metadata
from wsolkit.errors import DataError, reason, turned_into


def decode(content: bytes, name: object) -> Image.Image:
    """A picture as the benchmark reads it: in RGB, not turned by EXIF; ``name`` is what an error calls it.

    Raises:
        DataError: if it cannot be decoded, whatever byte of it is damaged.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            return opened.convert("RGB")
    except Exception as error:  # a decoder may raise anything for a damaged byte
        raise DataError(f"Cannot decode {name}: {_reason(error)}. Copy the file again.") from error


def read_mask(
    mask_root: Path, mask_paths: Iterable[str], ignore_path: str | None, size: int | tuple[int, int]
) -> np.ndarray:
    """The mask of one image at the evaluation size, as the benchmark makes it.

    Each file is resized with nearest neighbour. A pixel is inside if any of its channels but transparency is stored as
    anything but 0, in whatever depth: 16-bit instance numbers, indices of a palette, 0.5 in a float file. Foreground is
    the union of the instances; ignored is what the ignore mask covers and the foreground does not.

    Args:
        mask_root: folder that the paths are relative to.
        mask_paths: the instances' files, at least one.
        ignore_path: file of the ignore mask; None if nothing is ignored.
        size: side of the evaluation image in pixels, or its height and width.

    Returns:
        (H, W) uint8: 1 foreground, 0 background, 255 ignored. All 0 if no file has anything inside.

    Raises:
        DataError: naming a file that is missing, empty or cannot be decoded.
    """
    shape = (size, size) if isinstance(size, int) else size
    foreground = np.any([_inside(mask_root / path, shape) for path in mask_paths], axis=0)
    mask = foreground.astype(np.uint8)
    if ignore_path is not None:
        mask[_inside(mask_root / ignore_path, shape) & ~foreground] = 255
    return mask


class PictureDataset(WsolDataset):
    """One split whose pictures are in files; pictures, boxes and masks are scaled to the asked size."""

    def __init__(
        self,
        name: str,
        split: str,
        size: int,
        metadata: Metadata,
        classes: Sequence[str],
        picture: Callable[[str], Image.Image],
        mask_root: Path = Path(),
        fingerprint: str | None = None,
    ):
        """Describe a split; pictures and masks are read when asked for.

        Args:
            name: the data set's name.
            split: one of the three splits.
            size: side of the square images in pixels.
            metadata: the split. Boxes without sizes are scaled by the size of the picture itself and end inside it.
            classes: class names.
            picture: the picture of an image id, in RGB.
            mask_root: folder of the masks, if the metadata has masks.
            fingerprint: of the split; the metadata's by default.

        Raises:
            DataError: if a label is not the index of a class.
        """
        self.name, self.split, self.size, self.classes = name, split, size, tuple(classes)
        self.labels, self.fingerprint = metadata.labels, fingerprint or metadata.fingerprint()
        if self.labels.max() >= len(self.classes):
            raise DataError(f"{name} {split} has label {self.labels.max()}, but there are {len(self.classes)} classes.")
        self._metadata, self._picture, self._mask_root = metadata, picture, mask_root

    def box_shares(self) -> np.ndarray:
        """As always, but from sizes and boxes of the original pictures, without decoding one, where both are known."""
        boxes, sizes = self._metadata.boxes, self._metadata.sizes
        if boxes is None or sizes is None:
            return super().box_shares()
        return np.array([box_share(boxes[image], *sizes[image]) for image in self._metadata.image_ids])

    def __getitem__(self, index: int) -> Sample:
        self.require_index(index)
        image_id, known = self._metadata.image_ids[index], self._metadata
        picture = self._picture(image_id)
        boxes, mask = np.zeros((0, 4), np.int64), None
        if known.boxes is not None:
            width, height = picture.size if known.sizes is None else known.sizes[image_id]
            last = [np.inf] * 4 if known.sizes else [width - 1, height - 1] * 2
            boxes = scale_boxes(np.minimum(known.boxes[image_id], last), width, height, self.size)
        if known.masks is not None:
            mask = read_mask(self._mask_root, *known.masks[image_id], self.size)
        resized = np.asarray(picture.resize((self.size, self.size), Image.Resampling.BILINEAR))
        return Sample(resized, int(self.labels[index]), boxes, mask, image_id)


def _inside(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Where a mask file, resized to height and width, is not 0."""
    advice = "`wsolkit data check` lists missing masks."
    with turned_into(DataError, f"Cannot read the mask {path}", advice, OSError):
        content = path.read_bytes()
    if not content:
        raise DataError(f"The mask {path} is an empty file. Copy it again.")
    try:
        # A NaN is not inside.
        stored = np.nan_to_num(_stored_values(content)) != 0
        inside = stored.any(2) if stored.ndim == 3 else stored
        return cv2.resize(inside.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    except Exception as error:  # a decoder may raise anything for a damaged byte
        raise DataError(f"Cannot decode the mask {path}: {_reason(error)}. Copy it again.") from error


def _stored_values(content: bytes) -> np.ndarray:
    """The values of a picture file, (H, W) or (H, W, channels), without transparency; palette indices stay as such."""
    values: np.ndarray | None = None
    bands: tuple[str, ...] = ()
    with suppress(UnidentifiedImageError), Image.open(io.BytesIO(content)) as opened:
        values, bands = np.asarray(opened), opened.getbands()
    if values is not None and (len(bands) == 1 or "P" in bands):
        return values if len(bands) == 1 else values[..., 0]
    # Pillow keeps only the upper 8 of 16 bits in colour, and lacks some kinds of TIFF. OpenCV puts transparency last.
    deep = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if deep is not None and (values is None or deep.dtype != np.uint8):
        return deep[..., :3] if deep.ndim == 3 else deep
    if values is None:
        raise UnidentifiedImageError
    return values[..., [band not in "Aa" for band in bands]]


def _reason(error: Exception) -> str:
    return "it is not in a known picture format" if isinstance(error, UnidentifiedImageError) else reason(error)
