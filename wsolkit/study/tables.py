"""Finished runs to tidy rows, and tidy rows to a table beside the paper's numbers."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from wsolkit.errors import RecipeError, require_known
from wsolkit.metrics import GT_KNOWN_IOU, IOU_THRESHOLDS
from wsolkit.study.statistics import paired_effect
from wsolkit.training.evaluation import NORMALISED_KINDS, Evaluation, centred_margin, fixed_box_ious
from wsolkit.training.machine import Machine
from wsolkit.training.run_store import Run

#: Localization metrics, with the names that tables and figures print.
METRIC_NAMES = {"top1_loc": "Top-1 Loc", "top5_loc": "Top-5 Loc", "gt_known_loc": "GT-known Loc"}

#: The columns of Tab. 4: box accuracy at each IoU threshold, and their mean.
V2_NAMES = {f"max_box_acc_{delta}": f"IoU ≥ {delta}" for delta in IOU_THRESHOLDS} | {"max_box_acc_v2": "MaxBoxAccV2"}

#: The column of Tab. A1.
PXAP_NAMES = {"pxap": "PxAP"}

#: GT-known Loc where the largest box covers at most a profile's share of the image (`Profile.judged_share`).
SMALL = "gt_known_loc of small"

NAMES = METRIC_NAMES | V2_NAMES | PXAP_NAMES

#: Levels that divide a table into blocks.
BLOCK = ["dataset", "backbone"]

#: Data set, backbone and name of a row.
Place = tuple[str, str, str]

#: By row, the runs that are judged, one per seed, each with the kind of localization map.
Judged = Mapping[Place, Sequence[tuple[Run, str]]]


@dataclass(frozen=True, eq=False)
class Table:
    """A table of the paper with our numbers beside it; a notebook shows it as HTML.

    Attributes:
        caption: the line above it: number, profile and seeds.
        profile: name of the profile.
        names: its metrics in order, with their printed names.
        summary: from `summarise`; with a baseline also the columns of `effects`, in the lines of GT-known Loc.
        effects: from `effects`, one line per comparison; empty if none was asked for.
        baseline: the row that the table's last column compares with.
    """

    caption: str
    profile: str
    names: Mapping[str, str]
    summary: pd.DataFrame = field(repr=False)
    effects: pd.DataFrame = field(repr=False)
    baseline: str | None = None

    def beside_paper(self) -> Styler:
        """For each metric the paper's number, ours as mean ± deviation over the seeds, and the difference."""
        blocks = self.summary.index.droplevel(["row", "metric"]).unique()
        shown = self.summary.droplevel(BLOCK) if len(blocks) == 1 else self.summary
        columns = {}
        for metric, name in self.names.items():
            part = shown.xs(metric, level="metric")
            here = _printed(part["mean_pct"], "{:.1f}") + _printed(part["sd_pct"], " ± {:.1f}")
            if metric == SMALL:  # the paper has no such number
                columns[name, "here"] = here
                continue
            columns[name, "paper"] = _printed(part["paper_pct"], "{:.2f}" if "loc" in metric else "{:.1f}")
            columns[name, "here"] = here
            columns[name, "difference"] = _printed(part["difference_pct"], "{:+.1f}")
        if self.baseline and "gt_known_loc" in self.names:
            effect = shown.xs("gt_known_loc", level="metric").dropna(subset="effect_pct")
            columns[f"GT-known Loc above {self.baseline}", "points [95%]"] = effect.apply(interval, axis=1)
        frame = pd.DataFrame(columns).reindex(shown.index.droplevel("metric").unique()).fillna("")
        return styled(frame.rename_axis([None] * frame.index.nlevels), self.caption)

    def compared(self, caption: str) -> Styler:
        """Each comparison in points with its interval, and whether chance could explain it.

        Args:
            caption: what is compared; the profile's name is added.
        """
        verdicts = self.effects["clear"].map({True: "yes", False: "no: the interval contains 0"})
        shown = pd.DataFrame({"points [95%]": self.effects.apply(interval, axis=1), "beyond chance": verdicts})
        return styled(shown.rename_axis(None), f"{caption}, profile {self.profile}")

    def _repr_html_(self) -> str:
        return self.beside_paper().to_html()


def base_of(row: str) -> tuple[str, str]:
    """Whose runs a row of the paper shows, and which map is judged: ``ADL + IVR`` is ADL by another normalisation."""
    base, _, kind = (part.strip() for part in row.rpartition("+"))
    return (base, kind.lower()) if kind.lower() in NORMALISED_KINDS else (row, "cam")


