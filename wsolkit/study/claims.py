"""The paper's claims, each checked on runs: reproduced, not reproduced or inconclusive, as computed from intervals.

A claim is one or more comparisons of two measured quantities, each judged by the interval of their difference, paired
over seeds and images. Repetitions are added to what is still open, up to a number planned before the first; the
intervals are as much wider as this asks for (`wsolkit.study.statistics.confidence_at`). The claims themselves are data:
``published/claims.toml``, whose first lines explain how one is written.
"""

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from inspect import signature
from itertools import product
from typing import Annotated, Any, Literal, get_args

import numpy as np
import pandas as pd
import pydantic

from wsolkit import methods, published
from wsolkit.errors import NotInProfileError, require_known
from wsolkit.study import sweeps, tables
from wsolkit.study.quantities import NO_RATES, QUANTITIES, Measured
from wsolkit.study.statistics import Effect, confidence_at, looks, paired_effect
from wsolkit.study.study import Study
from wsolkit.system.plugins import parse_options
from wsolkit.training.profiles import LOSSES, Profile
from wsolkit.training.run_store import Run

Relation = Literal["above", "within"]

#: From the worst to the best: a claim of several parts is as good as its worst.
Verdict = Literal["not measured", "not reproduced", "inconclusive", "reproduced"]

#: Keyword arguments of `wsolkit.study.study.Study.recipe`, as a key; made by `experiment`.
Experiment = tuple[tuple[str, Any], ...]

#: Two points, or 2% of what is no rate: less is not what the paper means by better, and is what its "little" is taken
#: to be.
NEGLIGIBLE = 0.02

#: Where neither network localizes this share of the images, the order of two curves means nothing.
SEEN = 0.1


def experiment(*losses: str, **more: Any) -> Experiment:
    """An experiment from its loss terms and anything else that `wsolkit.study.study.Study.recipe` takes.

    What is left to its default there is left out, so that an experiment has one key, and its runs are paid for once.
    """
    usual = signature(Profile.recipe).parameters
    named = {name: value for name, value in more.items() if name not in usual or value != usual[name].default}
    return (("losses", losses), *sorted(named.items()))


@dataclass(frozen=True)
class Comparison:
    """One difference, and what the paper says about it.

    Attributes:
        ours: the experiment that is judged.
        baseline: the experiment it is compared with.
        quantity: what is measured of ``ours``: a name in `wsolkit.study.quantities.QUANTITIES`.
        baseline_quantity: what is measured of ``baseline``; None for the same quantity.
        relation: ``"above"``: the difference exceeds ``margin``; ``"within"``: its size is ``margin`` at most.
        margin: in the unit of the quantity; a fraction for rates.
        negligible: an ``"above"`` around zero that cannot exceed this is refuted; in the unit of the quantity, and for
            one of `wsolkit.study.quantities.NO_RATES` a share of the baseline's mean.

    Raises:
        RecipeError: for an unknown quantity.
    """

    ours: Experiment
    baseline: Experiment
    quantity: str = "gt_known_loc"
    baseline_quantity: str | None = None
    relation: Relation = "above"
    margin: float = 0.0
    negligible: float = NEGLIGIBLE

    def __post_init__(self):
        """Check the names of the quantities."""
        for quantity in (self.quantity, self.baseline_quantity or self.quantity):
            require_known("quantity", quantity, QUANTITIES)


#: The key by which an experiment names another method.
METHOD = "method"

