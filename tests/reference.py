"""The WSOL benchmark's evaluation in its plainest form, slow: the oracle of the meters, and of their speed."""

from collections.abc import Sequence

import cv2
import numpy as np


def best_iou(image_8bit: np.ndarray, cutoff: int, true_boxes: np.ndarray, contours: str) -> float:
    """Best IoU of the boxes of everything strictly above one cut-off, traced by OpenCV."""
    height, width = image_8bit.shape
    foreground = (image_8bit > cutoff).astype(np.uint8)
    traced = cv2.findContours(foreground, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[-2]
    if contours == "largest" and traced:
        traced = [max(traced, key=cv2.contourArea)]
    found = [cv2.boundingRect(contour) for contour in traced]
    predicted = [(x, y, min(x + w, width - 1), min(y + h, height - 1)) for x, y, w, h in found] or [(0, 0, 0, 0)]
    return max(iou(box, truth) for box in predicted for truth in true_boxes.tolist())


def iou(a: Sequence[int], b: Sequence[int]) -> float:
    """IoU of two boxes, pixels counted inclusively."""
    across = min(a[2], b[2]) - max(a[0], b[0]) + 1
    down = min(a[3], b[3]) - max(a[1], b[1]) + 1
    overlap = max(0, across) * max(0, down)
    areas = [(x1 - x0 + 1) * (y1 - y0 + 1) for x0, y0, x1, y1 in (a, b)]
    return overlap / (sum(areas) - overlap)


def cutoffs(score_map: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """The map in 8 bits, and the cut-off of each threshold."""
    image = (score_map * 255).astype(np.uint8)
    return image, [int(threshold * np.max(image)) for threshold in thresholds]


def best_ious(score_map: np.ndarray, true_boxes: np.ndarray, thresholds: np.ndarray, contours: str) -> list[float]:
    """Best IoU at each threshold; every threshold is traced anew, as the benchmark does."""
    image, levels = cutoffs(score_map, thresholds)
    return [best_iou(image, level, true_boxes, contours) for level in levels]


def pxap(score_maps: Sequence[np.ndarray], masks: Sequence[np.ndarray], step: float) -> float:
    """Area under the pixel precision-recall curve, by NumPy's histogram over the benchmark's bins."""
    edges = np.append(np.arange(0, 1, step), [1.0, 2.0, 3.0])
    positive, negative = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    for score, mask in zip(score_maps, masks, strict=True):
        positive += np.histogram(score[mask == 1], edges)[0]
        negative += np.histogram(score[mask == 0], edges)[0]
    true_positive, false_positive = positive[::-1].cumsum(), negative[::-1].cumsum()
    with np.errstate(invalid="ignore"):
        precision = np.nan_to_num(true_positive / (true_positive + false_positive))
    return float((precision[1:] * np.diff(true_positive / positive.sum())).sum())
