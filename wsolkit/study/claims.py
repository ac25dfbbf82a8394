"""The paper's statements as checks on runs: reproduced, not reproduced, or inconclusive; the verdict is computed.

A claim is one or more comparisons of two quantities, each judged by the 95% interval of their difference (bootstrap
paired over seeds and images). A quantity has one value for each seed and image, or one for each seed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from torch import Tensor

from wsolkit import methods
from wsolkit.datasets import OpenedDataset
from wsolkit.errors import unknown
from wsolkit.maps import min_max, score_map
from wsolkit.metrics import IOU_THRESHOLDS, BoxMeter
from wsolkit.study import distributions, sweeps, tables
from wsolkit.study.statistics import Effect, paired_effect
from wsolkit.study.study import Study
from wsolkit.training.evaluation import MAP_KINDS, Evaluation, raw_maps_of
from wsolkit.training.run_store import Run

Verdict = Literal["reproduced", "not reproduced", "inconclusive", "not measured"]

SEEN = 0.1
"""Thresholds at which neither network localizes this share of images tell nothing about the order of two curves."""

CHUNK = 256
"""Score maps held in memory at once."""

Experiment = tuple[tuple[str, Any], ...]
"""Keyword arguments of `wsolkit.study.study.Study.recipe`, as a key."""


def experiment(*losses: str, **more: Any) -> Experiment:
    """An experiment from its loss terms and anything else that `wsolkit.study.study.Study.recipe` takes."""
    return (("losses", losses), *sorted(more.items()))


@dataclass(frozen=True)
class Comparison:
    """One difference and what the paper says of it.

    Attributes:
        ours: the experiment that is judged.
        baseline: the one it is compared with.
        quantity: a name in :data:`QUANTITIES`, of ``ours``.
        baseline_quantity: the same of ``baseline``; None for the same quantity.
        relation: ``"above"``: the difference is more than ``margin``; ``"within"``: it is at most ``margin``, whatever
            its sign.
        margin: in the unit of the quantity; a fraction for rates.
    """

    ours: Experiment
    baseline: Experiment
    quantity: str = "gt_known_loc"
    baseline_quantity: str | None = None
    relation: Literal["above", "within"] = "above"
    margin: float = 0.0


@dataclass(frozen=True)
class Claim:
    """A statement of the paper.

    Attributes:
        name: short, unique.
        where: where the paper says it.
        text: what it says.
        comparisons: all must hold.
    """

    name: str
    where: str
    text: str
    comparisons: tuple[Comparison, ...] = ()

    def __post_init__(self):
        """Check the names of the quantities.

        Raises:
            RecipeError: for one that is unknown.
        """
        for comparison in self.comparisons:
            for quantity in (comparison.quantity, comparison.baseline_quantity or comparison.quantity):
                if quantity not in QUANTITIES:
                    raise unknown("quantity", quantity, QUANTITIES)


def judge(effect: Effect | None, relation: str, margin: float, seeds: int) -> Verdict:
    """What an interval says of a statement.

    Args:
        effect: the measured difference, or None.
        relation: as in `Comparison`.
        margin: as in `Comparison`.
        seeds: how many the interval covers; one seed says nothing of the chance between trainings.

    Returns:
        ``"reproduced"`` where the whole interval agrees, ``"not reproduced"`` where none of it does.
    """
    if effect is None:
        return "not measured"
    if seeds < 2:
        return "inconclusive"
    if relation == "within":
        inside = -margin <= effect.low and effect.high <= margin
        outside = effect.low > margin or effect.high < -margin
    else:
        inside, outside = effect.low > margin, effect.high <= margin
    return "reproduced" if inside else "not reproduced" if outside else "inconclusive"


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on a claim of several parts: it holds if all do, and fails if one does; all must be measured."""
    worst_first: tuple[Verdict, ...] = ("not measured", "not reproduced", "inconclusive", "reproduced")
    return next(verdict for verdict in worst_first if verdict in verdicts)


class Measured:
    """What can be measured of one run; the network is run once, whatever is asked for."""

    def __init__(self, study: Study, run: Run):
        """Take a finished run; its data are opened where a quantity needs pictures."""
        self.study, self.run = study, run

    @cached_property
    def report(self) -> Evaluation:
        """The run's own report."""
        return self.run.report()

    @cached_property
    def data(self) -> OpenedDataset:
        """Its test split."""
        return self.study.store.machine.open(self.run.recipe, "test")

    @cached_property
    def raw(self) -> dict[str, Tensor]:
        """All kinds of maps of the test split, (N, H, W) each."""
        model = self.run.model(device=self.study.device)
        return raw_maps_of(model, self.data, range(len(self.data)), tuple(MAP_KINDS))


