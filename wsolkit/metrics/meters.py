"""Localization metrics of the WSOL benchmark: `BoxMeter`, `PixelMeter`, and the top-k rates built on them.

Meters take batches through ``update``, give a dict through ``compute`` and start again after ``reset``. All rates are
fractions in [0, 1].
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from torch import Tensor

from wsolkit.metrics import components
from wsolkit.metrics.boxes import cutoffs, largest_boxes, pairwise_iou, to_8bit

Contours = Literal["all", "largest"]
"""Whose boxes are judged: of all contours, holes' too (MaxBoxAccV2), or of that of largest area (MaxBoxAcc)."""

IOU_THRESHOLDS = (0.3, 0.5, 0.7)
"""The IoU thresholds delta of MaxBoxAccV2 (paper, Sec. 5.1)."""

GT_KNOWN_IOU = 0.5
"""The IoU threshold of GT-known Loc and Top-k Loc (paper, Sec. 5.1)."""


def threshold_range(step: float) -> np.ndarray:
    """Score-map thresholds 0, step, 2 step, ... below 1.

    Raises:
        ValueError: if ``step`` is not in (0, 1).
    """
    if not 0 < step < 1:
        raise ValueError(f"Expected a threshold step between 0 and 1, received {step!r}.")
    return np.arange(0, 1, step)


class BoxMeter:
    """Box accuracy at every score-map threshold: MaxBoxAcc and MaxBoxAccV2 of the benchmark.

    With ``contours="largest"`` and an IoU threshold of 0.5, ``max_box_acc[0.5]`` is MaxBoxAcc. With ``"all"`` and
    IoU thresholds 0.3, 0.5 and 0.7, ``max_box_acc_v2`` is MaxBoxAccV2, and ``max_box_acc[0.5]`` is GT-known Loc.

    ``"all"`` finds the boxes of all cut-offs in one pass (`wsolkit.metrics.components`); ``"largest"`` goes by the
    contours' areas and traces them once a distinct cut-off. The meter keeps counts only, whatever the number of images.

    Attributes:
        hits: (T, I) right boxes at each threshold and IoU threshold, of the images seen.
        images: how many those are.
        thresholds: (T,) of score maps.
        iou_thresholds: I of them.
    """

    def __init__(
        self,
        iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
        threshold_step: float = 0.01,
        contours: Contours = "all",
        threads: int = 1,
    ):
        """Set the protocol.

        Args:
            iou_thresholds: a box is right where its IoU with some true box is at least this.
            threshold_step: step between score-map thresholds.
            contours: which contours give boxes.
            threads: maps worked on at once; the result does not depend on it.

        Raises:
            ValueError: for a value outside these.
        """
        if contours not in ("all", "largest"):
            raise ValueError(f"Unknown contour rule {contours!r}; expected 'all' or 'largest'.")
        if not iou_thresholds or not all(0 < d <= 1 for d in iou_thresholds):
            raise ValueError(f"Expected IoU thresholds in (0, 1], received {iou_thresholds!r}.")
        if threads < 1:
            raise ValueError(f"Expected at least one thread, received {threads!r}.")
        self.iou_thresholds, self.contours, self.threads = tuple(iou_thresholds), contours, threads
        self.thresholds = threshold_range(threshold_step)
        self.reset()

    def reset(self) -> None:
        """Forget every image seen."""
        self.hits = np.zeros((len(self.thresholds), len(self.iou_thresholds)), np.int64)
        self.images = 0

    def update(self, score_maps: np.ndarray | Tensor, boxes: Sequence[np.ndarray]) -> np.ndarray:
        """Add images.

        Args:
            score_maps: (N, H, W) in [0, 1].
            boxes: N arrays (k, 4) of integers, the true boxes in pixels of the score map; k >= 1.

        Returns:
            (N, T) float64: for each image and threshold the best IoU of any predicted with any true box.

        Raises:
            ValueError: for a wrong shape, a score outside [0, 1] or NaN, or an image without a true box. Nothing of
                the batch has been added then.
        """
        maps = _checked_maps(score_maps)
        true_boxes = [_checked_boxes(each, index) for index, each in enumerate(boxes)]
        if len(true_boxes) != len(maps):
            raise ValueError(f"Received {len(maps)} score maps and boxes of {len(true_boxes)} images.")
        images = to_8bit(maps)
        levels = np.array([cutoffs(image, self.thresholds) for image in images]).reshape(len(images), -1)
        if self.contours == "all":
            ious = np.take_along_axis(components.best_ious(images, true_boxes, self.threads), levels, 1)
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                found = list(pool.map(_largest_contour_ious, images, true_boxes, levels))
            ious = np.array(found).reshape(levels.shape)
        self.hits += (ious[..., None] >= np.array(self.iou_thresholds)).sum(0)
        self.images += len(maps)
        return ious

    def compute(self) -> dict:
        """The rates over all images seen.

        Returns:
            ``max_box_acc`` and ``best_threshold`` (dicts keyed by IoU threshold; the lowest of equally good
            thresholds), ``max_box_acc_v2`` (their mean), ``curve`` (thresholds x IoU thresholds) and ``n_images``.

        Raises:
            ValueError: if no image has been added.
        """
        return box_rates(self.hits, self.images, self.thresholds, self.iou_thresholds)


