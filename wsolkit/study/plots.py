"""Figures in one style: data frames or arrays in, a matplotlib ``Figure`` out; no file is read or written here."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from wsolkit.decomposition import MAP_COLOURS, MAP_STRENGTH
from wsolkit.study.statistics import half_width
from wsolkit.study.tables import BLOCK, Table

STYLE = Path(__file__).with_name("figures.mplstyle")
_PALETTE = sns.color_palette("colorblind").as_hex()

#: Colours of our numbers, the paper's, boxes that never look at the image, and the boxes in pictures.
OURS, PAPER, FIXED, TRUE_BOX, PREDICTED_BOX = (_PALETTE[number] for number in (0, 1, 3, 9, 1))

#: Colours of methods in curves and histograms.
METHOD_COLOURS = {"vanilla": _PALETTE[7], "EIL": _PALETTE[2], "attentive dropout": _PALETTE[4], "ours": _PALETTE[0]}

Boxes = Sequence[np.ndarray]


@style.context(STYLE)
def table_bars(table: Table, lines: Sequence[str] = ("whole image", "centred box")) -> Figure:
    """A table as a picture: one panel per metric, and one row of panels per block of the table.

    Bars are our means, each with its own 95% interval over the seeds, which says nothing of differences: these are
    paired, and sharper. Diamonds are the paper's numbers.

    Args:
        table: from `wsolkit.study.Study.table`.
        lines: rows drawn as lines: boxes that never look at the image.
    """
    summary = table.summary.reset_index()
    summary["fixed"] = summary["row"].isin(lines)
    counts = summary[~summary["fixed"]].groupby(BLOCK, sort=False)["row"].nunique()
    columns, width, height = len(table.names), max(2.75, 5.5 / len(table.names)), (0.27 * counts + 0.85).mean()
    figure, axes = _panels(counts.size * columns, columns, width, height, sharey="row", height_ratios=counts.tolist())
    for row, block in zip(axes, counts.index, strict=True):
        for axis, (metric, name) in zip(row, table.names.items(), strict=True):
            part = summary[(summary[[*BLOCK, "metric"]] == [*block, metric]).all(axis=1)]
            bars, boxes = part[~part["fixed"]], part[part["fixed"]].dropna(subset="mean_pct")
            here = {"color": OURS, "label": f"here ({table.profile}), mean and 95% interval over seeds"}
            error = {"xerr": half_width(bars["sd_pct"], bars["seeds"]), "error_kw": {"elinewidth": 1, "capsize": 2}}
            axis.barh(bars["row"], bars["mean_pct"], height=0.62, **here, **error)
            axis.plot(bars["paper_pct"], bars["row"], "D", color=PAPER, markersize=5, label="paper (real data)")
            for dashes, box in zip(("--", ":"), boxes.itertuples(), strict=False):
                axis.axvline(box.mean_pct, color=FIXED, linestyle=dashes, linewidth=1.3, label=box.row)
            axis.set(title=name, xlim=(0, 100), xlabel="%" if metric == "pxap" else "images localized (%)")
            axis.grid(visible=False, axis="y")
            axis.label_outer()
        row[0].invert_yaxis()
        row[0].set_ylabel(" · ".join(block))
    return _with_legend(figure, 4 if columns > 2 else 2)


@style.context(STYLE)
def histograms(rows: pd.DataFrame, panels: Mapping[str, tuple[str, str]], colours: Mapping[str, str]) -> Figure:
    """One panel per table: densities as outlines, with the deviation over the seeds as a band.

    Args:
        rows: columns ``table, row, low, high, value, spread``: the bins of each line, its density, and the deviation,
            empty for a single seed.
        panels: by ``table``, the title and the label of the x axis.
        colours: by ``row``.
    """
    figure, axes = _panels(len(panels), len(panels), 4.1, 2.7)
    for axis, (name, (title, label)) in zip(axes.flat, panels.items(), strict=True):
        for line, part in rows[rows["table"] == name].groupby("row", sort=False):
            colour, edges = colours[line], [*part["low"], part["high"].iloc[-1]]
            axis.stairs(part["value"], edges, color=colour, linewidth=1.5, label=line)
            spread = part["spread"].fillna(0)
            low, high = part["value"] - spread, part["value"] + spread
            axis.stairs(high, edges, baseline=low, fill=True, color=colour, alpha=0.15)
        axis.set(title=title, xlabel=label, ylabel="density", ylim=(0, None))
        axis.legend()
    return figure


@style.context(STYLE)
def sensitivity(points: pd.DataFrame, symbols: Mapping[str, str], columns: int = 4) -> Figure:
    """One panel per hyperparameter: GT-known Loc against its setting; the chosen one is filled, the paper's a line.

    Args:
        points: one row per run: ``option, setting, value`` (a fraction), ``chosen`` (whether this is the setting of the
            other tables) and ``paper`` (the setting that the paper found best).
        symbols: printed symbol by option, in the order of the panels.
        columns: the largest number of panels side by side.
    """
    figure, axes = _panels(len(symbols), columns, 2.3, 2.2, sharey=True)
    for axis, (option, symbol) in zip(axes.flat, symbols.items(), strict=False):
        every = points[points["option"] == option].groupby("setting")
        part = every.agg(value=("value", "mean"), spread=("value", "std"), chosen=("chosen", "first"))
        value, best = part["value"] * 100, every["paper"].first().iloc[0]
        look = {"color": OURS, "marker": "o"}
        axis.errorbar(part.index, value, part["spread"].fillna(0) * 100, **look, mfc="white", capsize=2)
        axis.plot(value[part["chosen"].astype(bool)], **look, linestyle="", zorder=4, label="chosen here")
        if part.index.min() <= best <= part.index.max():
            axis.axvline(best, color=PAPER, linestyle="--", linewidth=1.2, label="the paper's best")
        axis.set_xlabel(symbol)
    figure.supylabel("GT-known Loc (%)")
    return _with_legend(figure, 3)


@style.context(STYLE)
def verdict_bars(board: pd.DataFrame, profile: str) -> Figure:
    """How many claims got which verdict, as one bar.

    Args:
        board: from `wsolkit.study.claims.scoreboard`.
        profile: the profile's name, for the title.
    """
    colours = {"reproduced": _PALETTE[2], "inconclusive": _PALETTE[8], "not reproduced": _PALETTE[3]}
    counts = board["verdict"].value_counts().reindex([*colours, "not measured"]).dropna()
    figure, axes = _panels(1, 1, 7.2, 1.0)
    for verdict, end in counts.cumsum().items():
        start, colour = end - counts[verdict], colours.get(verdict, "0.8")
        bar = axes[0, 0].barh(0, counts[verdict], left=start, color=colour, label=verdict)
        axes[0, 0].bar_label(bar, fmt="%d", label_type="center")
    axes[0, 0].set_axis_off()
    axes[0, 0].set(title=f"{len(board)} claims of the paper, profile {profile}", xlim=(0, len(board)))
    return _with_legend(figure, 4)


@style.context(STYLE)
def threshold_curves(
    curves: pd.DataFrame, colours: Mapping[str, str] | None = None, paper: pd.DataFrame | None = None, columns: int = 3
) -> Figure:
    """One panel per group: box accuracy against the score-map threshold; the highest point of each line is marked.

    Args:
        curves: columns ``panel, line, threshold, value`` (a fraction) and, with several seeds, ``spread`` (the sample
            deviation, drawn as a band).
        colours: by line; None takes the palette's.
        paper: columns ``panel, line, value`` (percent): the paper's highest points, drawn as dotted lines.
        columns: the largest number of panels side by side.
    """
    panels, lines = curves["panel"].unique(), curves["line"].unique()
    colours = colours or dict(zip(lines, _PALETTE, strict=False))
    figure, axes = _panels(len(panels), columns, 2.9, 2.6, sharex=True, sharey=True)
    for axis, panel in zip(axes.flat, panels, strict=False):
        for line, part in curves[curves["panel"] == panel].groupby("line", sort=False):
            at, value, colour = part["threshold"].to_numpy(), part["value"].to_numpy() * 100, colours[line]
            axis.plot(at, value, color=colour, linewidth=1.4, label=line)
            axis.plot(at[value.argmax()], value.max(), "o", color=colour, markersize=4)
            if "spread" in part:
                spread = part["spread"].fillna(0).to_numpy() * 100
                axis.fill_between(at, value - spread, value + spread, color=colour, alpha=0.18, linewidth=0)
        for row in () if paper is None else paper[paper["panel"] == panel].itertuples():
            label = f"{row.line}, the paper's highest"
            axis.axhline(row.value, color=colours[row.line], linestyle=":", linewidth=1.2, label=label)
        axis.set(title=panel, xlim=(0, 1), ylim=(0, 102), xlabel="score-map threshold", ylabel="images localized (%)")
        axis.label_outer()
    return _with_legend(figure, 4)


@style.context(STYLE)
def map_grid(
    images: Sequence[np.ndarray],
    columns: Mapping[str, Sequence[np.ndarray]],
    true_boxes: Boxes,
    boxes: Mapping[str, Boxes] | None = None,
    titles: Sequence[str] = (),
) -> Figure:
    """One row per image: the picture, then its maps, each laid over it, with true boxes and predicted boxes.

    Args:
        images: (H, W, 3) uint8 each.
        columns: by title, one score map (H, W) in [0, 1] per image.
        true_boxes: one (k, 4) array per image.
        boxes: by title of a column, one (n, 4) array per image, drawn on its map.
        titles: the label left of each row.
    """
    layers, none = {"image": [None] * len(images), **columns}, [()] * len(images)
    found = [(boxes or {}).get(title, none) for title in layers]
    by_column = [zip(images, true_boxes, *both, strict=True) for both in zip(found, layers.values(), strict=True)]
    cells = list(zip(*by_column, strict=True))
    return _picture_grid(cells, 1.45, 1.5, ["image", *columns], titles)


@style.context(STYLE)
def box_grid(
    images: Sequence[np.ndarray], true_boxes: Boxes, boxes: Mapping[str, Boxes], titles: Sequence[str] = ()
) -> Figure:
    """One column per image, one row per method: pictures with their true and predicted boxes, as in Fig. 5.

    Args:
        images: (H, W, 3) uint8 each.
        true_boxes: one (k, 4) array per image.
        boxes: by method, one (n, 4) array per image.
        titles: what stands above each column.
    """
    cells = [list(zip(images, true_boxes, found, [None] * len(images), strict=True)) for found in boxes.values()]
    return _picture_grid(cells, 1.2, 1.28, titles, list(boxes))


def _panels(
    count: int, columns: int, width: float, height: float, extra: float = 0.3, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure with a number of panels, each of that size in inches, and their axes (rows, columns).

    There are at most so many columns; ``extra`` inches are left for a legend or titles.
    """
    rows, columns = -(-count // columns), min(columns, count)
    figure = Figure(figsize=(width * columns, height * rows + extra))
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat[count:]:
        axis.remove()
    return figure, axes


def _picture_grid(
    cells: Sequence[Sequence[tuple]], width: float, height: float, titles: Sequence[str], labels: Sequence[str]
) -> Figure:
    """Rows of pictures of that size in inches, each with true boxes, predicted boxes, and a score map laid over it."""
    columns = len(cells[0])
    figure, axes = _panels(len(cells) * columns, columns, width, height, extra=0.25 * bool(titles))
    for axis, (image, truth, found, score) in zip(axes.flat, chain(*cells), strict=True):
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.imshow(image if score is None else image.mean(-1), cmap="gray")
        if score is not None:
            axis.imshow(score, cmap=MAP_COLOURS, alpha=MAP_STRENGTH, vmin=0, vmax=1)
        for boxes, colour in ((truth, TRUE_BOX), (found, PREDICTED_BOX)):
            for x0, y0, x1, y1 in boxes:
                axis.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, ec=colour, lw=1.4))
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title, fontsize=6 * width)
    for axis, label in zip(axes[:, 0], labels, strict=False):
        axis.set_ylabel(label, fontsize=8)
    return figure


def _with_legend(figure: Figure, columns: int) -> Figure:
    """One legend below for all panels; our numbers come first."""
    shown = [axis.get_legend_handles_labels() for axis in figure.axes]
    found = {label: handle for handles, labels in shown for handle, label in zip(handles, labels, strict=True)}
    order = sorted(found, key=lambda label: not label.startswith("here"))
    figure.legend([found[label] for label in order], order, loc="outside lower center", ncols=columns)
    return figure