class Evidence:
    """Quantities of experiments, each measured once."""

    def __init__(self, study: Study, runs: Mapping[tuple[Experiment, bool], Sequence[Run]]):
        """Take finished runs.

        Args:
            study: the notebook's study.
            runs: of each experiment, one run a seed; see `wanted`.
        """
        self._runs = runs
        self._known: dict[tuple[Experiment, str, bool], np.ndarray] = {}
        self._measured = {run.recipe: Measured(study, run) for group in runs.values() for run in group}

    def values(self, experiment: Experiment, quantity: str, few: bool) -> np.ndarray:
        """A quantity: (S, N) for S seeds and N images, or (S, N, T) where it must hold at each of T thresholds."""
        key = experiment, quantity, few
        if key not in self._known:
            runs = self._runs[experiment, few]
            self._known[key] = np.stack([QUANTITIES[quantity](self._measured[run.recipe]) for run in runs])
        return self._known[key]

    def seeds(self, comparison: Comparison) -> int:
        """How many seeds a comparison has."""
        return len(self._runs.get((comparison.ours, at_few_seeds(comparison)), ()))

    def effects(self, comparison: Comparison) -> list[Effect]:
        """The difference of a comparison, with its interval; of curves, one at each threshold that tells something.

        Returns:
            Nothing where an experiment of the comparison has no runs.
        """
        few = at_few_seeds(comparison)
        if not {(comparison.ours, few), (comparison.baseline, few)} <= set(self._runs):
            return []
        ours = self.values(comparison.ours, comparison.quantity, few)
        baseline = self.values(comparison.baseline, comparison.baseline_quantity or comparison.quantity, few)
        if ours.ndim == 2:
            return [paired_effect(ours, baseline)]
        seen = np.maximum(ours.mean((0, 1)), baseline.mean((0, 1))) >= SEEN
        differ = (ours != baseline).any((0, 1))  # at threshold 0, say, any map's box is the whole image
        return [paired_effect(ours[..., t], baseline[..., t]) for t in np.flatnonzero(seen & differ)]


def at_few_seeds(comparison: Comparison) -> bool:
    """Whether only the seeds of the sweeps are asked for: many settings are compared where little should change."""
    changed = any(name in sweeps.SWEEPS for name, _ in (*comparison.ours, *comparison.baseline))
    return changed and comparison.relation == "within"


def wanted(claims: Sequence[Claim]) -> dict[bool, dict[Experiment, dict[str, Any]]]:
    """The experiments behind claims, for `Study.train_at`: at all seeds, and at those of the sweeps."""
    found: dict[bool, dict[Experiment, dict[str, Any]]] = {False: {}, True: {}}
    for claim in claims:
        for comparison in claim.comparisons:
            for each in (comparison.ours, comparison.baseline):
                found[at_few_seeds(comparison)][each] = dict(each)
    return found


def check(claims: Sequence[Claim], evidence: Evidence) -> pd.DataFrame:
    """Every comparison of every claim, measured.

    Returns:
        Columns ``claim, where, text, part, quantity, relation, margin, difference, low, high, seeds, part_verdict,
        verdict``; the last is that of the whole claim. Of curves, a threshold that decided is shown.
    """
    rows = []
    for claim in claims:
        found = [_part(comparison, evidence) for comparison in claim.comparisons]
        verdicts = [verdict for _, verdict in found]
        for comparison, (effect, verdict) in zip(claim.comparisons, found, strict=True):
            said = {"claim": claim.name, "where": claim.where, "text": claim.text, "part": describe(comparison)}
            asked = {"quantity": comparison.quantity, "relation": comparison.relation, "margin": comparison.margin}
            measured = {name: getattr(effect, name, np.nan) for name in ("difference", "low", "high")}
            measured["seeds"] = evidence.seeds(comparison)
            rows.append(said | asked | measured | {"part_verdict": verdict, "verdict": together(verdicts)})
    return pd.DataFrame(rows)


def _part(comparison: Comparison, evidence: Evidence) -> tuple[Effect | None, Verdict]:
    effects, seeds = evidence.effects(comparison), evidence.seeds(comparison)
    measured: list[Effect | None] = [*effects] or [None]
    verdicts = [judge(effect, comparison.relation, comparison.margin, seeds) for effect in measured]
    overall = together(verdicts)
    decisive = [effect for effect, verdict in zip(effects, verdicts, strict=False) if verdict == overall]
    return min(decisive, key=lambda effect: effect.low, default=None), overall


