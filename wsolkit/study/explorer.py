"""Sliders over a recorded training: which picture, which map, which epoch, which box threshold.

Where no kernel runs (on GitHub, as HTML) a still picture stands in their place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from wsolkit.datasets import OpenedDataset
from wsolkit.metrics.boxes import cutoffs, largest_boxes, pairwise_iou, to_8bit
from wsolkit.study import plots
from wsolkit.training.evaluation import localize
from wsolkit.training.run_store import Run

TITLES = {"cam": "CAM", "norm": "norm map F", "similarity": "similarity S"}
"""Maps by kind, as the buttons name them."""

START = 0.3
"""Box threshold to begin with."""


@dataclass(frozen=True)
class Recording:
    """Score maps of some pictures by several networks at several epochs.

    Attributes:
        images: (h, w, 3) uint8 each.
        true_boxes: (k, 4) each.
        networks: names.
        epochs: the snapshots.
        maps: by network, epoch and kind, one score map (h, w) a picture.
    """

    images: Sequence[np.ndarray]
    true_boxes: Sequence[np.ndarray]
    networks: tuple[str, ...]
    epochs: tuple[int, ...]
    maps: Mapping[tuple[str, int, str], Sequence[np.ndarray]]

    def view(self, number: int, kind: str, epoch: int, threshold: float) -> Figure:
        """One picture with the map of each network, its box at a threshold, and the box's IoU."""
        columns, boxes = {}, {}
        for network in self.networks:
            score = self.maps[network, epoch, kind][number]
            box = _box(score, threshold)
            title = f"{network}\nIoU {pairwise_iou(box, self.true_boxes[number]).max():.2f}"
            columns[title], boxes[title] = [score], [box]
        return plots.map_grid([self.images[number]], columns, [self.true_boxes[number]], boxes)

    def still(self, number: int = 0, threshold: float = START) -> Figure:
        """One picture at all epochs, with all maps of each network."""
        rows = len(self.epochs)
        columns, boxes = {}, {}
        for network in self.networks:
            for kind, name in TITLES.items():
                title = f"{name}\n{network}"
                columns[title] = [self.maps[network, epoch, kind][number] for epoch in self.epochs]
                boxes[title] = [_box(score, threshold) for score in columns[title]]
        titles = [f"epoch {epoch}" for epoch in self.epochs]
        return plots.map_grid([self.images[number]] * rows, columns, [self.true_boxes[number]] * rows, boxes, titles)


def record(runs: Mapping[str, Run], data: OpenedDataset, numbers: Sequence[int]) -> Recording:
    """Score maps of some pictures along the training of some runs, from the snapshots that they share.

    Args:
        runs: by name; all keep snapshots of the same epochs.
        data: images at the evaluation size.
        numbers: which images.
    """
    epochs = next(iter(runs.values())).recipe.snapshot_epochs
    maps: dict[tuple[str, int, str], list[np.ndarray]] = {}
    for name, run in runs.items():
        for epoch in epochs:
            model = run.model(epoch)
            maps |= {(name, epoch, kind): localize(model, data, numbers, kind)[0] for kind in TITLES}
    samples = [data[number] for number in numbers]
    return Recording([s.image for s in samples], [s.boxes for s in samples], tuple(runs), epochs, maps)


class Explorer:
    """Sliders and buttons over a recording; shown as the last value of a notebook's cell."""

    def __init__(self, recording: Recording):
        """Build the controls, and draw the first view."""
        import ipywidgets as widgets

        wide = {"style": {"description_width": "7em"}, "layout": {"width": "32em"}}
        last = len(recording.images) - 1
        self._recording = recording
        self._controls = {
            "number": widgets.IntSlider(0, 0, last, description="picture", **wide),
            "kind": widgets.ToggleButtons(
                options=[(title, kind) for kind, title in TITLES.items()],
                description="map",
                style={**wide["style"], "button_width": "8em"},
                layout={"width": "44em"},
            ),
            "epoch": widgets.SelectionSlider(
                options=recording.epochs, value=recording.epochs[-1], description="epoch", **wide
            ),
            "threshold": widgets.FloatSlider(START, min=0, max=0.95, step=0.05, description="box threshold", **wide),
        }
        self._picture = widgets.Image(format="jpeg", layout={"width": "40em", "max_width": "100%"})
        self.box = widgets.VBox([*self._controls.values(), self._picture])
        for control in self._controls.values():
            control.observe(self._draw, names="value")
        self._draw()

    def _draw(self, change: object = None) -> None:
        chosen = {name: control.value for name, control in self._controls.items()}
        self._picture.value = _jpeg(self._recording.view(**chosen), dpi=150)

    def _repr_mimebundle_(self, **ignored: Any) -> dict[str, Any]:
        """The controls, and a still picture for whoever cannot show them."""
        return {**self.box._repr_mimebundle_(), "image/jpeg": _jpeg(self._recording.still(), dpi=60)}


def _box(score: np.ndarray, threshold: float) -> np.ndarray:
    image = to_8bit(score)
    return largest_boxes(image, cutoffs(image, np.array([threshold])))


def _jpeg(figure: Figure, dpi: int) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="jpeg", dpi=dpi, pil_kwargs={"quality": 78})
    return buffer.getvalue()
