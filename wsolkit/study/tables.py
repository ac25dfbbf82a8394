"""Runs to tidy rows, tidy rows to a table beside the paper's numbers."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from wsolkit.metrics import GT_KNOWN_IOU, IOU_THRESHOLDS
from wsolkit.study.statistics import Effect, paired_effect
from wsolkit.training.evaluation import Evaluation, centred_margin, fixed_box_ious
from wsolkit.training.machine import Machine
from wsolkit.training.recipes import Recipe
from wsolkit.training.run_store import Run

METRIC_NAMES = {"top1_loc": "Top-1 Loc", "top5_loc": "Top-5 Loc", "gt_known_loc": "GT-known Loc"}
"""Localization metrics as tables and figures print them."""

V2_NAMES = {
    **{f"max_box_acc_{delta}": f"IoU ≥ {delta}" for delta in IOU_THRESHOLDS},
    "max_box_acc_v2": "MaxBoxAccV2",
}
"""The columns of Tab. 4: box accuracy at each IoU threshold, and their mean."""

PXAP_NAMES = {"pxap": "PxAP"}

BLOCK = ["dataset", "backbone"]
"""What divides a table into blocks."""


def run_rows(
    table: str,
    row: str,
    run: Run,
    metrics: Sequence[str],
    dataset: str = "CUB",
    backbone: str = "VGG16",
    map_kind: str = "cam",
) -> pd.DataFrame:
    """The tidy rows of one run: a number each, as a fraction, with what made it.

    Args:
        table: the table they are for.
        row: the table's row.
        run: a finished run.
        metrics: which rates of its test report.
        dataset: the paper's name of the data set.
        backbone: the paper's name of the backbone.
        map_kind: which localization map is judged.
    """
    report = run.report()
    values = [report.rate(metric, map_kind) for metric in metrics]
    count = (report.images["map"] == map_kind).sum()
    rows = {"table": table, "row": row, "metric": list(metrics), "value": values, "count": count}
    return pd.DataFrame(rows).assign(**run.made(), dataset=dataset, backbone=backbone)


def fixed_box_rows(
    table: str, machine: Machine, recipe: Recipe, dataset: str = "CUB", backbone: str = "VGG16"
) -> pd.DataFrame:
    """The tidy rows of boxes that never look at the image: the whole image, and a centred box.

    How large the centred box is was chosen on train-fullsup.

    Args:
        table: the table they are for.
        machine: where the data are.
        recipe: whose data are judged.
        dataset: the paper's name of the data set.
        backbone: the block of the table where they are shown.
    """
    test = machine.open(recipe, "test")
    margins = {"whole image": 0.0, "centred box": centred_margin(machine.open(recipe, "train-fullsup"))}
    parts = []
    for row, margin in margins.items():
        ious = fixed_box_ious(test, margin)
        shares = {delta: (ious >= delta).mean() for delta in IOU_THRESHOLDS}
        values = {f"max_box_acc_{delta}": share for delta, share in shares.items()}
        values |= {"max_box_acc_v2": np.mean(list(shares.values())), "gt_known_loc": shares[GT_KNOWN_IOU]}
        parts.append(pd.DataFrame({"row": row, "metric": list(values), "value": list(values.values())}))
    return concatenate(parts).assign(table=table, count=len(test), dataset=dataset, backbone=backbone)


def concatenate(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One frame of tidy rows from several; a column that a part lacks is empty there."""
    return pd.concat(parts, ignore_index=True)


def read_rows(path: Path) -> pd.DataFrame:
    """Tidy rows back from their CSV, so that tables and figures can be redrawn without a run."""
    return pd.read_csv(path, dtype={"table": str, "recipe": str, "commit": str})