_Setting = float | list[float] | Literal["lowest", "next above the best", "all but the best"]
_Set = Annotated[dict[str, _Setting], pydantic.Field(min_length=1, max_length=1)]
_Written = str | dict[Literal["method"], str] | _Set
_LISTED = pydantic.BeforeValidator(lambda value: [value] if isinstance(value, str | dict) else value)


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid"))
class Claim:
    """Something that the paper says, as ``published/claims.toml`` writes it; the head of that file has examples.

    Attributes:
        name: short, unique.
        where: where the paper says it.
        text: what it says.
        ours: the experiments that are judged: loss terms, or one hyperparameter of the full method with its setting.
        baseline: what they are compared with.
        quantity: what is measured: names in `wsolkit.study.quantities.QUANTITIES`, or ``"every metric"``.
        baseline_quantity: what is measured of the baseline; None for the same quantity.
        relation: as in `Comparison`.
        margin: as in `Comparison`.
        negligible: as in `Comparison`.
        block: data set and backbone, by the paper's names.
    """

    name: str
    where: str
    text: str
    ours: Annotated[tuple[_Written, ...], _LISTED]
    baseline: Annotated[tuple[_Written, ...], _LISTED]
    quantity: Annotated[tuple[str, ...], _LISTED] = ("gt_known_loc",)
    baseline_quantity: Annotated[tuple[str | None, ...], _LISTED] = (None,)
    relation: Relation = "above"
    margin: float = 0.0
    negligible: float = NEGLIGIBLE
    block: dict[Literal["dataset", "backbone"], str] = field(default_factory=dict)

    def comparisons(self, study: Study) -> list[Comparison]:
        """What must hold, all of it, around the best settings of a study's profile.

        Raises:
            RecipeError: for an unknown quantity or hyperparameter.
            NotInProfileError: if the profile has no stand-in for the data set or the backbone.
        """
        every_metric = self.quantity == ("every metric",)
        measured = _pairs(tuple(tables.METRIC_NAMES) if every_metric else self.quantity, self.baseline_quantity)
        pairs = _pairs(*(list(_experiments(side, self.block, study)) for side in (self.ours, self.baseline)))
        return [
            Comparison(*pair, *both, self.relation, self.margin, self.negligible) for pair in pairs for both in measured
        ]


def published_claims(study: Study) -> list[Claim]:
    """The paper's claims for whose data sets and backbones the study's profile has stand-ins.

    Raises:
        RecipeError: for an unknown field of a claim, a missing one, or a value of the wrong type.
    """
    found = []
    for entry in tomllib.loads((files(published) / "claims.toml").read_text("utf-8"))["claim"]:
        for block in entry.pop("blocks", [{}]):
            named = {key: value.format(**block) for key, value in entry.items() if key in ("name", "text")}
            claim = parse_options(Claim, {**entry, **named, "block": block}, f"claim {named.get('name')!r}")
            with suppress(NotInProfileError):
                study.recipe(**block)
                found += [claim] if claim.comparisons(study) else []
    return found


def _pairs(first: Sequence, second: Sequence) -> list[tuple[Any, Any]]:
    """Lists of the same length in pairs; of any other, each with each."""
    return list(zip(first, second, strict=True) if len(first) == len(second) else product(first, second))


def _experiments(side: Sequence, block: Mapping[Any, str], study: Study) -> Iterator[Experiment]:
    best = study.recipe(**block).method_options
    for written in side:
        if isinstance(written, str):
            yield experiment(*([] if written == "vanilla" else written.split(" + ")), **block)
            continue
        [(option, setting)] = written.items()
        if option == METHOD:  # one whose file was removed takes its comparisons along
            yield from [experiment(method=setting, **block)] * (setting in methods.names())
            continue
        require_known("hyperparameter of the sweeps", option, sweeps.SWEEPS)
        every = [value for name, value in sweeps.settings(best) if name == option]
        words = {"lowest": every[:1], "next above the best": [value for value in every if value > best[option]][:1]}
        others = [value for value in (setting if isinstance(setting, list) else every) if value != best[option]]
        for value in [setting] if isinstance(setting, float) else words.get(str(setting), others):
            yield experiment(*LOSSES, **block, **({} if value == best[option] else {option: value}))


