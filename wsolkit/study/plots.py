"""Figures in one style: data frames or arrays in, a matplotlib ``Figure`` out; no file is read or written here."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from wsolkit.decomposition import MAP_COLOURS, MAP_STRENGTH

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

METHOD_COLOURS = {
    "vanilla": _PALETTE[7],
    "EIL": _PALETTE[2],
    "attentive dropout": _PALETTE[4],
    "ours": _PALETTE[0],
}
"""Colours of methods in curves and histograms."""

COLOURS = {
    "ours": _PALETTE[0],
    "paper": _PALETTE[1],
    "baseline": _PALETTE[3],
    "true box": _PALETTE[9],
    "predicted box": _PALETTE[1],
}
"""Colour-blind safe: what we measured, what the paper prints, boxes that never look, and the boxes in pictures."""


def shades(lines: Sequence[str], method: str) -> dict[str, str]:
    """Light to full shades of a method's colour, for stages of its training."""
    full = METHOD_COLOURS[method]
    return dict(zip(lines, sns.light_palette(full, len(lines) + 1).as_hex()[1:], strict=True))


def table_bars(
    summary: pd.DataFrame,
    names: Mapping[str, str],
    profile: str,
    lines: Sequence[str] = ("whole image", "centred box"),
) -> Figure:
    """A table as a picture: one panel a metric, and a row of panels a block of the table.

    Bars are what was measured here, with the deviation over seeds; diamonds are the paper's numbers.

    Args:
        summary: from `wsolkit.study.tables.summarise`.
        names: metrics in order, with their printed names.
        profile: the profile's name, for the legend.
        lines: rows that are drawn as lines: boxes that never look at the image.
    """
    drawn = summary.index.get_level_values("row").isin(lines)
    parts = dict(iter(summary[~drawn].groupby(level=["dataset", "backbone"], sort=False)))
    counts = [part.index.unique("row").size for part in parts.values()]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.75 * max(len(names), 2), sum(0.27 * count + 0.85 for count in counts) + 0.3))
        axes = figure.subplots(len(parts), len(names), sharey="row", squeeze=False, height_ratios=counts)
        for row, (key, part) in zip(axes, parts.items(), strict=True):
            for axis, (metric, printed) in zip(row, names.items(), strict=True):
                _bars(axis, part.xs(metric, level="metric").reset_index("row"), profile)
                _lines(axis, summary[drawn], (*key, metric))
                axis.set(title=printed, xlim=(0, 100))
            row[0].invert_yaxis()
            row[0].set_ylabel(" · ".join(key))
        for axis in axes[-1]:
            axis.set_xlabel("%" if "pxap" in names else "images localized (%)")
        _legend_below(figure, axes, columns=4 if len(names) > 2 else 2)
        return figure


def _bars(axis: Axes, part: pd.DataFrame, profile: str) -> None:
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
    axis.plot(part["paper_pct"], places, "D", color=COLOURS["paper"], markersize=5, label="paper (real data)")
    axis.set(yticks=places, yticklabels=part["row"])
    axis.grid(visible=False, axis="y")


def _lines(axis: Axes, fixed: pd.DataFrame, key: tuple[str, str, str]) -> None:
    values = {row: value for (*block, row, metric), value in fixed["mean_pct"].items() if (*block, metric) == key}
    for dashes, (row, value) in zip(("--", ":"), values.items(), strict=False):
        if not np.isnan(value):
            axis.axvline(value, color=COLOURS["baseline"], linestyle=dashes, linewidth=1.3, label=row)


def _legend_below(figure: Figure, axes: np.ndarray, columns: int) -> None:
    """One legend of all that the panels show; what was measured here comes first."""
    found: dict[str, Artist] = {}
    for axis in np.ravel(axes):
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    order = sorted(found, key=lambda label: not label.startswith("here"))
    figure.legend([found[label] for label in order], order, loc="outside lower center", ncols=columns)


