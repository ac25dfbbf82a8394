"""Runs to tidy rows, tidy rows to a table beside the paper's numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from wsolkit.datasets import CachedDataset
from wsolkit.evaluation import fixed_box_ious
from wsolkit.metrics import GT_KNOWN_IOU
from wsolkit.runs import Run
from wsolkit.statistics import paired_effect

METRIC_NAMES = {"top1_loc": "Top-1 Loc", "top5_loc": "Top-5 Loc", "gt_known_loc": "GT-known Loc"}
"""Localization metrics as tables and figures print them."""


def run_rows(table: str, row: str, run: Run, metrics: Sequence[str]) -> pd.DataFrame:
    """The tidy rows of one run: a number each, as a fraction, with what made it.

    Args:
        table: the table they are for.
        row: the table's row.
        run: a finished run.
        metrics: which rates of its test report.
    """
    report = run.report()
    values = [report.rate(metric) for metric in metrics]
    count = (report.images["map"] == "cam").sum()
    rows = {"table": table, "row": row, "metric": list(metrics), "value": values, "count": count}
    made = run.info()
    known = {"seed": run.recipe.seed, "recipe": run.recipe.key, "version": made["wsolkit"], "commit": made["commit"]}
    return pd.DataFrame(rows).assign(**known)


def fixed_box_rows(table: str, margins: Mapping[str, float], data: CachedDataset) -> pd.DataFrame:
    """The tidy rows of boxes that never look at the image.

    Args:
        table: the table they are for.
        margins: by row, the margin on each side as a share of the image's side.
        data: the test split.
    """
    values = [(fixed_box_ious(data, margin) >= GT_KNOWN_IOU).mean() for margin in margins.values()]
    rows = {"table": table, "row": list(margins), "metric": "gt_known_loc", "value": values, "count": len(data)}
    return pd.DataFrame(rows)


def concatenate(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One frame of tidy rows from several; a column that a part lacks is empty there."""
    return pd.concat(parts, ignore_index=True)


def read_rows(path: Path) -> pd.DataFrame:
    """Tidy rows back from their CSV, so that tables and figures can be redrawn without a run."""
    return pd.read_csv(path, dtype={"table": str, "recipe": str, "commit": str})


def summarise(rows: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """Mean and deviation over the seeds, beside the paper's number.

    Args:
        rows: tidy rows; values as fractions.
        paper: a published table; its ``method`` is our ``row``.

    Returns:
        Indexed by ``row`` and ``metric`` in the order of ``rows``: ``mean_pct``, ``sd_pct`` (sample deviation, empty
        for a single seed), ``seeds``, ``paper_pct``, ``difference_pct``.
    """
    groups = rows.groupby(["row", "metric"], sort=False)["value"]
    table = pd.DataFrame({"mean_pct": groups.mean() * 100, "sd_pct": groups.std() * 100, "seeds": groups.size()})
    printed = paper.set_index(["method", "metric"])["value"].rename_axis(["row", "metric"])
    table["paper_pct"] = printed.reindex(table.index)
    return table.assign(difference_pct=table["mean_pct"] - table["paper_pct"])


def effects(runs: Mapping[str, Sequence[Run]], comparisons: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """How much GT-known Loc one row has above another, with an interval.

    Args:
        runs: by row, one run a seed, in the same order everywhere.
        comparisons: by name, the row to judge and the row to compare it with.

    Returns:
        Indexed by name: ``effect_pct``, ``low_pct`` and ``high_pct`` (95%, bootstrap paired over seeds and images),
        ``clear`` (the interval leaves out 0).
    """
    right = {row: np.stack([_right_boxes(run) for run in group]) for row, group in runs.items()}
    found = [paired_effect(right[row], right[baseline]) for row, baseline in comparisons.values()]
    columns = {
        "effect_pct": [effect.difference * 100 for effect in found],
        "low_pct": [effect.low * 100 for effect in found],
        "high_pct": [effect.high * 100 for effect in found],
        "clear": [effect.clear for effect in found],
    }
    return pd.DataFrame(columns, index=pd.Index(list(comparisons), name="row"))


def effect_lines(effect: pd.DataFrame, caption: str) -> Styler:
    """A small table of effects: points with their interval, and whether chance explains them.

    Args:
        effect: from `effects`.
        caption: a line above the table.
    """
    verdicts = effect["clear"].map({True: "yes", False: "no: the interval holds 0"})
    table = pd.DataFrame({"points [95%]": effect.apply(_interval, axis=1), "beyond chance": verdicts})
    return _styled(table.rename_axis(None), caption)


def beside_paper(summary: pd.DataFrame, effect: pd.DataFrame, caption: str) -> Styler:
    """The table as a reader wants it: for each metric ours, the paper's and the difference; then the effect.

    Args:
        summary: from `summarise`.
        effect: from `effects`.
        caption: a line above the table; it names the profile.
    """
    columns = {}
    for metric in summary.index.unique("metric"):
        part, name = summary.xs(metric, level="metric"), METRIC_NAMES[metric]
        columns[name, "ours"] = part.apply(_mean_and_deviation, axis=1)
        columns[name, "paper"] = part["paper_pct"].map(_plain)
        columns[name, "difference"] = part["difference_pct"].map(_signed)
    columns["GT-known Loc above the first row", "points [95%]"] = effect.apply(_interval, axis=1)
    table = pd.DataFrame(columns, index=summary.index.unique("row")).fillna("")
    return _styled(table, caption)


_LOOK = [
    {"selector": "caption", "props": "caption-side: top; text-align: left; font-weight: bold; padding: 4px 0"},
    {"selector": "th", "props": "text-align: right"},
    {"selector": "th.row_heading", "props": "text-align: left; white-space: nowrap"},
]


def _styled(table: pd.DataFrame, caption: str) -> Styler:
    return (
        table.style.set_caption(caption)
        .set_table_styles(_LOOK)
        .set_properties(**{"text-align": "right", "white-space": "nowrap"})
    )


def _right_boxes(run: Run) -> np.ndarray:
    images = run.report().images
    return (images.loc[images["map"] == "cam", "iou"] >= GT_KNOWN_IOU).to_numpy()


def _mean_and_deviation(row: pd.Series) -> str:
    return f"{row.mean_pct:.1f}" if np.isnan(row.sd_pct) else f"{row.mean_pct:.1f} ± {row.sd_pct:.1f}"


def _interval(row: pd.Series) -> str:
    return f"{row.effect_pct:+.1f} [{row.low_pct:+.1f}, {row.high_pct:+.1f}]"


def _plain(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}"


def _signed(value: float) -> str:
    return "" if np.isnan(value) else f"{value:+.1f}"