def judge(effect: Effect, relation: Relation, margin: float, negligible: float = 0.0) -> Verdict:
    """What an interval says about a comparison.

    Args:
        effect: the measured difference.
        relation: as in `Comparison`.
        margin: as in `Comparison`.
        negligible: as in `Comparison`.

    Returns:
        ``"reproduced"`` where the whole interval agrees, ``"not reproduced"`` where none of it does, or nothing of it
        is more than negligible and it lies around zero: a third as far below as above at least. Between a small
        difference that is clear and one that is refuted there is room, so that a hair does not turn one into the other.
    """
    if relation == "within":
        inside = -margin <= effect.low and effect.high <= margin
        outside = effect.low > margin or effect.high < -margin
    else:
        around_zero = 3 * effect.low <= -effect.high
        inside, outside = effect.low > margin, effect.high <= (max(margin, negligible) if around_zero else margin)
    return "reproduced" if inside else "not reproduced" if outside else "inconclusive"


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on several parts: the worst, in the order of :data:`Verdict`."""
    return min(verdicts, key=get_args(Verdict).index)


#: The values of a quantity over some runs, one a seed: (S, N) for N images, or (S, N, T) where it must hold at each of
#: T thresholds.
Evidence = Callable[[Sequence[Run], str], np.ndarray]


def measure(study: Study) -> Evidence:
    """Quantities of finished runs, each measured when it is first asked for."""
    of = cache(lambda run: Measured(study, run))
    values = cache(lambda run, quantity: QUANTITIES[quantity](of(run)))
    return lambda runs, quantity: np.stack([values(run, quantity) for run in runs])


@dataclass(frozen=True)
class Plan:
    """How many repetitions claims may take, decided before the first.

    Attributes:
        at: seeds of each look at the runs, in order; see `wsolkit.study.statistics.looks`.
        budget: minutes of training, summed over all runs beyond the first look, after which none are added; a run is
            taken to last as long as those before it of the same experiment.
    """

    at: tuple[int, ...]
    budget: float = 0.0


def plan(study: Study, max_seeds: int | None = None, budget_minutes: float | None = None) -> Plan:
    """The plan of a study: looks from its own number of seeds up to the most.

    Args:
        study: the notebook's study.
        max_seeds: None means the profile's.
        budget_minutes: as `Plan.budget`; None means the profile's.
    """
    most = study.profile.max_seeds if max_seeds is None else max_seeds
    budget = study.profile.budget_minutes if budget_minutes is None else budget_minutes
    return Plan(tuple(looks(len(study.seeds), max(most, len(study.seeds)))), budget)


def check(claims: Sequence[Claim], study: Study, planned: Plan | None = None, train: bool = True) -> pd.DataFrame:
    """Every comparison of every claim, measured; seeds are added where a claim is open, as planned.

    Which seeds are added depends on the claims and on the runs' own seconds alone, so a second call with the same runs
    gives the same.

    Args:
        claims: what is checked.
        study: the notebook's study; its seeds are the first look.
        planned: None means `plan`.
        train: train the runs that are missing; False measures what is there, and the rest is ``"not measured"``.

    Returns:
        Columns ``claim, where, text, part, quantity, relation, margin, negligible, difference, low, high, seeds,
        part_verdict, verdict``; the last is that of the whole claim. Of curves, a threshold that decided is shown.
    """
    planned, evidence, spent = planned or plan(study), measure(study), 0.0
    parts = {claim.name: claim.comparisons(study) for claim in claims}
    found: dict[tuple[str, Comparison], dict[str, Any]] = {}
    runs: dict[Experiment, list[Run]] = {}

    def verdicts(name: str) -> list[Verdict]:
        return [found[name, part]["part_verdict"] if (name, part) in found else "inconclusive" for part in parts[name]]

    for look, count in enumerate(planned.at):
        still = {
            name: [part for part, verdict in zip(every, verdicts(name), strict=True) if verdict == "inconclusive"]
            for name, every in parts.items()
            if together(verdicts(name)) == "inconclusive"
        }
        wanted: dict[Experiment, dict[str, Any]] = {}
        for name in sorted(still, key=lambda name: len(_sides(still[name]))):  # the cheapest claims come first
            more = {s: dict(s) for s in _sides(still[name]) if s not in wanted and len(runs.get(s, ())) < count}
            if look and more and spent >= planned.budget:
                del still[name]
                continue
            spent += sum(_minutes(runs.get(side, []), count) for side in more)
            wanted |= more
        if wanted:
            runs |= study.train_at(wanted, dict.fromkeys(wanted, study.seeds_up_to(count)), train)
        for name, part in [(each, part) for each, open_parts in still.items() for part in open_parts]:
            both = [runs.get(side, [])[:count] for side in (part.ours, part.baseline)]
            if look == 0 or all(len(side) == count for side in both):
                found[name, part] = _measured(part, both, evidence, look, planned, len(parts[name]))
    study.list_runs([run for group in runs.values() for run in group])
    rows = []
    for claim in claims:
        said = {"claim": claim.name, "where": claim.where, "text": claim.text}
        verdict = together(verdicts(claim.name))
        rows += [said | found[claim.name, part] | {"verdict": verdict} for part in parts[claim.name]]
    return pd.DataFrame(rows)


def _minutes(runs: Sequence[Run], count: int) -> float:
    """What an experiment's next runs will take, if they take as long as those before."""
    return (count - len(runs)) * sum(run.info()["seconds"] for run in runs) / max(1, len(runs)) / 60


def _sides(parts: Iterable[Comparison]) -> dict[Experiment, None]:
    return dict.fromkeys(side for part in parts for side in (part.ours, part.baseline))