def histograms(panels: Mapping[str, pd.DataFrame], labels: Mapping[str, str], colours: Mapping[str, str]) -> Figure:
    """One panel each: densities as outlines, with the deviation over seeds as a band.

    Args:
        panels: by title, a frame from `wsolkit.study.distributions.histogram` with a column ``line``.
        labels: by title, what stands along the x axis, with its unit.
        colours: by line.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.1 * len(panels), 3.0))
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, (title, frame) in zip(axes, panels.items(), strict=True):
            for line, part in frame.groupby("line", sort=False):
                edges = np.append(part["low"], part["high"].iloc[-1])
                axis.stairs(part["density"], edges, color=colours[line], linewidth=1.5, label=line)
                spread = part["spread"].fillna(0)
                low, high = (np.append(part["density"] + sign * spread, 0) for sign in (-1, 1))
                axis.fill_between(edges, low, high, step="post", color=colours[line], alpha=0.15, linewidth=0)
            axis.set(title=title, xlabel=labels[title], ylabel="density", ylim=(0, None))
            axis.legend()
        return figure


def sensitivity(points: pd.DataFrame, symbols: Mapping[str, str], columns: int = 4) -> Figure:
    """One panel a hyperparameter: GT-known Loc against its setting. The chosen one is filled, the paper's a line.

    Args:
        points: one row a run: ``option, setting, value`` (a fraction), ``chosen`` (whether this is the setting of the
            other tables) and ``paper`` (the setting that the paper found best).
        symbols: printed symbol by option, in the order of the panels.
        columns: panels side by side at most.
    """
    with matplotlib.rc_context(STYLE):
        rows = -(-len(symbols) // columns)
        figure = Figure(figsize=(2.3 * columns, 2.2 * rows + 0.2))
        axes = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
        for axis, (option, symbol) in zip(axes, symbols.items(), strict=False):
            every = points[points["option"] == option].groupby("setting")
            part = every[["chosen", "paper"]].first().reset_index()
            value, spread = (every["value"].agg(what).fillna(0).to_numpy() * 100 for what in ("mean", "std"))
            axis.errorbar(part["setting"], value, spread, color=COLOURS["ours"], marker="o", mfc="white", capsize=2)
            chosen = part["chosen"].to_numpy(bool)
            at = {"color": COLOURS["ours"], "zorder": 4, "label": "chosen here"}
            axis.plot(part["setting"][chosen], value[chosen], "o", **at)
            axis.set(xlabel=symbol)
            best = part["paper"].iloc[0]
            if part["setting"].min() <= best <= part["setting"].max():
                axis.axvline(best, color=COLOURS["paper"], linestyle="--", linewidth=1.2, label="the paper's best")
        for axis in axes[len(symbols) :]:
            axis.set_axis_off()
        for axis in axes[::columns]:
            axis.set_ylabel("GT-known Loc (%)")
        _legend_below(figure, np.array(axes), columns=3)
        return figure


def verdict_bars(board: pd.DataFrame, profile: str) -> Figure:
    """How many claims got which verdict, as one bar.

    Args:
        board: from `wsolkit.study.claims.scoreboard`.
        profile: the profile's name, for the title.
    """
    colours = {"reproduced": _PALETTE[2], "inconclusive": _PALETTE[8], "not reproduced": _PALETTE[3]}
    counts = board["verdict"].value_counts()
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(7.2, 1.3))
        axis, left = figure.subplots(), 0
        for verdict, colour in (colours | {"not measured": "0.8"}).items():
            count = int(counts.get(verdict, 0))
            if count:
                axis.barh(0, count, left=left, color=colour, label=verdict)
                axis.text(left + count / 2, 0, str(count), ha="center", va="center")
            left += count
        axis.set(title=f"{left} claims of the paper, profile {profile}", yticks=[], xticks=[], xlim=(0, left))
        axis.spines[:].set_visible(False)
        _legend_below(figure, np.array([axis]), 4)
        return figure


def box_grid(
    images: Sequence[np.ndarray], true_boxes: Sequence[np.ndarray], boxes: Mapping[str, Sequence[np.ndarray]]
) -> Figure:
    """A column an image, a row a method: pictures with their true and predicted boxes, as in Fig. 5.

    Args:
        images: (H, W, 3) uint8 each.
        true_boxes: one (k, 4) array an image.
        boxes: by method, one (n, 4) array an image.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(1.2 * len(images), 1.28 * len(boxes)))
        axes = figure.subplots(len(boxes), len(images), squeeze=False)
        for row, (method, predicted) in zip(axes, boxes.items(), strict=True):
            for axis, image, truth, found in zip(row, images, true_boxes, predicted, strict=True):
                axis.imshow(image)
                _draw_boxes(axis, truth, COLOURS["true box"])
                _draw_boxes(axis, found, COLOURS["predicted box"])
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
            row[0].set_ylabel(method)
        return figure


def threshold_curves(
    curves: pd.DataFrame,
    colours: Mapping[str, str] | None = None,
    paper: pd.DataFrame | None = None,
    columns: int = 3,
) -> Figure:
    """One panel a group: accuracy against the score-map threshold, a line each; the highest point of a line is marked.

    Args:
        curves: columns ``panel, line, threshold, value`` (a fraction) and, where there are several seeds, ``spread``
            (the sample deviation, drawn as a band).
        colours: by line; None takes the palette's.
        paper: columns ``panel, line, value`` (percent): the paper's highest points, drawn as dotted lines.
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
                _curve(axis, curves[(curves["panel"] == panel) & (curves["line"] == line)], colours[line], line)
            for row in () if paper is None else paper[paper["panel"] == panel].itertuples():
                label = f"{row.line}, the paper's highest"
                axis.axhline(row.value, color=colours[row.line], linestyle=":", linewidth=1.2, label=label)
            axis.set(title=panel, xlim=(0, 1), ylim=(0, 102))
        for axis in axes[-1]:
            axis.set_xlabel("score-map threshold")
        for axis in axes[:, 0]:
            axis.set_ylabel("images localized (%)")
        _legend_below(figure, axes, columns=4)
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
                axis.imshow(maps[row], cmap=MAP_COLOURS, alpha=MAP_STRENGTH, vmin=0, vmax=1)
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
