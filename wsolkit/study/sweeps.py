"""The hyperparameter sweeps of Fig. 8 and A5: one hyperparameter is varied, the others stay at their best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from wsolkit import published
from wsolkit.study.study import Study
from wsolkit.training.run_store import Run

#: Data set, backbone, hyperparameter, setting.
Point = tuple[str, str, str, float]


@dataclass(frozen=True)
class Sweep:
    """How one hyperparameter is varied; its best setting always takes part.

    Attributes:
        symbol: as figures print it.
        thirds: settings in thirds of the best.
        steps: settings as distances from the best; they stay in [0, 1].
        fixed: settings that do not depend on the best.
    """

    symbol: str
    thirds: tuple[int, ...] = ()
    steps: tuple[float, ...] = ()
    fixed: tuple[float, ...] = ()

    def settings(self, best: float, only_ends: bool = False) -> list[float]:
        """All settings in ascending order, or the lowest, the best and the highest, to four significant digits."""
        shares = [value for value in (*(best + step for step in self.steps), *self.fixed) if 0 <= value <= 1]
        best, *others = (float(f"{v:.4g}") for v in (best, *(best * third / 3 for third in self.thirds), *shares))
        every = sorted({best, *others})
        return sorted({every[0], best, every[-1]}) if only_ends else every


#: With the paper's best on CUB with VGG16 these hold what Sec. 5.4 names: lambda drop 4, gamma 0.6 to 0.9, p 1.0.
SWEEPS: Mapping[str, Sweep] = {
    "lambda_sim": Sweep("λ sim", thirds=(1, 2, 4, 5)),
    "lambda_norm": Sweep("λ norm", thirds=(1, 2, 4, 5)),
    "lambda_drop": Sweep("λ drop", thirds=(1, 2, 4, 5)),
    "tau_fg": Sweep("τ fg", steps=(-0.2, -0.1, 0.1, 0.2)),
    "tau_bg": Sweep("τ bg", steps=(-0.1, -0.05, 0.05, 0.1)),
    "drop_threshold": Sweep("γ", fixed=(0.6, 0.7, 0.8, 0.9)),
    "drop_prob": Sweep("p", fixed=(0.25, 0.5, 0.75, 1.0)),
}


def settings(best: Mapping[str, Any], only_ends: bool = False) -> list[tuple[str, float]]:
    """Every setting of every sweep around a method's best options; foreground stays above background."""
    every = [(option, value) for option, sweep in SWEEPS.items() for value in sweep.settings(best[option], only_ends)]
    changed = [{**best, option: value} for option, value in every]
    return [key for key, options in zip(every, changed, strict=True) if options["tau_bg"] < options["tau_fg"]]


def experiments(study: Study, pairs: Sequence[tuple[str, str]], every: bool = False) -> dict[Point, dict[str, Any]]:
    """The experiments of all sweeps, for `wsolkit.study.study.Study.train`; the best settings are the tables' run.

    Args:
        study: the notebook's study.
        pairs: data set and backbone, by the paper's names.
        every: all settings, also of pairs of which the profile trains the ends alone.
    """
    found: dict[Point, dict[str, Any]] = {}
    for dataset, backbone in pairs:
        block = {"dataset": dataset, "backbone": backbone}
        best = study.recipe(**block).method_options
        chosen = settings(best, (dataset, backbone) in study.profile.sweep_ends and not every)
        found |= {(dataset, backbone, o, v): block if v == best[o] else {**block, o: v} for o, v in chosen}
    return found


def points(study: Study, runs: Mapping[Point, Sequence[Run]]) -> pd.DataFrame:
    """GT-known Loc of every run of the sweeps.

    Args:
        study: the notebook's study.
        runs: of `experiments`, one run a seed.

    Returns:
        One row a run: ``option, setting, chosen, paper, value, dataset, backbone, seed, recipe, version, commit``; see
        `wsolkit.study.plots.sensitivity`.
    """
    rows = []
    for (dataset, backbone, option, setting), group in runs.items():
        best = study.recipe(dataset=dataset, backbone=backbone).method_options[option]
        paper = published.hyperparameters(dataset, backbone)[option]
        known = {"option": option, "setting": setting, "chosen": setting == best, "paper": paper}
        block = {"dataset": dataset, "backbone": backbone}
        rows += [{**known, "value": run.report().rate("gt_known_loc"), **block, **run.made()} for run in group]
    return pd.DataFrame(rows)
