"""Score maps, boxes and their IoU for the pictures that figures show."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from wsolkit.datasets import OpenedDataset
from wsolkit.metrics import GT_KNOWN_IOU
from wsolkit.metrics.boxes import pairwise_iou
from wsolkit.models import GapClassifier
from wsolkit.study.tables import concatenate
from wsolkit.training.evaluation import localize
from wsolkit.training.run_store import Run


def maps_of(
    models: Mapping[str, GapClassifier], data: OpenedDataset, numbers: Sequence[int], kinds: Mapping[str, str]
) -> dict[str, list[np.ndarray]]:
    """Score maps of some images.

    Args:
        models: classifiers by name.
        data: images at the evaluation size.
        numbers: which images.
        kinds: localization maps by printed name, e.g. ``{"F": "norm"}``.

    Returns:
        By name and printed kind, one score map (H, W) an image.
    """
    return {
        f"{name} {printed}": localize(model, data, numbers, kind)[0]
        for name, model in models.items()
        for printed, kind in kinds.items()
    }


def maps_and_boxes(
    runs: Mapping[str, Run], data: OpenedDataset, numbers: Sequence[int], kinds: Mapping[str, str]
) -> tuple[dict[str, list[np.ndarray]], dict[str, list[np.ndarray]]]:
    """Score maps of some images and the boxes predicted from them, each at its own best threshold.

    Args:
        runs: finished runs by name.
        data: the test split.
        numbers: which images.
        kinds: localization maps by printed name.

    Returns:
        Maps as `maps_of` has them, and by the same names one box (1, 4) an image.
    """
    maps, boxes = {}, {}
    for name, run in runs.items():
        model = run.model()
        for printed, kind in kinds.items():
            column = f"{name} {printed}"
            maps[column], boxes[column] = localize(model, data, numbers, kind, _best_threshold(run, kind))
    return maps, boxes


def predicted(run: Run, data: OpenedDataset, numbers: Sequence[int]) -> list[np.ndarray]:
    """The box (1, 4) of each image from the CAM, at the threshold that is best on the test split."""
    return localize(run.model(), data, numbers, "cam", _best_threshold(run, "cam"))[1]


def iou_rows(
    runs: Mapping[str, Run], data: OpenedDataset, numbers: Sequence[int], boxes: Mapping[str, Sequence[np.ndarray]]
) -> pd.DataFrame:
    """Tidy rows of what the pictures show: the best IoU of each drawn box with a true one.

    Args:
        runs: finished runs by name.
        data: the images.
        numbers: which of them.
        boxes: drawn boxes by a name that begins with the run's, one array an image.
    """
    parts = []
    for name, run in runs.items():
        for column in (column for column in boxes if column.split(" ")[0] == name):
            shown = zip(numbers, boxes[column], strict=True)
            rows = [(data[i].image_id, pairwise_iou(box, data[i].boxes).max()) for i, box in shown]
            frame = pd.DataFrame(rows, columns=["image_id", "value"])
            parts.append(frame.assign(row=column, metric="iou", count=1, **run.made()))
    return concatenate(parts)


def _best_threshold(run: Run, kind: str) -> float:
    return run.report().rate(f"best_threshold_{GT_KNOWN_IOU}", kind)