def describe(comparison: Comparison) -> str:
    """A comparison in words."""
    names = [_name(each) for each in (comparison.ours, comparison.baseline)]
    other = comparison.baseline_quantity
    quantities = comparison.quantity if other in (None, comparison.quantity) else f"{comparison.quantity} and {other}"
    between = f"{names[0]} against {names[1]}" if names[0] != names[1] else names[0]
    return f"{quantities}: {between}"


def _name(each: Experiment) -> str:
    terms = dict(each)
    losses = methods.join_terms(terms.pop("losses"))
    return ", ".join([losses, *(f"{name} {value}" for name, value in terms.items())])


def _rate(metric: str, map_kind: str = "cam") -> Callable[[Measured], np.ndarray]:
    return lambda of: tables.right(of.report, metric, map_kind).astype(float)


def _share(holds: Callable[[np.ndarray], np.ndarray]) -> Callable[[Measured], np.ndarray]:
    """Share of the cells inside an image's boxes; 0 where no cell has its centre in a box."""

    def statistic(of: Measured) -> np.ndarray:
        found = distributions.inside_boxes(of.raw["similarity"], of.data)
        return np.array([holds(each).mean() if each.size else 0.0 for each in found])

    return statistic


def _curves(of: Measured) -> np.ndarray:
    """Whether each image is localized at each score-map threshold and IoU threshold: (N, T)."""
    data = of.data
    meter, parts = BoxMeter(IOU_THRESHOLDS, of.run.recipe.threshold_step, threads=of.study.jobs), []
    for start in range(0, len(data), CHUNK):
        boxes = [data[i].boxes for i in range(start, min(start + CHUNK, len(data)))]
        ious = meter.update(score_map(of.raw["cam"][start : start + CHUNK], data.size), boxes)
        parts.append(np.concatenate([ious >= delta for delta in IOU_THRESHOLDS], axis=1))
    return np.concatenate(parts)


QUANTITIES: Mapping[str, Callable[[Measured], np.ndarray]] = {
    **{metric: _rate(metric) for metric in tables.METRIC_NAMES},
    **{f"max_box_acc_{delta}": _rate(f"max_box_acc_{delta}") for delta in IOU_THRESHOLDS},
    "gt_known_loc of F": _rate("gt_known_loc", "norm"),
    "gt_known_loc of S": _rate("gt_known_loc", "similarity"),
    "pxap": lambda of: np.array([of.report.rate("pxap")]),
    "share of negative S in boxes": _share(lambda cells: cells < 0),
    "share of large S in boxes": _share(lambda cells: cells > distributions.LARGE_SIMILARITY),
    "mean normalised F": lambda of: min_max(of.raw["norm"]).mean((1, 2)).numpy(),
    "largest F": lambda of: of.raw["norm"].amax((1, 2)).numpy(),
    "box accuracy at every threshold": _curves,
}
"""What can be compared: a value for each image (N,), or image and threshold (N, T), of a run."""


def scoreboard(checked: pd.DataFrame) -> pd.DataFrame:
    """One row a claim, from `check`: ``claim, where, text, measured, verdict``.

    ``measured`` is the part that decided: the first with the claim's own verdict, and how many parts there are.
    """
    rows = []
    for name, parts in checked.groupby("claim", sort=False):
        decisive = parts[parts["part_verdict"] == parts["verdict"]].iloc[0]
        said = {"claim": name, "where": decisive["where"], "text": decisive["text"]}
        rows.append(said | {"measured": _measured(decisive, len(parts)), "verdict": decisive["verdict"]})
    return pd.DataFrame(rows)


def _measured(part: pd.Series, parts: int) -> str:
    more = f" (shown: one of {parts} parts)" if parts > 1 else ""
    if np.isnan(part["difference"]):
        return f"{part['part']}: not measured{more}"
    limit = "" if not part["margin"] else f", asked {'within ±' if part['relation'] == 'within' else 'above '}"
    scale, unit = (1, "") if part["quantity"] == "largest F" else (100, " points")
    asked = limit and f"{limit}{part['margin'] * scale:g}{unit}"
    low, high = part["low"] * scale, part["high"] * scale
    alone = ", one seed" if part["seeds"] == 1 else ""
    return f"{part['part']}: {part['difference'] * scale:+.1f} [{low:+.1f}, {high:+.1f}]{unit}{asked}{alone}{more}"
