"""What every data set gives: `Sample`, `WsolDataset`, and how large it is: `Extent`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import pydantic
from torch.utils.data import Dataset

from wsolkit.system.plugins import STRICT

#: Roles of the WSOL benchmark: labels only; boxes for tuning and model selection; the final report.
SPLITS = ("train-weaksup", "train-fullsup", "test")

#: A share of a picture, as an option.
Share = Annotated[float, pydantic.Field(gt=0, le=1)]


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class NoOptions:
    """The options of a data set that has none."""


@dataclass(frozen=True)
class Extent:
    """How large a data set is, known without opening it.

    Attributes:
        images: how many images each split has; empty if that is not known.
        classes: how many classes it has.
        masks: whether images for evaluation have masks instead of boxes.
    """

    images: Mapping[str, int] = field(default_factory=dict)
    classes: int = 20
    masks: bool = False


@dataclass(frozen=True)
class Sample:
    """One image with its annotation, at one size.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        label: class index.
        boxes: (k, 4) int64, ``x0, y0, x1, y1`` in pixels of ``image``; (0, 4) if the data set has none.
        mask: (H, W) uint8, 1 foreground, 0 background, 255 ignored; None if the data set has none.
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
        fingerprint: a short text that changes whenever a pixel or a label might change.
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
        """Image ``index`` with its annotation; IndexError for an index below 0 or beyond the last image."""

    def box_shares(self) -> np.ndarray:
        """(N,) the share of each image that its largest true box covers; all images need a box."""
        return np.array([box_share(self[index].boxes, self.size, self.size) for index in range(len(self))])

    def require_index(self, index: int) -> None:
        """Raise IndexError for an index below 0 or beyond the last image."""
        if not 0 <= index < len(self):
            raise IndexError(f"There is no image {index} in {self.name} {self.split}, which has {len(self)} images.")


def scale_boxes(boxes: np.ndarray, width: int, height: int, size: int | tuple[int, int]) -> np.ndarray:
    """True boxes moved from the original image to the evaluation image, truncated to integers.

    Args:
        boxes: (k, 4) in pixels of the original image.
        width: its width in pixels.
        height: its height in pixels.
        size: side of the evaluation image in pixels, or its height and width.

    Returns:
        (k, 4) int64.
    """
    new_height, new_width = (size, size) if isinstance(size, int) else size
    # Multiplied before it is divided, as in the benchmark: the other order loses a pixel here and there.
    scaled = np.asarray(boxes, float) * [new_width, new_height, new_width, new_height]
    return (scaled / [width, height, width, height]).astype(np.int64)


def box_share(boxes: np.ndarray, width: int, height: int) -> float:
    """The share of an image that its largest true box covers.

    Args:
        boxes: (k, 4) in pixels of the image, k >= 1; the last pixel belongs to a box, as in IoUs.
        width: the image's width in pixels.
        height: its height in pixels.
    """
    return float(np.prod(boxes[:, 2:] - boxes[:, :2] + 1, axis=1).max()) / (width * height)
