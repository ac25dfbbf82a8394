"""Score map to boxes, and IoU, with the WSOL benchmark's conventions to the pixel.

A box is ``x0, y0, x1, y1`` in pixels of the evaluation image. Two conventions meet here that do not match: a contour's
box ends one pixel after its last pixel, while IoU counts pixels inclusively (``+ 1``). So a perfect 40x50 rectangle
scores 0.956. That is the benchmark, and every published number contains it.
"""

from typing import Literal

import cv2
import numpy as np

Contours = Literal["all", "largest"]

NO_CONTOUR = np.zeros((1, 4), np.int64)
"""The box of a score map without any contour."""


def to_8bit(score_map: np.ndarray) -> np.ndarray:
    """A score map (H, W) in [0, 1] as uint8, truncated as the benchmark does."""
    return (score_map * 255).astype(np.uint8)


def cutoffs(image_8bit: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The 8-bit cut-off of each threshold: that share of the image's maximum, truncated.

    Args:
        image_8bit: (H, W) uint8.
        thresholds: (T,) float in [0, 1).

    Returns:
        (T,) int64. Foreground is strictly above the cut-off.
    """
    return (thresholds * np.max(image_8bit)).astype(np.int64)


def boxes_above(image_8bit: np.ndarray, cutoff: int, contours: Contours = "all") -> np.ndarray:
    """Bounding boxes of the contours of everything strictly above a cut-off.

    Args:
        image_8bit: (H, W) uint8.
        cutoff: 0 to 255.
        contours: ``"all"`` (outer borders and borders of holes alike, as MaxBoxAccV2 has it) or ``"largest"`` (only
            that of largest contour area, the first of equals, as MaxBoxAcc has it).

    Returns:
        (n, 4) int64, right and bottom inside the image; ``0, 0, 0, 0`` where there is no contour.
    """
    foreground = (image_8bit > cutoff).astype(np.uint8)
    found = cv2.findContours(foreground, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[-2]
    if not found:
        return NO_CONTOUR
    if contours == "largest":
        found = [max(found, key=cv2.contourArea)]
    boxes = np.array([cv2.boundingRect(contour) for contour in found], np.int64)
    boxes[:, 2:] += boxes[:, :2]
    height, width = image_8bit.shape
    return np.minimum(boxes, [width, height, width - 1, height - 1])


def pairwise_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU of every box with every other, pixels counted inclusively.

    Args:
        first: (n, 4) integers.
        second: (m, 4) integers.

    Returns:
        (n, m) float64 in [0, 1].
    """
    a, b = first[:, None].astype(np.int64), second[None].astype(np.int64)
    overlap = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1, 0, None).prod(-1)
    area_a, area_b = ((box[..., 2:] - box[..., :2] + 1).prod(-1) for box in (a, b))
    return overlap / (area_a + area_b - overlap)


def scale_boxes(boxes: np.ndarray, width: int, height: int, size: int) -> np.ndarray:
    """True boxes moved from the original image to the evaluation image, truncated to integers.

    Args:
        boxes: (k, 4) in pixels of the original image.
        width: its width in pixels.
        height: its height in pixels.
        size: side of the evaluation image in pixels.

    Returns:
        (k, 4) int64.
    """
    return (np.asarray(boxes, float) * (size / np.array([width, height, width, height]))).astype(np.int64)
