"""Score map to boxes, and IoU, with the WSOL benchmark's conventions to the pixel.

A box is ``x0, y0, x1, y1`` in pixels of the evaluation image. Two conventions meet here that do not match: a contour's
box ends one pixel after its last pixel, while IoU counts pixels inclusively (``+ 1``). So a perfect 40x50 rectangle
scores 0.956. That is the benchmark, and every published number contains it.
"""

import cv2
import numpy as np

from wsolkit.metrics.checks import checked_maps


def to_8bit(score_map: np.ndarray) -> np.ndarray:
    """A score map (H, W), or several (N, H, W), in [0, 1] as uint8, truncated as in the benchmark.

    Raises:
        ValueError: for other shapes or types, or a score that is outside [0, 1] or NaN.
    """
    checked_maps(score_map if np.ndim(score_map) == 3 else score_map[None])
    return truncated(score_map)


def truncated(score_maps: np.ndarray) -> np.ndarray:
    """What `to_8bit` gives, of scores that were checked before; without a second array of their own type."""
    return np.multiply(score_maps, 255, out=np.empty(score_maps.shape, np.uint8), casting="unsafe")


def cutoffs(image_8bit: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The 8-bit cut-off of each threshold: that share of the image's maximum, truncated.

    Args:
        image_8bit: (H, W) uint8.
        thresholds: (T,) float in [0, 1).

    Returns:
        (T,) int64. Foreground is strictly above the cut-off.
    """
    return (thresholds * np.max(image_8bit)).astype(np.int64)


def largest_boxes(image_8bit: np.ndarray, cutoffs: np.ndarray) -> np.ndarray:
    """The bounding box of the contour of largest area at each of several cut-offs, as in MaxBoxAcc.

    Args:
        image_8bit: (H, W) uint8.
        cutoffs: (T,) integers, 0 to 255; foreground is strictly above.

    Returns:
        (T, 4) int64, with right and bottom inside the image. Of equal areas the first in OpenCV's order counts; where
        there is no contour the box is ``0, 0, 0, 0``.
    """
    height, width = image_8bit.shape
    boxes = np.array([_largest_rectangle(image_8bit > cutoff) for cutoff in cutoffs.tolist()], np.int64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return np.minimum(boxes, [width, height, width - 1, height - 1])


def _largest_rectangle(foreground: np.ndarray) -> tuple[int, int, int, int]:
    found = cv2.findContours(foreground.view(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[-2]
    if not found:
        return 0, 0, 0, 0
    x, y, width, height = cv2.boundingRect(max(found, key=cv2.contourArea) if len(found) > 1 else found[0])
    return x, y, width, height


def pairwise_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU of every box with every other, pixels counted inclusively.

    Args:
        first: (n, 4) integers.
        second: (m, 4) integers.

    Returns:
        (n, m) float64 in [0, 1].

    Raises:
        ValueError: if the boxes are not integers, or one of them is upside down.
    """
    for boxes in (first, second):
        if boxes.dtype.kind not in "iu" or not (boxes[:, :2] <= boxes[:, 2:]).all():
            raise ValueError(f"Expected integer boxes x0 <= x1, y0 <= y1; received {boxes.tolist()} ({boxes.dtype}).")
    a, b = first[:, None].astype(np.int64), second[None].astype(np.int64)
    overlap = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1, 0, None).prod(-1)
    area_a, area_b = ((box[..., 2:] - box[..., :2] + 1).prod(-1) for box in (a, b))
    return overlap / (area_a + area_b - overlap)