def names_of(paper: pd.DataFrame, metrics: Sequence[str] | None = None) -> dict[str, str]:
    """Printed names by metric: of the given metrics, or of those in a published table."""
    printed = set(_metric(paper))
    chosen = [name for name in NAMES if name in printed] if metrics is None else metrics
    return {name: NAMES.get(name, name) for name in chosen}


def place(key: str | Place, paper: pd.DataFrame) -> Place:
    """The place of a row: a name alone stands for the only block of the paper's table.

    Raises:
        RecipeError: if the table has several blocks, and the key does not say which.
    """
    if not isinstance(key, str):
        return key
    (dataset, backbone), *others = paper[BLOCK].drop_duplicates().itertuples(index=False, name=None)
    if others:
        raise RecipeError(f"Row {key!r}: the table has several blocks. Expected keys such as {dataset, backbone, key}.")
    return dataset, backbone, key


def tidy_rows(
    number: str,
    judged: Judged,
    metrics: Iterable[str],
    machine: Machine,
    fixed_boxes: bool = True,
    judged_share: float | None = None,
) -> pd.DataFrame:
    """The tidy rows of a table: one per row, seed and metric, a fraction, with the run that gave it.

    Args:
        number: the table's number.
        judged: the runs of each row.
        metrics: rates of the runs' test reports.
        machine: where the data are.
        fixed_boxes: whether each block ends with two boxes that never look at the image; see `fixed_box_rows`.
        judged_share: also give :data:`SMALL`, for images whose largest box covers at most this share; None does not.
    """
    parts = []
    asked = [metric for metric in metrics if metric != SMALL]
    for block in dict.fromkeys(key[:2] for key in judged):
        where = dict(zip(BLOCK, block, strict=True))
        first = next(group[0][0] for key, group in judged.items() if key[:2] == block)
        small = None
        if judged_share is not None:
            small = machine.source(first.recipe, "test").box_shares() <= judged_share
        for (*_, row), group in ((key, group) for key, group in judged.items() if key[:2] == block):
            for run, kind in group:
                report = run.report()
                values = {metric: report.rate(metric, kind) for metric in asked}
                if small is not None:
                    values[SMALL] = right(report, map_kind=kind)[small].mean()
                made = {"count": (report.images["map"] == kind).sum(), **run.made()}
                parts.append(_frame(values).assign(row=row, **made, **where))
        if fixed_boxes and set(asked) - set(PXAP_NAMES):  # data judged by masks may have no boxes
            parts.append(fixed_box_rows(machine, first, small).assign(**where))
    return pd.concat(parts, ignore_index=True).assign(table=number)


def fixed_box_rows(machine: Machine, run: Run, small: np.ndarray | None = None) -> pd.DataFrame:
    """The tidy rows of two boxes that never look at the image: the whole image, and a centred box.

    The size of the centred box is chosen on train-fullsup.

    Args:
        machine: where the data are.
        run: the run whose data are judged.
        small: (N,) which images also count for :data:`SMALL`; None gives no such row.
    """
    test = machine.open(run.recipe, "test")
    margins = {"whole image": 0.0, "centred box": centred_margin(machine.open(run.recipe, "train-fullsup"))}
    parts = []
    for row, margin in margins.items():
        ious = fixed_box_ious(test, margin)
        values = {f"max_box_acc_{delta}": (ious >= delta).mean() for delta in IOU_THRESHOLDS}
        values |= {"max_box_acc_v2": np.mean(list(values.values())), "gt_known_loc": (ious >= GT_KNOWN_IOU).mean()}
        if small is not None:
            values[SMALL] = (ious >= GT_KNOWN_IOU)[small].mean()
        parts.append(_frame(values).assign(row=row, count=len(test)))
    return pd.concat(parts)


def _frame(values: Mapping[str, float]) -> pd.DataFrame:
    return pd.DataFrame({"metric": list(values), "value": list(values.values())})


