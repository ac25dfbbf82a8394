"""What can be measured of a finished run, image by image: the quantities that claims compare."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from torch import Tensor

from wsolkit.datasets import OpenedDataset
from wsolkit.maps import min_max, score_map
from wsolkit.metrics import IOU_THRESHOLDS, BoxMeter
from wsolkit.study import tables
from wsolkit.study.study import Study
from wsolkit.training.evaluation import MAP_KINDS, raw_maps_of
from wsolkit.training.run_store import Run

#: Similarity above which a cell counts as strongly aligned; the paper says "large" and shows it in Fig. 7(a).
LARGE_SIMILARITY = 0.5

#: Quantities in a unit of their own, which training may stretch.
NO_RATES = frozenset({"largest F"})

#: Score maps held in memory at once.
CHUNK = 256


@dataclass
class Measured:
    """A finished run and its maps; the network runs once, however many quantities are asked for."""

    study: Study
    run: Run

    @cached_property
    def data(self) -> OpenedDataset:
        """The test split."""
        return self.study.store.machine.open(self.run.recipe, "test")

    @cached_property
    def raw(self) -> dict[str, Tensor]:
        """All kinds of maps of the test split, (N, H, W) each, of the true classes."""
        model = self.run.model(device=self.study.device)
        return raw_maps_of(model, self.data, range(len(self.data)), tuple(MAP_KINDS))


def cells_in_boxes(boxes: np.ndarray, size: int, cells: tuple[int, int]) -> np.ndarray:
    """Cells of a feature map whose centre lies in some box.

    Args:
        boxes: (k, 4) in pixels of the evaluation image.
        size: side of that image in pixels.
        cells: height and width of the feature map.

    Returns:
        (H, W) bool.
    """
    y, x = ((np.arange(count) + 0.5) * size / count for count in cells)
    inside = [(x0 <= x) & (x < x1) & ((y0 <= y) & (y < y1))[:, None] for x0, y0, x1, y1 in boxes.tolist()]
    return np.any(inside, axis=0)


def _rate(of: Measured, metric: str = "gt_known_loc", map_kind: str = "cam") -> np.ndarray:
    return tables.right(of.run.report(), metric, map_kind)


def _v2(of: Measured, map_kind: str = "cam") -> np.ndarray:
    """The share of the IoU thresholds at which an image is localized, whose mean is MaxBoxAccV2."""
    report = of.study.store.rejudged(of.run, map_kind).report()
    return np.mean([tables.right(report, f"max_box_acc_{delta}", map_kind) for delta in IOU_THRESHOLDS], axis=0)


def _pxap(of: Measured, map_kind: str = "cam") -> np.ndarray:
    return np.array([of.study.store.rejudged(of.run, map_kind).report().rate("pxap", map_kind)])


def _share_in_boxes(of: Measured, holds: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Share of the cells inside an image's boxes whose similarity holds; 0 where no cell has its centre in a box."""
    similarity = of.raw["similarity"].numpy()
    inside = [each[cells_in_boxes(of.data[i].boxes, of.data.size, each.shape)] for i, each in enumerate(similarity)]
    return np.array([holds(cells).mean() if cells.size else 0 for cells in inside])


def _localized_by_threshold(of: Measured) -> np.ndarray:
    """Whether each image is localized at each score-map threshold and IoU threshold: (N, T)."""
    meter, parts = BoxMeter(IOU_THRESHOLDS, of.run.recipe.threshold_step, threads=of.study.jobs), []
    for start in range(0, len(of.data), CHUNK):
        raw = of.raw["cam"][start : start + CHUNK]
        boxes = [of.data[i].boxes for i in range(start, start + len(raw))]
        ious = meter.update(score_map(raw, of.data.size), boxes)
        parts.append(np.concatenate([ious >= delta for delta in IOU_THRESHOLDS], axis=1))
    return np.concatenate(parts)


#: What can be compared: a value for each image (N,), or for each image and threshold (N, T), of a run.
QUANTITIES: Mapping[str, Callable[[Measured], np.ndarray]] = {
    **{metric: partial(_rate, metric=metric) for metric in tables.METRIC_NAMES},
    **{metric: partial(_rate, metric=metric) for metric in (f"max_box_acc_{delta}" for delta in IOU_THRESHOLDS)},
    "gt_known_loc of F": partial(_rate, map_kind="norm"),
    "gt_known_loc of S": partial(_rate, map_kind="similarity"),
    "max_box_acc_v2": _v2,
    "max_box_acc_v2 by IVR": partial(_v2, map_kind="ivr"),
    "pxap": _pxap,
    "pxap by PaS": partial(_pxap, map_kind="pas"),
    "share of negative S in boxes": partial(_share_in_boxes, holds=lambda cells: cells < 0),
    "share of large S in boxes": partial(_share_in_boxes, holds=lambda cells: cells > LARGE_SIMILARITY),
    "mean normalised F": lambda of: min_max(of.raw["norm"]).mean((1, 2)).numpy(),
    "largest F": lambda of: of.raw["norm"].amax((1, 2)).numpy(),
    "box accuracy at every threshold": _localized_by_threshold,
}
