"""From a classifier and a split to per-image results and the benchmark's rates, in one pass over the images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from wsolkit import maps
from wsolkit.datasets import OpenedDataset, Sample
from wsolkit.metrics import GT_KNOWN_IOU, IOU_THRESHOLDS, BoxMeter, PixelMeter, in_top_k
from wsolkit.metrics.boxes import cutoffs, largest_boxes, pairwise_iou, to_8bit
from wsolkit.models import GapClassifier
from wsolkit.training.loading import normalise

#: The k of Top-k Loc (paper, Sec. 5.1).
TOP_K = (1, 5)


class MapKind(NamedTuple):
    """How one kind of localization map is computed and normalised (paper, Sec. 5.3)."""

    compute: Callable[[Tensor, Tensor, Tensor], Tensor]
    normalisation: maps.Normalisation


#: CAM, F and S by name: each a function of features (B, C, H, W), class weights (K, C) and targets (B,).
MAP_KINDS = {
    "cam": MapKind(maps.cam, "min_max"),
    "norm": MapKind(lambda features, weight, target: maps.norm_map(features), "min_max"),
    "similarity": MapKind(maps.target_similarity, "max"),
}


#: CAMs by other people's normalisations, which only some rows of the paper's tables ask for.
NORMALISED_KINDS = {"pas": MapKind(maps.cam, "pas"), "ivr": MapKind(maps.cam, "ivr")}

EVERY_KIND = MAP_KINDS | NORMALISED_KINDS


@dataclass(frozen=True)
class Evaluation:
    """The results of one pass over a split.

    Attributes:
        rates: columns ``map, metric, value``; fractions in [0, 1]. For every map kind classification (``top1_cls``,
            ``top5_cls``); with boxes ``gt_known_loc``, ``top1_loc``, ``top5_loc``, ``max_box_acc_<delta>`` and
            ``best_threshold_<delta>`` for each IoU threshold, and their mean ``max_box_acc_v2``; with masks ``pxap``.
        images: one row an image and map kind: ``map, image_id, label, top1, top5`` (class among the k highest logits)
            and, with boxes, for each IoU threshold ``iou_<delta>``, the IoU at the score-map threshold best for it.
        curves: box accuracy by ``map, iou_threshold, threshold``; empty without boxes.
    """

    rates: pd.DataFrame
    images: pd.DataFrame
    curves: pd.DataFrame

    def rate(self, metric: str, map_kind: str = "cam") -> float:
        """One rate, a fraction in [0, 1].

        Raises:
            KeyError: if this evaluation does not have it.
        """
        rows = self.rates[(self.rates["map"] == map_kind) & (self.rates["metric"] == metric)]
        if len(rows) != 1:
            raise KeyError(f"No rate {metric!r} of map {map_kind!r}; there are {', '.join(self.rates['metric'])}.")
        return float(rows["value"].item())


@torch.no_grad()
def evaluate(
    model: GapClassifier,
    data: OpenedDataset,
    threshold_step: float,
    map_kinds: Sequence[str] = ("cam",),
    batch_size: int = 100,
    threads: int = 1,
) -> Evaluation:
    """Localize the true class's object in every image (the protocol of the WSOL benchmark), in one pass.

    Args:
        model: the classifier, on any device; left in evaluation mode.
        data: the images, at the evaluation size, with boxes, masks or both.
        threshold_step: step between score-map thresholds.
        map_kinds: names in :data:`EVERY_KIND`; all are made from the same features.
        batch_size: images a forward pass; it changes no result beyond rounding.
        threads: maps searched for boxes at once; it changes no result.

    Returns:
        Rates, per-image results and curves. Top-k Loc uses the GT-known threshold.
    """
    meters = {kind: _Meters(data[0], threshold_step, threads) for kind in map_kinds}
    logits = []
    for numbers, output, raw in _passes(model, data, range(len(data)), map_kinds, batch_size):
        logits.append(output.float().cpu())
        samples = [data[number] for number in numbers]
        for kind, meter in meters.items():
            meter.update(maps.score_map(raw[kind], data.size, EVERY_KIND[kind].normalisation).numpy(), samples)
    scores, ids = torch.cat(logits).numpy(), [data[number].image_id for number in range(len(data))]
    hits = {f"top{k}": in_top_k(scores, data.labels, k) for k in TOP_K}
    images = pd.DataFrame({"image_id": ids, "label": data.labels, **hits})
    parts = [meter.results(kind, images.copy()) for kind, meter in meters.items()]
    return Evaluation(*(pd.concat(frames, ignore_index=True) for frames in zip(*parts, strict=True)))


class _Meters:
    """The meters of one map kind that the annotation allows."""

    def __init__(self, first: Sample, threshold_step: float, threads: int):
        has_boxes, has_masks = len(first.boxes) > 0, first.mask is not None
        self._boxes = BoxMeter(IOU_THRESHOLDS, threshold_step, threads=threads) if has_boxes else None
        self._pixels = PixelMeter(threshold_step) if has_masks else None
        self._ious: list[np.ndarray] = []

    def update(self, scores: np.ndarray, samples: Sequence[Sample]) -> None:
        if self._boxes:
            # Single precision tells any two IoUs of boxes in an image apart, and takes half the memory.
            self._ious.append(self._boxes.update(scores, [sample.boxes for sample in samples]).astype(np.float32))
        if self._pixels:
            self._pixels.update(scores, np.stack([sample.mask for sample in samples if sample.mask is not None]))

    def results(self, kind: str, images: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Rates, per-image results and curves; ``images`` has the columns that do not depend on the map."""
        images.insert(0, "map", kind)
        right = {k: images[f"top{k}"].to_numpy() for k in TOP_K}
        rates = {f"top{k}_cls": float(hits.mean()) for k, hits in right.items()}
        curves = pd.DataFrame(columns=["threshold", "iou_threshold", "value", "map"])
        if self._boxes:
            found, ious, thresholds = self._boxes.compute(), np.concatenate(self._ious), self._boxes.thresholds
            for delta, threshold in found["best_threshold"].items():
                images[f"iou_{delta}"] = ious[:, int(np.searchsorted(thresholds, threshold))]
            localized = images[f"iou_{GT_KNOWN_IOU}"].to_numpy() >= GT_KNOWN_IOU
            rates |= {f"top{k}_loc": float((localized & hits).mean()) for k, hits in right.items()}
            rates |= {"gt_known_loc": found["max_box_acc"][GT_KNOWN_IOU], "max_box_acc_v2": found["max_box_acc_v2"]}
            for name in ("max_box_acc", "best_threshold"):
                rates |= {f"{name}_{delta}": value for delta, value in found[name].items()}
            wide = pd.DataFrame(found["curve"], index=thresholds, columns=self._boxes.iou_thresholds)
            long = wide.rename_axis(index="threshold", columns="iou_threshold").stack().rename("value").reset_index()
            curves = long.assign(map=kind)
        if self._pixels:
            rates["pxap"] = self._pixels.compute()["pxap"]
        return pd.DataFrame({"map": kind, "metric": list(rates), "value": list(rates.values())}), images, curves


