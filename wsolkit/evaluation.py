"""A classifier and a split in; per-image results and the benchmark's rates out, from one pass over the images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from wsolkit import maps
from wsolkit.batches import normalise
from wsolkit.boxes import boxes_above, cutoffs, pairwise_iou, to_8bit
from wsolkit.datasets import CachedDataset
from wsolkit.metrics import GT_KNOWN_IOU, IOU_THRESHOLDS, BoxMeter, in_top_k, top_k_loc
from wsolkit.models import GapClassifier

TOP_K = (1, 5)
"""The k of Top-k Loc (paper, Sec. 5.1)."""


@dataclass(frozen=True)
class MapKind:
    """How one kind of localization map is computed and normalised (paper, Sec. 5.3)."""

    compute: Callable[[Tensor, Tensor, Tensor], Tensor]
    normalisation: maps.Normalisation


MAP_KINDS = {
    "cam": MapKind(maps.cam, "min_max"),
    "norm": MapKind(lambda features, weight, target: maps.norm_map(features), "min_max"),
    "similarity": MapKind(maps.target_similarity, "max"),
}
"""CAM, F and S by name: each a function of features (B, C, H, W), class weights (K, C) and targets (B,)."""


@dataclass(frozen=True)
class Evaluation:
    """What one pass over a split gives.

    Attributes:
        rates: rates by ``(map kind, metric)`` as a frame with columns ``map, metric, value``; fractions in [0, 1].
        images: one row an image and map kind: ``map, image_id, label, iou`` at the GT-known threshold, ``top1`` and
            ``top5`` (class among the k highest logits).
        curves: box accuracy by ``map, iou_threshold, threshold``.
    """

    rates: pd.DataFrame
    images: pd.DataFrame
    curves: pd.DataFrame

    def rate(self, metric: str, map_kind: str = "cam") -> float:
        """One rate, a fraction in [0, 1]."""
        rows = self.rates[(self.rates["map"] == map_kind) & (self.rates["metric"] == metric)]
        return float(rows["value"].item())


@torch.no_grad()
def evaluate(
    model: GapClassifier,
    data: CachedDataset,
    threshold_step: float,
    device: torch.device | str = "cpu",
    map_kinds: tuple[str, ...] = ("cam",),
    batch_size: int = 100,
) -> Evaluation:
    """Localize the true class's object in every image (the protocol of the WSOL benchmark).

    Args:
        model: the classifier; left in evaluation mode.
        data: the images, at the evaluation size, with boxes.
        threshold_step: step between score-map thresholds.
        device: where the model is.
        map_kinds: names in :data:`MAP_KINDS`.
        batch_size: images a forward pass; it changes no result beyond rounding.

    Returns:
        Rates, per-image results and curves. Top-k Loc uses the GT-known threshold.
    """
    model.eval()
    meters = {kind: BoxMeter(IOU_THRESHOLDS, threshold_step) for kind in map_kinds}
    ious, logits = {kind: [] for kind in map_kinds}, []
    for start in range(0, len(data), batch_size):
        numbers = range(start, min(start + batch_size, len(data)))
        output = model(normalise(data.images[numbers.start : numbers.stop], device))
        logits.append(output.logits.float().cpu())
        labels = torch.from_numpy(data.labels[numbers.start : numbers.stop]).to(device)
        boxes = [data[number].boxes for number in numbers]
        for kind in map_kinds:
            raw = MAP_KINDS[kind].compute(output.features, model.classifier.weight, labels)
            scores = maps.score_map(raw, data.size, MAP_KINDS[kind].normalisation)
            ious[kind].append(meters[kind].update(scores, boxes))
    stacked = {kind: np.concatenate(values) for kind, values in ious.items()}
    parts = [_summary(kind, meters[kind], stacked[kind], torch.cat(logits).numpy(), data) for kind in map_kinds]
    return Evaluation(*(pd.concat(frames, ignore_index=True) for frames in zip(*parts, strict=True)))


def _summary(kind: str, meter: BoxMeter, ious: np.ndarray, logits: np.ndarray, data: CachedDataset) -> tuple:
    result = meter.compute()
    best = int(np.searchsorted(meter.thresholds, result["best_threshold"][GT_KNOWN_IOU]))
    iou = ious[:, best]
    rates = {
        **{f"top{k}_loc": top_k_loc(iou, logits, data.labels, k) for k in TOP_K},
        "gt_known_loc": result["max_box_acc"][GT_KNOWN_IOU],
        **{f"max_box_acc_{d}": accuracy for d, accuracy in result["max_box_acc"].items()},
        "max_box_acc_v2": result["max_box_acc_v2"],
        **{f"best_threshold_{d}": threshold for d, threshold in result["best_threshold"].items()},
        **{f"top{k}_cls": float(in_top_k(logits, data.labels, k).mean()) for k in TOP_K},
    }
    images = {
        "map": kind,
        "image_id": [data[i].image_id for i in range(len(data))],
        "label": data.labels,
        "iou": iou,
        **{f"top{k}": in_top_k(logits, data.labels, k) for k in TOP_K},
    }
    curves = pd.DataFrame(result["curve"], index=meter.thresholds, columns=meter.iou_thresholds)
    curves = curves.rename_axis(index="threshold", columns="iou_threshold").stack().rename("value").reset_index()
    rows = pd.DataFrame({"map": kind, "metric": list(rates), "value": list(rates.values())})
    return rows, pd.DataFrame(images), curves.assign(map=kind)


@torch.no_grad()
def localize(
    model: GapClassifier, data: CachedDataset, numbers: Sequence[int], map_kind: str = "cam", threshold: float = 0.5
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Score maps and predicted boxes of some images, for looking at.

    Args:
        model: the classifier, on the CPU.
        data: images at the evaluation size.
        numbers: which images.
        map_kind: a name in :data:`MAP_KINDS`.
        threshold: score-map threshold.

    Returns:
        For each image the score map (H, W) of its true class, and the box (1, 4) of its largest contour.
    """
    chosen, labels = np.asarray(numbers), torch.from_numpy(data.labels[numbers])
    output = model.eval()(normalise(data.images[chosen]))
    kind = MAP_KINDS[map_kind]
    raw = kind.compute(output.features, model.classifier.weight, labels)
    scores = list(maps.score_map(raw, data.size, kind.normalisation).numpy())
    images = [to_8bit(score) for score in scores]
    found = [boxes_above(i, int(cutoffs(i, np.array([threshold]))[0]), "largest") for i in images]
    return scores, found


def fixed_box_ious(data: CachedDataset, margin: float) -> np.ndarray:
    """IoU of a box that never looks at the image: everything but a margin on each side.

    Args:
        data: images with boxes.
        margin: width of the margin as a share of the side; 0 is the whole image.

    Returns:
        (N,) the best IoU with any true box.
    """
    low, high = round(margin * data.size), min(round((1 - margin) * data.size), data.size - 1)
    box = np.array([[low, low, high, high]])
    return np.array([pairwise_iou(box, data[i].boxes).max() for i in range(len(data))])


def centred_margin(data: CachedDataset) -> float:
    """The margin, among multiples of 1/32, whose fixed box is right most often on ``data`` (give train-fullsup)."""
    margins = [step / 32 for step in range(13)]
    return max(margins, key=lambda margin: (fixed_box_ious(data, margin) >= GT_KNOWN_IOU).mean())
