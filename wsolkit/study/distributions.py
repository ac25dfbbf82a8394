"""Distributions behind Fig. 7 and A2: similarity inside true boxes, normalised norms, largest norms."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from wsolkit import maps
from wsolkit.datasets import OpenedDataset
from wsolkit.models import GapClassifier
from wsolkit.training.evaluation import raw_maps

LARGE_SIMILARITY = 0.5
"""Similarity from which a cell counts as strongly aligned; the paper says "large" and shows it in Fig. 7(a)."""


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


@torch.no_grad()
def similarity_in_boxes(model: GapClassifier, data: OpenedDataset) -> list[np.ndarray]:
    """Similarity to the true class of every cell inside the true boxes (Fig. 7a).

    Returns:
        One array an image, values in [-1, 1]; empty where no cell has its centre in a box.
    """
    return inside_boxes(raw_maps(model, data, range(len(data)), "similarity"), data)


def inside_boxes(raw: torch.Tensor, data: OpenedDataset) -> list[np.ndarray]:
    """Of maps (N, H, W) of all images, the cells inside the true boxes; one array an image."""
    cells = raw.shape[1], raw.shape[2]
    return [found[cells_in_boxes(data[i].boxes, data.size, cells)] for i, found in enumerate(raw.numpy())]


@torch.no_grad()
def normalised_norms(model: GapClassifier, data: OpenedDataset) -> np.ndarray:
    """Norm maps (N, H, W), each scaled to [0, 1] (Fig. 7b)."""
    return maps.min_max(raw_maps(model, data, range(len(data)), "norm")).numpy()


@torch.no_grad()
def largest_norms(model: GapClassifier, data: OpenedDataset) -> np.ndarray:
    """The largest norm (N,) of each image (Fig. A2)."""
    return raw_maps(model, data, range(len(data)), "norm").amax((1, 2)).numpy()


def histogram(values: Mapping[str, Sequence[np.ndarray]], edges: np.ndarray) -> pd.DataFrame:
    """Densities with their deviation over seeds.

    Args:
        values: by line, one flat array a seed.
        edges: of the bins; what lies outside is in no bin, but counts in the whole.

    Returns:
        Columns ``line, low, high, density, spread``; ``spread`` is NaN for a single seed.
    """
    parts = []
    for line, seeds in values.items():
        counts = np.stack([np.histogram(each, edges)[0] / each.size for each in seeds])
        density = counts / np.diff(edges)
        spread = density.std(0, ddof=1) if len(seeds) > 1 else np.full(len(edges) - 1, np.nan)
        frame = {"low": edges[:-1], "high": edges[1:], "density": density.mean(0), "spread": spread}
        parts.append(pd.DataFrame(frame).assign(line=line))
    return pd.concat(parts, ignore_index=True)