def _passes(
    model: GapClassifier, data: OpenedDataset, numbers: Sequence[int], map_kinds: Sequence[str], batch_size: int
) -> Iterator[tuple[list[int], Tensor, dict[str, Tensor]]]:
    """Batches of image numbers, with the network's logits and raw maps of their true classes."""
    weight = model.eval().classifier.weight
    for start in range(0, len(numbers), batch_size):
        chosen = np.asarray(numbers[start : start + batch_size])
        labels = torch.from_numpy(data.labels[chosen]).to(weight.device)
        output = model(normalise(data.images[chosen], weight.device))
        raw = {kind: EVERY_KIND[kind].compute(output.features, weight, labels) for kind in map_kinds}
        logits = output.logits
        if model.predict is not None:
            logits, own = model.predict(output, labels)
            raw = {kind: own if EVERY_KIND[kind].compute is maps.cam else found for kind, found in raw.items()}
        yield chosen.tolist(), logits, raw


@torch.no_grad()
def raw_maps_of(
    model: GapClassifier, data: OpenedDataset, numbers: Sequence[int], map_kinds: Sequence[str], batch_size: int = 100
) -> dict[str, Tensor]:
    """Maps of some images as the network computes them, neither resized nor normalised.

    Args:
        model: the classifier, on any device; left in evaluation mode.
        data: images at the evaluation size.
        numbers: which images.
        map_kinds: names in :data:`MAP_KINDS`; all are made from the same features.
        batch_size: images a forward pass.

    Returns:
        By kind, (N, H, W) on the CPU, of each image's true class.
    """
    found = [raw for _, _, raw in _passes(model, data, numbers, map_kinds, batch_size)]
    return {kind: torch.cat([raw[kind] for raw in found]).cpu() for kind in map_kinds}


def raw_maps(model: GapClassifier, data: OpenedDataset, numbers: Sequence[int], map_kind: str = "cam") -> Tensor:
    """One kind of `raw_maps_of`."""
    return raw_maps_of(model, data, numbers, [map_kind])[map_kind]


def localize(
    model: GapClassifier, data: OpenedDataset, numbers: Sequence[int], map_kind: str = "cam", threshold: float = 0.5
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Score maps and predicted boxes of some images, to look at.

    Args:
        model: the classifier, on any device.
        data: images at the evaluation size.
        numbers: which images.
        map_kind: a name in :data:`MAP_KINDS`.
        threshold: score-map threshold.

    Returns:
        For each image the score map (H, W) of its true class, and the box (1, 4) of its largest contour.
    """
    raw = raw_maps(model, data, numbers, map_kind)
    scores = list(maps.score_map(raw, data.size, MAP_KINDS[map_kind].normalisation).numpy())
    images = [to_8bit(score) for score in scores]
    return scores, [largest_boxes(image, cutoffs(image, np.array([threshold]))) for image in images]


def one_per_class(data: OpenedDataset, count: int) -> list[int]:
    """The first image of each of the first ``count`` classes: nobody picks the pictures by hand."""
    _, first = np.unique(data.labels, return_index=True)
    return first[:count].tolist()


def fixed_box_ious(data: OpenedDataset, margin: float) -> np.ndarray:
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


def centred_margin(data: OpenedDataset) -> float:
    """The margin, among multiples of 1/32, whose fixed box is right most often on ``data`` (give train-fullsup)."""
    margins = [step / 32 for step in range(13)]
    return max(margins, key=lambda margin: (fixed_box_ious(data, margin) >= GT_KNOWN_IOU).mean())