def summarise(rows: pd.DataFrame, paper: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Mean and deviation over the seeds, beside every number that the paper prints.

    Args:
        rows: tidy rows; values as fractions.
        paper: a published table; its ``method`` is our ``row``, and its ``delta`` a part of our ``metric``.
        metrics: which metrics to keep.

    Returns:
        Indexed by ``dataset, backbone, row, metric``, in the paper's order. A row that only another block prints
        stands where it does there; one that the paper does not have comes last.
        Columns ``mean_pct``, ``sd_pct`` (sample deviation, empty for a single seed), ``seeds``, ``paper_pct``,
        ``difference_pct``; empty where nothing was measured or printed.
    """
    index = [*BLOCK, "row", "metric"]
    printed = paper.assign(row=paper["method"], metric=_metric(paper)).query("metric in @metrics")
    groups = rows.query("metric in @metrics").groupby(index, sort=False)["value"]
    keys = list(dict.fromkeys([*printed[index].itertuples(index=False, name=None), *groups.indices]))
    blocks = list(dict.fromkeys(key[:2] for key in keys))
    places = printed[index[:3]].drop_duplicates()
    places["place"] = places.groupby(BLOCK).cumcount()
    own, elsewhere = places.set_index(index[:3])["place"], places.groupby("row")["place"].min() - 0.5
    keys.sort(key=lambda key: (blocks.index(key[:2]), own.get(key[:3], elsewhere.get(key[2], math.inf))))
    table = pd.DataFrame(index=pd.MultiIndex.from_tuples(keys, names=index))
    table["mean_pct"], table["sd_pct"], table["seeds"] = groups.mean() * 100, groups.std() * 100, groups.size()
    table["paper_pct"] = printed.set_index(index)["value"]
    return table.assign(difference_pct=table["mean_pct"] - table["paper_pct"])


def right(report: Evaluation, metric: str = "gt_known_loc", map_kind: str = "cam") -> np.ndarray:
    """Whether each image (N,) counts as localized.

    Args:
        report: the evaluation of a run.
        metric: ``gt_known_loc``, ``top1_loc``, ``top5_loc`` or ``max_box_acc_<delta>``.
        map_kind: the localization map that is judged.
    """
    images = report.images[report.images["map"] == map_kind]
    delta = float(metric.rsplit("_", 1)[1]) if metric.startswith("max_box_acc_") else GT_KNOWN_IOU
    hits = images[f"iou_{delta}"] >= delta
    return (hits & images[metric.removesuffix("_loc")] if metric.startswith("top") else hits).to_numpy()


def effects(judged: Judged, steps: Mapping[Any, tuple]) -> pd.DataFrame:
    """How far one row lies above another, with an interval.

    Args:
        judged: the runs of each row.
        steps: comparisons by name: a row, the row it is compared with, and, unless it is GT-known Loc, the metric.

    Returns:
        Indexed by name: ``effect_pct``, ``low_pct`` and ``high_pct`` (95%, paired over seeds and images),
        ``clear`` (the interval leaves out 0).

    Raises:
        RecipeError: if there is no such row.
    """
    found = []
    for step in steps.values():
        metric, hits = step[2] if len(step) > 2 else "gt_known_loc", []
        for row in step[:2]:
            require_known("row", row, judged)
            hits.append(np.stack([right(run.report(), metric, kind) for run, kind in judged[row]]))
        effect = paired_effect(hits[0], hits[1])
        found.append((effect.difference * 100, effect.low * 100, effect.high * 100, effect.clear))
    return pd.DataFrame(found, index=pd.Index(steps), columns=["effect_pct", "low_pct", "high_pct", "clear"])


#: Marks before the verdicts on claims.
VERDICT_MARKS = {"reproduced": "✓", "not reproduced": "✗", "inconclusive": "?", "not measured": "–"}


def verdicts(board: pd.DataFrame, caption: str) -> Styler:
    """The scoreboard of `wsolkit.study.claims`, with a mark before each verdict.

    Args:
        board: indexed by claim; columns ``where, text, measured, verdict``.
        caption: the line above the table; it names the profile.
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
    look = {"text-align": "right", "white-space": "nowrap"}
    return table.style.set_caption(caption).set_table_styles(_LOOK).set_properties(**look)


def interval(row: pd.Series) -> str:
    """An effect in points with its interval, as printed."""
    return with_interval(row.effect_pct, row.low_pct, row.high_pct)


def with_interval(difference: float, low: float, high: float) -> str:
    """A difference with its interval, as printed; one seed has none."""
    return f"{difference:+.1f} " + (f"[{low:+.1f}, {high:+.1f}]" if np.isfinite(low) else "(one seed)")


def _metric(paper: pd.DataFrame) -> pd.Series:
    """The published table's metrics by our names."""
    return paper["metric"] + paper["delta"].map(lambda delta: f"_{delta}" if delta else "")


def _printed(values: pd.Series, form: str) -> pd.Series:
    return values.map(form.format).where(values.notna(), "")
