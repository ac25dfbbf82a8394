"""Figures in one style: data frames or arrays in, a matplotlib ``Figure`` out; no file is read or written here."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

STYLE = {
    **sns.axes_style("whitegrid"),
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.linewidth": 0.5,
    "grid.color": "0.88",
    "figure.constrained_layout.use": True,
}
_PALETTE = sns.color_palette("colorblind").as_hex()

COLOURS = {
    "ours": _PALETTE[0],
    "paper": _PALETTE[1],
    "baseline": _PALETTE[3],
    "true box": _PALETTE[9],
    "predicted box": _PALETTE[1],
}
"""Colour-blind safe: what we measured, what the paper prints, boxes that never look, and the boxes in pictures."""

MAP_COLOURS = "magma"


def ablation(summary: pd.DataFrame, baselines: pd.DataFrame, names: Mapping[str, str], profile: str) -> Figure:
    """One panel a metric: a bar for each row with its deviation over seeds, and the paper's number as a mark.

    Args:
        summary: from `wsolkit.tables.summarise`, of the trained rows.
        baselines: the same of boxes that never look at the image; drawn as lines where they have the metric.
        names: metrics in order, with their printed names.
        profile: the profile's name, for the title.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.2, 3.1))
        axes = figure.subplots(1, len(names), sharey=True)
        for axis, (metric, printed) in zip(np.atleast_1d(axes), names.items(), strict=True):
            part = summary.xs(metric, level="metric")
            places = np.arange(len(part))
            axis.barh(
                places,
                part["mean_pct"],
                xerr=part["sd_pct"].fillna(0),
                color=COLOURS["ours"],
                height=0.62,
                error_kw={"elinewidth": 1, "capsize": 2},
                label=f"here ({profile}), mean ± deviation over seeds",
            )
            axis.plot(part["paper_pct"], places, "D", color=COLOURS["paper"], markersize=5, label="paper (real CUB)")
            _baseline_lines(axis, baselines, metric)
            axis.set(title=printed, xlim=(0, 100), xlabel="images localized (%)", yticks=places, yticklabels=part.index)
            axis.grid(visible=False, axis="y")
        axis.invert_yaxis()
        handles, labels = axis.get_legend_handles_labels()
        order = sorted(range(len(labels)), key=lambda number: not labels[number].startswith("here"))
        shown = [handles[number] for number in order], [labels[number] for number in order]
        figure.legend(*shown, loc="outside lower center", ncols=len(labels))
        return figure


def _baseline_lines(axis: Axes, baselines: pd.DataFrame, metric: str) -> None:
    rows = baselines[baselines.index.get_level_values("metric") == metric]
    for dashes, (row, value) in zip(("--", ":"), rows["mean_pct"].droplevel("metric").items(), strict=False):
        axis.axvline(value, color=COLOURS["baseline"], linestyle=dashes, linewidth=1.3, label=row)


def threshold_curves(curves: pd.DataFrame, colours: Mapping[str, str] | None = None, columns: int = 3) -> Figure:
    """One panel a group: accuracy against the score-map threshold, a line each; the highest point of a line is marked.

    Args:
        curves: columns ``panel, line, threshold, value`` (a fraction) and, where there are several seeds, ``spread``
            (the sample deviation, drawn as a band).
        colours: by line; None takes the palette's.
        columns: panels side by side at most.
    """
    panels, lines = list(curves["panel"].unique()), list(curves["line"].unique())
    colours = colours or dict(zip(lines, _PALETTE, strict=False))
    with matplotlib.rc_context(STYLE):
        rows, columns = -(-len(panels) // columns), min(columns, len(panels))
        figure = Figure(figsize=(2.9 * columns, 2.6 * rows + 0.3))
        axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
        for axis, panel in zip(axes.flat, panels, strict=False):
            for line in lines:
                part = curves[(curves["panel"] == panel) & (curves["line"] == line)]
                _curve(axis, part, colours[line], line)
            axis.set(title=panel, xlim=(0, 1), ylim=(0, 100))
        for axis in axes[-1]:
            axis.set_xlabel("score-map threshold")
        for axis in axes[:, 0]:
            axis.set_ylabel("images localized (%)")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(lines))
        return figure


def _curve(axis: Axes, part: pd.DataFrame, colour: str, label: str) -> None:
    at, value = part["threshold"].to_numpy(), part["value"].to_numpy() * 100
    axis.plot(at, value, color=colour, linewidth=1.4, label=label)
    axis.plot(at[value.argmax()], value.max(), "o", color=colour, markersize=4)
    if "spread" in part:
        spread = part["spread"].fillna(0).to_numpy() * 100
        axis.fill_between(at, value - spread, value + spread, color=colour, alpha=0.18, linewidth=0)


def map_grid(
    images: Sequence[np.ndarray],
    columns: Mapping[str, Sequence[np.ndarray]],
    true_boxes: Sequence[np.ndarray],
    boxes: Mapping[str, Sequence[np.ndarray]] | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """A row an image: the picture, then one map a column, laid over it; true boxes and predicted boxes.

    Args:
        images: (H, W, 3) uint8 each.
        columns: by title, one score map (H, W) in [0, 1] an image.
        true_boxes: one (k, 4) array an image, drawn on the picture.
        boxes: by title of a column, one (n, 4) array an image, drawn on its map.
        titles: what stands left of each row.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(1.45 * (1 + len(columns)), 1.5 * len(images) + 0.25))
        axes = figure.subplots(len(images), 1 + len(columns), squeeze=False)
        for row, image in enumerate(images):
            axes[row, 0].imshow(image)
            _draw_boxes(axes[row, 0], true_boxes[row], COLOURS["true box"])
            for axis, (title, maps) in zip(axes[row, 1:], columns.items(), strict=True):
                axis.imshow(image.mean(-1), cmap="gray")
                axis.imshow(maps[row], cmap=MAP_COLOURS, alpha=0.72, vmin=0, vmax=1)
                _draw_boxes(axis, true_boxes[row], COLOURS["true box"])
                if boxes and title in boxes:
                    _draw_boxes(axis, boxes[title][row], COLOURS["predicted box"])
            if titles:
                axes[row, 0].set_ylabel(titles[row], fontsize=8)
        for axis, title in zip(axes[0], ["image", *columns], strict=True):
            axis.set_title(title)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        return figure


def _draw_boxes(axis: Axes, boxes: np.ndarray, colour: str) -> None:
    for x0, y0, x1, y1 in boxes:
        axis.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.4))


def samples(images: Sequence[np.ndarray], labels: Sequence[str], true_boxes: Sequence[np.ndarray]) -> Figure:
    """A contact sheet: pictures with their class and their true boxes.

    Args:
        images: (H, W, 3) uint8 each.
        labels: a class name each.
        true_boxes: one (k, 4) array each.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        columns = min(8, len(images))
        rows = -(-len(images) // columns)
        figure = Figure(figsize=(1.15 * columns, 1.3 * rows))
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axis in axes:
            axis.set_axis_off()
        for axis, image, label, boxes in zip(axes, images, labels, true_boxes, strict=False):
            axis.imshow(image)
            axis.set_title(label, fontsize=7)
            _draw_boxes(axis, boxes, COLOURS["true box"])
        return figure