def _measured(
    part: Comparison, sides: Sequence[Sequence[Run]], evidence: Evidence, look: int, planned: Plan, parts: int
) -> dict[str, Any]:
    """A comparison of two experiments' runs at one look, for a claim with so many parts.

    All parts must hold for the claim to be reproduced, so none needs more confidence for being one of several; a single
    one that fails is enough to refute it, so that needs the confidence of all together.
    """
    shown, negligible = Effect(np.nan, np.nan, np.nan), part.negligible
    verdicts: list[Verdict] = []
    if all(sides):
        ours, baseline = map(evidence, sides, (part.quantity, part.baseline_quantity or part.quantity))
        pairs = curves(ours, baseline)
        negligible *= baseline.mean() if part.quantity in NO_RATES else 1
        tests = parts * max(1, len(pairs))
        holding = [paired_effect(*pair, confidence_at(look, planned.at)) for pair in pairs]
        failing = [paired_effect(*pair, confidence_at(look, planned.at, tests)) for pair in pairs]
        for holds, fails in zip(holding, failing, strict=True):
            agrees = judge(holds, part.relation, part.margin) == "reproduced"
            refuted = judge(fails, part.relation, part.margin, negligible) == "not reproduced"
            verdicts.append("reproduced" if agrees else "not reproduced" if refuted else "inconclusive")
        decisive = [each for each, verdict in zip(holding, verdicts, strict=True) if verdict == together(verdicts)]
        shown = min(decisive, key=lambda effect: effect.low, default=shown)
    asked = {name: getattr(part, name) for name in ("quantity", "relation", "margin")} | {"negligible": negligible}
    verdict = together(verdicts or ["not measured"])
    return {"part": describe(part), **asked, **asdict(shown), "seeds": min(map(len, sides)), "part_verdict": verdict}


def curves(ours: np.ndarray, baseline: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of (S, N) values that are compared: one, or of curves one at each threshold that means something.

    Args:
        ours: (S, N) or (S, N, T), as :data:`Evidence` gives them.
        baseline: the same of the other side.
    """
    if ours.ndim == 2:
        return [(ours, baseline)]
    seen = np.maximum(ours.mean((0, 1)), baseline.mean((0, 1))) >= SEEN
    differ = (ours != baseline).any((0, 1))  # at threshold 0, say, the box of any map is the whole image
    return [(ours[..., t], baseline[..., t]) for t in np.flatnonzero(seen & differ)]


def describe(comparison: Comparison) -> str:
    """A comparison in words."""
    quantities = dict.fromkeys([comparison.quantity, comparison.baseline_quantity or comparison.quantity])
    experiments = dict.fromkeys(map(_name, (comparison.ours, comparison.baseline)))
    return f"{' and '.join(quantities)}: {' against '.join(experiments)}"


def _name(each: Experiment) -> str:
    options = dict(each)
    losses, method = options.pop("losses"), options.pop(METHOD, None)
    name = methods.find(method).label if method else methods.join_terms(losses)
    return ", ".join([name, *(f"{name} {value}" for name, value in options.items())])


def scoreboard(checked: pd.DataFrame) -> pd.DataFrame:
    """One row a claim, from `check`: ``claim, where, text, measured, verdict``.

    ``measured`` is the part that decided, the first with the claim's own verdict, and says how many parts there are.
    """
    decisive = checked[checked["part_verdict"] == checked["verdict"]].drop_duplicates("claim")
    parts = checked["claim"].value_counts()
    measured = [_in_words(part, parts[part["claim"]]) for _, part in decisive.iterrows()]
    return decisive.assign(measured=measured)[["claim", "where", "text", "measured", "verdict"]].reset_index(drop=True)


def _in_words(part: pd.Series, parts: int) -> str:
    more = f" (shown: one of {parts} parts)" if parts > 1 else ""
    if np.isnan(part["difference"]):
        return f"{part['part']}: not measured{more}"
    scale, unit = (1, "") if part["quantity"] in NO_RATES else (100, " points")
    difference, low, high = (part[name] * scale for name in ("difference", "low", "high"))
    sign = "within ±" if part["relation"] == "within" else "above "
    claimed = f", claimed: {sign}{part['margin'] * scale:g}{unit}" if part["margin"] else ""
    if part["part_verdict"] == "not reproduced" and part["relation"] == "above" and high > part["margin"] * scale:
        claimed += f", which leaves no gain of {part['negligible'] * scale:.2g}{unit}"
    found = tables.with_interval(difference, low, high)
    return f"{part['part']}: {found}{unit}{claimed}, {part['seeds']} repetitions{more}"
