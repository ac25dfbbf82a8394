"""Localization metrics of the WSOL benchmark: `BoxMeter`, `PixelMeter`, and the top-k rates built on them.

Meters take batches through ``update``, give a dict through ``compute`` and start again after ``reset``. All rates are
fractions in [0, 1].
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from wsolkit.metrics import components
from wsolkit.metrics.boxes import cutoffs, largest_boxes, pairwise_iou, truncated
from wsolkit.metrics.checks import Array, as_array, checked_boxes, checked_maps

#: The contours whose boxes are judged: all of them, also those of holes (MaxBoxAccV2), or the one of largest area
#: (MaxBoxAcc).
Contours = Literal["all", "largest"]

#: The IoU thresholds delta of MaxBoxAccV2 (paper, Sec. 5.1).
IOU_THRESHOLDS = (0.3, 0.5, 0.7)

#: The IoU threshold of GT-known Loc and Top-k Loc (paper, Sec. 5.1).
GT_KNOWN_IOU = 0.5


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

    ``"all"`` finds the boxes of all cut-offs in one pass (`wsolkit.metrics.components`). ``"largest"`` compares the
    areas of the contours, and traces them once for each distinct foreground. The meter keeps only counts, however many
    images it sees.

    Attributes:
        hits: (T, I) images with a right box, at each score-map threshold and IoU threshold.
        images: number of images seen.
        thresholds: (T,) score-map thresholds.
        iou_thresholds: the I IoU thresholds.
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
            iou_thresholds: a box is right if its IoU with some true box is at least this; in (0, 1].
            threshold_step: step between score-map thresholds, in (0, 1).
            contours: which contours give boxes.
            threads: maps processed at the same time; the result does not depend on it.

        Raises:
            ValueError: for a value out of range.
        """
        iou_thresholds = tuple(iou_thresholds)
        if contours not in ("all", "largest"):
            raise ValueError(f"Unknown contour rule {contours!r}; expected 'all' or 'largest'.")
        if not iou_thresholds or not all(0 < d <= 1 for d in iou_thresholds):
            raise ValueError(f"Expected IoU thresholds in (0, 1], received {iou_thresholds!r}.")
        if threads < 1:
            raise ValueError(f"Expected at least one thread, received {threads!r}.")
        self.iou_thresholds, self.contours, self.threads = iou_thresholds, contours, threads
        self.thresholds = threshold_range(threshold_step)
        self.reset()

    def reset(self) -> None:
        """Forget every image seen."""
        self.hits = np.zeros((len(self.thresholds), len(self.iou_thresholds)), np.int64)
        self.images = 0

    def update(self, score_maps: Array, boxes: Sequence[Array], names: Sequence[str] | None = None) -> np.ndarray:
        """Add images.

        Args:
            score_maps: (N, H, W) in [0, 1].
            boxes: N arrays (k, 4) of integers with k >= 1, the true boxes as ``x0, y0, x1, y1`` in pixels of the score
                map. A box may end at the border: ``0 <= x0 <= x1 <= W`` and ``0 <= y0 <= y1 <= H``.
            names: what an error calls the images; None numbers them from 0.

        Returns:
            (N, T) float64: for each image and threshold the best IoU of any predicted with any true box.

        Raises:
            ValueError: for a wrong shape or type, a score outside [0, 1] or NaN, an image without a true box, or a box
                that is upside down or outside its map. Nothing of the batch is added then.
        """
        maps = checked_maps(score_maps)
        true_boxes = checked_boxes(boxes, maps.shape, names)
        images = truncated(maps)
        levels = np.array([cutoffs(image, self.thresholds) for image in images], np.int64)
        levels = levels.reshape(len(images), len(self.thresholds))
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
            ``max_box_acc`` and ``best_threshold`` (dicts with IoU thresholds as keys; of equally good score-map
            thresholds the lowest), ``max_box_acc_v2`` (the mean of ``max_box_acc``), ``curve`` (T, I) and ``n_images``.

        Raises:
            ValueError: if no image has been added.
        """
        return box_rates(self.hits, self.images, self.thresholds, self.iou_thresholds)


def box_rates(hits: np.ndarray, images: int, thresholds: np.ndarray, iou_thresholds: Sequence[float]) -> dict:
    """What `BoxMeter.compute` returns, from the number of right boxes.

    Args:
        hits: (T, I) images with a right box, at each score-map threshold and IoU threshold.
        images: number of all images.
        thresholds: (T,) score-map thresholds.
        iou_thresholds: the I IoU thresholds.

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
    """Best IoU of the box of the largest contour, at each of several cut-offs."""
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

    def update(self, score_maps: Array, masks: Array) -> None:
        """Add images.

        Args:
            score_maps: (N, H, W) in [0, 1].
            masks: (N, H, W) integers, 1 foreground, 0 background and 255 ignored, or bool.

        Raises:
            ValueError: for a wrong shape or value. Nothing of the batch is added then.
        """
        maps, truth = checked_maps(score_maps), as_array(masks)
        if truth.shape != maps.shape:
            raise ValueError(f"Expected masks of the score maps' shape {maps.shape}, received {truth.shape}.")
        inside, beside = truth == 1, truth == 0
        if not (inside | beside | (truth == 255)).all():
            raise ValueError("Expected masks of 1 (foreground), 0 (background) and 255 (ignored) only.")
        # The bin of each score is estimated by division, then corrected where rounding missed it by one.
        bins = np.minimum((maps / self._edges[1]).astype(np.int64), len(self._edges) - 3)
        bins -= maps < self._edges[bins]
        bins += maps >= self._edges[bins + 1]
        self.foreground += np.bincount(bins[inside], minlength=len(self.foreground))
        self.background += np.bincount(bins[beside], minlength=len(self.background))

    def compute(self) -> dict:
        """The area over all images seen.

        Returns:
            ``pxap``, and the ``precision`` and ``recall`` (bins,) it is computed from, from high to low scores.

        Raises:
            ValueError: if no foreground pixel has been added.
        """
        return pixel_rates(self.foreground, self.background)