def box_rates(hits: np.ndarray, images: int, thresholds: np.ndarray, iou_thresholds: Sequence[float]) -> dict:
    """What `BoxMeter.compute` gives, from the number of right boxes.

    Args:
        hits: (T, I), images whose box is right at each threshold and IoU threshold.
        images: all images.
        thresholds: (T,) of score maps.
        iou_thresholds: I of them.

    Raises:
        ValueError: if there is no image.
    """
    if not images:
        raise ValueError("No image has been added to the meter; call update first.")
    curve = hits / images
    best = curve.argmax(0)
    accuracy = {d: float(curve[best[i], i]) for i, d in enumerate(iou_thresholds)}
    return {
        "max_box_acc": accuracy,
        "best_threshold": {d: float(thresholds[best[i]]) for i, d in enumerate(iou_thresholds)},
        "max_box_acc_v2": float(np.mean(list(accuracy.values()))),
        "curve": curve,
        "n_images": images,
    }


def _largest_contour_ious(image: np.ndarray, boxes: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Best IoU of the box of the largest contour at each of some cut-offs."""
    # Cut-offs with no pixel value between them share their foreground, so each foreground is traced once.
    values = np.unique(image)
    _, first, which = np.unique(np.searchsorted(values, levels, side="right"), return_index=True, return_inverse=True)
    return pairwise_iou(largest_boxes(image, levels[first]), boxes).max(1)[which]


class PixelMeter:
    """Area under the pixel precision-recall curve: PxAP of the benchmark.

    Attributes:
        foreground: (bins,) pixels of the objects in each bin of scores, from low to high.
        background: (bins,) pixels beside the objects.
    """

    def __init__(self, threshold_step: float = 0.01):
        """Set the width of the score bins.

        Raises:
            ValueError: if ``threshold_step`` is not in (0, 1).
        """
        self._edges = np.append(threshold_range(threshold_step), [1.0, 2.0, 3.0])
        self.reset()

    def reset(self) -> None:
        """Forget every image seen."""
        self.foreground = np.zeros(len(self._edges) - 1, np.int64)
        self.background = np.zeros(len(self._edges) - 1, np.int64)

    def update(self, score_maps: np.ndarray | Tensor, masks: np.ndarray | Tensor) -> None:
        """Add images.

        Args:
            score_maps: (N, H, W) in [0, 1].
            masks: (N, H, W) integers: 1 foreground, 0 background, 255 ignored.

        Raises:
            ValueError: for a wrong shape or value. Nothing of the batch has been added then.
        """
        maps, truth = _checked_maps(score_maps), np.asarray(masks)
        if truth.shape != maps.shape:
            raise ValueError(f"Received score maps of shape {maps.shape} and masks of shape {truth.shape}.")
        if not np.isin(truth, (0, 1, 255)).all():
            raise ValueError("Expected masks of 1 (foreground), 0 (background) and 255 (ignored) only.")
        bins = self._bins(maps)
        self.foreground += np.bincount(bins[truth == 1], minlength=len(self.foreground))
        self.background += np.bincount(bins[truth == 0], minlength=len(self.background))

    def compute(self) -> dict:
        """The area over all images seen.

        Returns:
            ``pxap``, and the ``precision`` and ``recall`` (bins,) it is made of, from high to low scores.

        Raises:
            ValueError: if no foreground pixel has been added.
        """
        return pixel_rates(self.foreground, self.background)

    def _bins(self, maps: np.ndarray) -> np.ndarray:
        """The bin of each score: guessed by division, then put right where rounding missed by one."""
        bins = np.minimum((maps / self._edges[1]).astype(np.int64), len(self._edges) - 3)
        bins -= maps < self._edges[bins]
        bins += maps >= self._edges[bins + 1]
        return bins


def pixel_rates(foreground: np.ndarray, background: np.ndarray) -> dict:
    """What `PixelMeter.compute` gives, from the number of pixels in each score bin (bins,), from low to high scores.

    Raises:
        ValueError: if there is no foreground pixel.
    """
    if not foreground.sum():
        raise ValueError("No foreground pixel has been added to the meter; PxAP is not defined.")
    true_positive, false_positive = foreground[::-1].cumsum(), background[::-1].cumsum()
    predicted = true_positive + false_positive
    precision = true_positive / np.maximum(predicted, 1)
    recall = true_positive / foreground.sum()
    return {"pxap": float((precision[1:] * np.diff(recall)).sum()), "precision": precision, "recall": recall}


def in_top_k(logits: np.ndarray | Tensor, labels: np.ndarray | Tensor, k: int) -> np.ndarray:
    """Whether each image's class is among the k highest logits.

    Args:
        logits: (N, K).
        labels: (N,) class indices.
        k: how many; with k >= K every image counts.

    Returns:
        (N,) bool. Of equal logits the class of lower index is ahead, as in ``argmax``.

    Raises:
        ValueError: for a NaN among the logits.
    """
    scores, truth = np.asarray(logits), np.asarray(labels)[:, None]
    if np.isnan(scores).any():
        raise ValueError("NaN among the logits.")
    own = np.take_along_axis(scores, truth, 1)
    ahead = (scores > own) | ((scores == own) & (np.arange(scores.shape[1]) < truth))
    return ahead.sum(1) < k


def top_k_loc(ious: np.ndarray, logits: np.ndarray | Tensor, labels: np.ndarray | Tensor, k: int) -> float:
    """Top-k Loc: the box has IoU >= 0.5 and the class is among the k highest logits (paper, Sec. 5.1).

    Args:
        ious: (N,) IoU of each image at the GT-known threshold.
        logits: (N, K).
        labels: (N,) class indices.
        k: 1 or 5 in the paper.

    Returns:
        The share of images, in [0, 1].
    """
    return float(((np.asarray(ious) >= GT_KNOWN_IOU) & in_top_k(logits, labels, k)).mean())


def _checked_maps(score_maps: np.ndarray | Tensor) -> np.ndarray:
    maps = np.asarray(score_maps)
    if maps.ndim != 3 or maps.dtype.kind != "f" or 0 in maps.shape[1:]:
        raise ValueError(f"Expected float score maps of shape (N, H, W), received {maps.dtype} {maps.shape}.")
    # A NaN becomes both minimum and maximum of its map, and fails every comparison.
    good = (maps.min((1, 2)) >= 0) & (maps.max((1, 2)) <= 1)
    if not good.all():
        bad = np.flatnonzero(~good)
        raise ValueError(f"Scores of {len(bad)} of {len(maps)} maps are NaN or outside [0, 1] (first: map {bad[0]}).")
    return maps


def _checked_boxes(boxes: np.ndarray, index: int) -> np.ndarray:
    array = np.asarray(boxes)
    if array.ndim != 2 or array.shape[1] != 4 or len(array) == 0 or array.dtype.kind not in "iu":
        raise ValueError(
            f"Expected the true boxes of image {index} as a (k, 4) integer array with k >= 1, "
            f"received {array.dtype} {array.shape}."
        )
    return array
