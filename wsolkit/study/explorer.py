"""Sliders over a recorded training: which picture, which map, which epoch, which box threshold.

Where no kernel runs (on GitHub, as HTML) a still picture takes their place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from IPython.core.pylabtools import print_figure
from matplotlib.figure import Figure

from wsolkit.datasets import OpenedDataset, Sample
from wsolkit.metrics.boxes import cutoffs, largest_boxes, pairwise_iou, to_8bit
from wsolkit.study import plots
from wsolkit.training.evaluation import localize
from wsolkit.training.run_store import Run

#: Maps by kind, as the pictures name them.
TITLES = {"cam": "CAM", "norm": "norm map F", "similarity": "similarity S"}

#: The box threshold shown first.
START = 0.3


@dataclass(frozen=True)
class Recording:
    """Score maps of some pictures by several networks at several epochs.

    Attributes:
        samples: the pictures, with their true boxes.
        networks: names.
        epochs: the snapshots.
        maps: by network, epoch and kind, one score map (h, w) a picture.
    """

    samples: Sequence[Sample]
    networks: Sequence[str]
    epochs: Sequence[int]
    maps: Mapping[tuple[str, int, str], Sequence[np.ndarray]]

    def draw(self, number: int, kinds: Sequence[str], epochs: Sequence[int], threshold: float) -> Figure:
        """One picture: a row an epoch, a column a network and map, each with its box and the IoU at the last epoch."""
        sample, columns, boxes = self.samples[number], {}, {}
        for network, kind in product(self.networks, kinds):
            scores = [self.maps[network, epoch, kind][number] for epoch in epochs]
            images = [to_8bit(score) for score in scores]
            found = [largest_boxes(image, cutoffs(image, np.array([threshold]))) for image in images]
            iou = pairwise_iou(found[-1], sample.boxes).max()
            title = f"{network}\n{TITLES[kind]}\nIoU {iou:.2f}, epoch {epochs[-1]}"
            columns[title], boxes[title] = scores, found
        shown, rows = [sample] * len(epochs), [f"epoch {epoch}" for epoch in epochs]
        return plots.map_grid([s.image for s in shown], columns, [s.boxes for s in shown], boxes, rows)


def record(runs: Mapping[str, Run], data: OpenedDataset, numbers: Sequence[int]) -> Recording:
    """Score maps of some pictures along the training of some runs, from the snapshots that they share.

    Args:
        runs: by name; all keep snapshots of the same epochs.
        data: images at the evaluation size.
        numbers: which images.
    """
    epochs = next(iter(runs.values())).recipe.snapshot_epochs
    maps: dict[tuple[str, int, str], list[np.ndarray]] = {}
    for name, epoch in product(runs, epochs):
        model = runs[name].model(epoch)
        maps |= {(name, epoch, kind): localize(model, data, numbers, kind)[0] for kind in TITLES}
    return Recording([data[number] for number in numbers], tuple(runs), epochs, maps)


class Explorer:
    """Sliders over a recording; shown as the last value of a notebook's cell."""

    def __init__(self, recording: Recording):
        """Build the sliders, and draw the first view and the still picture."""
        from ipywidgets import Image, SelectionSlider, ToggleButtons, interactive

        def show(picture: int = 0, map: str = "cam", epoch: int = 0, threshold: float = START) -> None:
            shown.value = print_figure(recording.draw(picture, [map], [epoch], threshold), "jpeg", dpi=150)

        shown = Image(format="jpeg", layout={"width": "40em", "max_width": "100%"})
        self.box = interactive(
            show,
            picture=(0, len(recording.samples) - 1),
            map=ToggleButtons(options=[(title, kind) for kind, title in TITLES.items()]),
            epoch=SelectionSlider(options=recording.epochs, value=recording.epochs[-1]),
            threshold=(0.0, 0.95, 0.05),
        )
        self.box.children += (shown,)
        self.box.update()
        self._still = print_figure(recording.draw(0, list(TITLES), recording.epochs, START), "jpeg", dpi=60)

    def _repr_mimebundle_(self, **ignored: Any) -> dict[str, Any]:
        """The sliders, and a still picture where they cannot be shown."""
        return {**self.box._repr_mimebundle_(), "image/jpeg": self._still}
