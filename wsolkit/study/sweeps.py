"""The hyperparameter sweeps of Fig. 8 and A5: about five values of each around the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from wsolkit import published
from wsolkit.study.study import Study
from wsolkit.training.run_store import Run


@dataclass(frozen=True)
class Sweep:
    """How one hyperparameter is varied.

    Attributes:
        symbol: as figures print it.
        factors: settings as multiples of the best.
        offsets: settings as distances from the best.
        fixed: settings that stand by themselves.
    """

    symbol: str
    factors: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    fixed: tuple[float, ...] = ()

    def settings(self, best: float) -> tuple[float, ...]:
        """All settings in order, the best among them; shares stay in [0, 1]."""
        found = [
            *(best * factor for factor in self.factors),
            *(best + step for step in self.offsets),
            *self.fixed,
            best,
        ]
        inside = [value for value in found if value >= 0 and (self.factors or value <= 1)]
        return tuple(sorted({float(f"{value:.4g}") for value in inside}))


_THIRDS = (1 / 3, 2 / 3, 1, 4 / 3, 5 / 3)

SWEEPS: Mapping[str, Sweep] = {
    "lambda_sim": Sweep("λ sim", factors=_THIRDS),
    "lambda_norm": Sweep("λ norm", factors=_THIRDS),
    "lambda_drop": Sweep("λ drop", factors=_THIRDS),
    "tau_fg": Sweep("τ fg", offsets=(-0.2, -0.1, 0, 0.1, 0.2)),
    "tau_bg": Sweep("τ bg", offsets=(-0.1, -0.05, 0, 0.05, 0.1)),
    "drop_threshold": Sweep("γ", fixed=(0.6, 0.7, 0.8, 0.9)),
    "drop_prob": Sweep("p", fixed=(0.25, 0.5, 0.75, 1.0)),
}
"""With the paper's best on CUB with VGG16 these hold what Sec. 5.4 names: lambda drop 4, gamma 0.6 to 0.9, p 1.0."""

Setting = tuple[str, float]


def settings(options: Mapping[str, Any]) -> list[Setting]:
    """Every option and setting of the sweeps around a method's options; foreground stays above background."""
    every = [(option, value) for option, sweep in SWEEPS.items() for value in sweep.settings(options[option])]
    return [(option, value) for option, value in every if _sensible({**options, option: value})]


def experiments(study: Study, dataset: str, backbone: str) -> dict[Setting, dict[str, Any]]:
    """The experiments of a sweep, for `wsolkit.study.study.Study.train`; the best setting is the one of the tables."""
    best = study.recipe(dataset=dataset, backbone=backbone).method_options
    block = {"dataset": dataset, "backbone": backbone}
    return {(o, v): block if v == best[o] else {**block, o: v} for o, v in settings(best)}


def points(study: Study, runs: Mapping[Setting, Sequence[Run]], dataset: str, backbone: str) -> pd.DataFrame:
    """GT-known Loc of every run of a sweep.

    Args:
        study: the notebook's study.
        runs: of `experiments`, one run a seed.
        dataset: the paper's name of the data set.
        backbone: the paper's name of the backbone.

    Returns:
        One row a run: ``option, setting, value, chosen, paper, seed, recipe, version, commit``; see
        `wsolkit.study.plots.sensitivity`.
    """
    best = study.recipe(dataset=dataset, backbone=backbone).method_options
    paper = published.hyperparameters(dataset, backbone)
    rows = []
    for (option, setting), group in runs.items():
        known = {"option": option, "setting": setting, "chosen": setting == best[option], "paper": paper[option]}
        rows += [known | {"value": run.report().rate("gt_known_loc"), **run.made()} for run in group]
    return pd.DataFrame(rows)


def _sensible(options: Mapping[str, Any]) -> bool:
    return options["tau_bg"] < options["tau_fg"]