def summarise(rows: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """Mean and deviation over the seeds, beside every number that the paper prints.

    Args:
        rows: tidy rows; values as fractions.
        paper: a published table; its ``method`` is our ``row``, and its ``delta`` a part of our ``metric``.

    Returns:
        Indexed by ``dataset, backbone, row, metric``: the paper's rows as printed. A row that only another
        block prints stands where it does there, one that none prints at the end.
        Columns ``mean_pct``, ``sd_pct`` (sample deviation, empty for a single seed), ``seeds``, ``paper_pct``,
        ``difference_pct``; what was not measured, or not printed, is empty.
    """
    index = [*BLOCK, "row", "metric"]
    suffix = paper["delta"].map(lambda delta: f"_{delta}" if delta else "")
    printed = paper.assign(row=paper["method"], metric=paper["metric"] + suffix).set_index(index)["value"]
    wanted = rows[rows["metric"].isin(printed.index.unique("metric"))]
    groups = wanted.groupby(index, sort=False)["value"]
    keys = sorted(dict.fromkeys([*printed.index, *groups.indices]), key=_paper_order(printed.index))
    table = pd.DataFrame(index=pd.MultiIndex.from_tuples(keys, names=index))
    table["mean_pct"], table["sd_pct"], table["seeds"] = groups.mean() * 100, groups.std() * 100, groups.size()
    table["paper_pct"] = printed
    return table.assign(difference_pct=table["mean_pct"] - table["paper_pct"])


def _paper_order(printed: pd.MultiIndex) -> Callable[[tuple], tuple]:
    """Sort key: blocks and rows as printed; a row that only another block prints stands where it does there."""
    rows: dict[tuple, list[str]] = {}
    for *block, row in dict.fromkeys(printed.droplevel("metric")):
        rows.setdefault(tuple(block), []).append(row)
    blocks = list(rows)

    def position(key: tuple) -> tuple:
        block, row = key[:2], key[2]
        if row in rows[block]:
            return blocks.index(block), rows[block].index(row), 1
        return blocks.index(block), min((each.index(row) for each in rows.values() if row in each), default=math.inf), 0

    return position


def block(summary: pd.DataFrame, dataset: str = "CUB", backbone: str = "VGG16") -> pd.DataFrame:
    """The part of a summary for one data set and backbone, indexed by ``row`` and ``metric``."""
    return summary.xs((dataset, backbone), level=BLOCK)


def right(report: Evaluation, metric: str = "gt_known_loc", map_kind: str = "cam") -> np.ndarray:
    """Whether each image (N,) counts as localized.

    Args:
        report: the evaluation of a run.
        metric: ``gt_known_loc``, ``top1_loc``, ``top5_loc`` or ``max_box_acc_<delta>``.
        map_kind: which localization map is judged.
    """
    images = report.images[report.images["map"] == map_kind]
    delta = float(metric.rsplit("_", 1)[1]) if metric.startswith("max_box_acc_") else GT_KNOWN_IOU
    hits = images[f"iou_{delta}"] >= delta
    return (hits & images[metric.removesuffix("_loc")] if metric.startswith("top") else hits).to_numpy()


def effects(
    runs: Mapping[str, Sequence[Run]], comparisons: Mapping[str, tuple[str, str]], metric: str = "gt_known_loc"
) -> pd.DataFrame:
    """How much one row has above another, with an interval.

    Args:
        runs: by row, one run a seed, in the same order everywhere.
        comparisons: by name, the row to judge and the row to compare it with.
        metric: as in `right`.

    Returns:
        Indexed by name: ``effect_pct``, ``low_pct`` and ``high_pct`` (95%, bootstrap paired over seeds and images),
        ``clear`` (the interval leaves out 0).
    """
    hits = {row: stacked(group, metric) for row, group in runs.items()}
    found = [paired_effect(hits[row], hits[baseline]) for row, baseline in comparisons.values()]
    return effect_frame(dict(zip(comparisons, found, strict=True)))


def stacked(runs: Sequence[Run], metric: str = "gt_known_loc", map_kind: str = "cam") -> np.ndarray:
    """What `right` gives, for one run a seed: (S, N) bool."""
    return np.stack([right(run.report(), metric, map_kind) for run in runs])


def concatenate_effects(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One frame of effects from several."""
    return pd.concat(parts)


def effect_frame(found: Mapping[str, Effect]) -> pd.DataFrame:
    """Effects by name, in percent; see `effects`."""
    columns = {
        "effect_pct": [effect.difference * 100 for effect in found.values()],
        "low_pct": [effect.low * 100 for effect in found.values()],
        "high_pct": [effect.high * 100 for effect in found.values()],
        "clear": [effect.clear for effect in found.values()],
    }
    return pd.DataFrame(columns, index=pd.Index(list(found), name="row"))


def effect_lines(effect: pd.DataFrame, caption: str) -> Styler:
    """A small table of effects: points with their interval, and whether chance explains them.

    Args:
        effect: from `effects`.
        caption: a line above the table.
    """
    verdicts = effect["clear"].map({True: "yes", False: "no: the interval holds 0"})
    table = pd.DataFrame({"points [95%]": effect.apply(interval, axis=1), "beyond chance": verdicts})
    return styled(table.rename_axis(None), caption)


def beside_paper(
    summary: pd.DataFrame, names: Mapping[str, str], caption: str, effect: pd.DataFrame | None = None
) -> Styler:
    """The table as a reader wants it: for each metric the paper's number, what was measured here, and the difference.

    Args:
        summary: from `summarise`, or one `block` of it.
        names: metrics in order, with their printed names.
        caption: a line above the table; it names the profile.
        effect: from `effects`, for a table of one block; shown as a last column.
    """
    columns = {}
    for metric, name in names.items():
        part = summary.xs(metric, level="metric")
        columns[name, "paper"] = part["paper_pct"].map(_long if "loc" in metric else _short)
        columns[name, "here"] = part.apply(_mean_and_deviation, axis=1)
        columns[name, "difference"] = part["difference_pct"].map(_signed)
    if effect is not None:
        columns["GT-known Loc above the first row", "points [95%]"] = effect.apply(interval, axis=1)
    order = list(dict.fromkeys(summary.index.droplevel("metric")))
    index = pd.MultiIndex.from_tuples(order) if isinstance(order[0], tuple) else pd.Index(order)
    return styled(pd.DataFrame(columns).reindex(index).fillna(""), caption)


VERDICT_MARKS = {"reproduced": "✓", "not reproduced": "✗", "inconclusive": "?", "not measured": "–"}


def verdicts(board: pd.DataFrame, caption: str) -> Styler:
    """The scoreboard of `wsolkit.study.claims`, with a mark before each verdict.

    Args:
        board: indexed by claim; columns ``where, text, measured, verdict``.
        caption: a line above the table; it names the profile.
    """
    marked = board["verdict"].map(lambda verdict: f"{VERDICT_MARKS[verdict]} {verdict}")
    shown = board[["where", "text", "measured"]].assign(verdict=marked).rename_axis(None)
    return styled(shown, caption).set_properties(**{"text-align": "left", "white-space": "normal"})


_LOOK = [
    {"selector": "caption", "props": "caption-side: top; text-align: left; font-weight: bold; padding: 4px 0"},
    {"selector": "th", "props": "text-align: right"},
    {"selector": "th.row_heading", "props": "text-align: left; white-space: nowrap; vertical-align: top"},
]


def styled(table: pd.DataFrame, caption: str) -> Styler:
    """A table in the house style, with a line above it."""
    return (
        table.style.set_caption(caption)
        .set_table_styles(_LOOK)
        .set_properties(**{"text-align": "right", "white-space": "nowrap"})
    )


def interval(row: pd.Series) -> str:
    """An effect in points with its interval, as printed."""
    return f"{row.effect_pct:+.1f} [{row.low_pct:+.1f}, {row.high_pct:+.1f}]"


def _mean_and_deviation(row: pd.Series) -> str:
    if np.isnan(row.mean_pct):
        return ""
    return f"{row.mean_pct:.1f}" if np.isnan(row.sd_pct) else f"{row.mean_pct:.1f} ± {row.sd_pct:.1f}"


def _long(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}"


def _short(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.1f}"


def _signed(value: float) -> str:
    return "" if np.isnan(value) else f"{value:+.1f}"