def pixel_rates(foreground: np.ndarray, background: np.ndarray) -> dict:
    """What `PixelMeter.compute` returns, from the number of pixels in each score bin (bins,), from low to high scores.

    Raises:
        ValueError: if there is no foreground pixel.
    """
    if not foreground.sum():
        raise ValueError(
            "No mask has a foreground pixel, so PxAP is not defined. In a mask 1 is foreground, 0 background, and 255 "
            "means ignored: masks of 0 and 255 must be divided by 255 first."
        )
    true_positive, false_positive = foreground[::-1].cumsum(), background[::-1].cumsum()
    predicted = true_positive + false_positive
    precision = true_positive / np.maximum(predicted, 1)
    recall = true_positive / foreground.sum()
    return {"pxap": float((precision[1:] * np.diff(recall)).sum()), "precision": precision, "recall": recall}


def in_top_k(logits: Array, labels: ArrayLike | Tensor, k: int) -> np.ndarray:
    """Whether each image's class is among the k highest logits.

    Args:
        logits: (N, K).
        labels: (N,) class indices from 0 to K - 1.
        k: how many, at least 1; with k >= K every image counts.

    Returns:
        (N,) bool. Of equal logits the class of lower index is ahead, as in ``argmax``.

    Raises:
        ValueError: for other shapes, a label that is no class index, k < 1, or a NaN among the logits.
    """
    scores, truth = as_array(logits), as_array(labels)
    if scores.ndim != 2 or truth.shape != scores.shape[:1] or truth.dtype.kind not in "iu":
        received = f"{scores.shape} and {truth.shape} of {truth.dtype}"
        raise ValueError(f"Expected logits (N, K) and one integer label for each image (N,), received {received}.")
    if not isinstance(k, Integral) or k < 1:
        raise ValueError(f"k = {k!r}: expected a whole number, at least 1.")
    if not ((truth >= 0) & (truth < scores.shape[1])).all():
        wrong = truth[(truth < 0) | (truth >= scores.shape[1])]
        raise ValueError(f"Expected labels from 0 to {scores.shape[1] - 1}, received {wrong[0]}.")
    if np.isnan(scores).any():
        raise ValueError("NaN among the logits.")
    truth = truth[:, None]
    own = np.take_along_axis(scores, truth.astype(np.int64), 1)
    ahead = (scores > own) | ((scores == own) & (np.arange(scores.shape[1]) < truth))
    return ahead.sum(1) < k


def top_k_loc(ious: ArrayLike | Tensor, logits: Array, labels: ArrayLike | Tensor, k: int) -> float:
    """Top-k Loc: the box has IoU >= 0.5 and the class is among the k highest logits (paper, Sec. 5.1).

    Args:
        ious: (N,) IoU of each image at the GT-known threshold.
        logits: (N, K).
        labels: (N,) class indices from 0 to K - 1.
        k: at least 1; 1 or 5 in the paper.

    Returns:
        The share of images, in [0, 1].

    Raises:
        ValueError: for what `in_top_k` refuses, other shapes, IoUs outside [0, 1] or NaN, or no image at all.
    """
    found, classified = as_array(ious), in_top_k(logits, labels, k)
    if found.shape != classified.shape or not found.size:
        raise ValueError(f"Expected one IoU for each of {len(classified)} images, received shape {found.shape}.")
    if not ((found >= 0) & (found <= 1)).all():
        raise ValueError("Expected IoUs in [0, 1], received others or NaN.")
    return float(((found >= GT_KNOWN_IOU) & classified).mean())
