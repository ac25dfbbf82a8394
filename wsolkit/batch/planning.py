"""What the notebooks would train: unique runs, what is done, what is missing, and how long it may take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from wsolkit import datasets
from wsolkit.batch import notebooks
from wsolkit.errors import NotInProfileError
from wsolkit.training.recipes import PRETRAINING, Recipe
from wsolkit.training.run_store import RunStore

ASSUMED_SPEED = 250.0
"""Images a second where nobody says, and no run like it has been measured: about a small network on two CPU cores, and
half of what docs/cost.md counts for the paper's networks on a good GPU."""

EVALUATION_SHARE = 1 / 3
"""Cost of evaluating an image, in training steps of one image: a forward pass where training has one and a backward."""


@dataclass(frozen=True)
class Plan:
    """The runs behind some notebooks.

    Attributes:
        recipes: each once, those that others are pretrained by before those.
        notebooks: by recipe, the notebooks that want it.
        skipped: by notebook, what the profile lacks for it.
    """

    recipes: tuple[Recipe, ...]
    notebooks: Mapping[Recipe, tuple[str, ...]]
    skipped: Mapping[str, str]

    def table(self, store: RunStore, images_per_second: float | None = None) -> pd.DataFrame:
        """One row a run: ``recipe, dataset, backbone, method, seed, epochs, notebooks, state, images, speed, source``.

        ``method`` is as in the paper's rows; ``state`` is ``done``, ``begun`` or ``missing``; ``images`` is what is
        left to do, in training images; ``speed`` is in images/s, and its ``source`` is ``given``, ``measured`` on
        finished runs of the same data set and backbone in this store, or ``assumed``.

        Args:
            store: the run store.
            images_per_second: training speed; None takes what was measured.
        """
        rows = []
        measured = {} if images_per_second else _speeds(self.recipes, store)
        first = {recipe.pretrained for recipe in self.recipes if isinstance(recipe.pretrained, Recipe)}
        for recipe in self.recipes:
            epochs = store.finished_epochs(recipe)
            done = store.find(recipe) is not None
            named = {name: getattr(recipe, name) for name in ("dataset", "backbone")}
            named |= {"method": f"{recipe.label}, {PRETRAINING}" if recipe in first else recipe.label}
            named |= {"seed": recipe.seed, "epochs": recipe.epochs}
            state = "done" if done else "begun" if epochs else "missing"
            left = 0 if done else images_left(recipe, epochs)
            wanted = ", ".join(self.notebooks[recipe])
            kind = recipe.dataset, recipe.backbone
            source = "given" if images_per_second else "measured" if kind in measured else "assumed"
            speed = images_per_second or measured.get(kind, ASSUMED_SPEED)
            left_to_do = {"state": state, "images": left, "speed": speed, "source": source}
            rows.append({"recipe": recipe.key, **named, "notebooks": wanted, **left_to_do})
        return pd.DataFrame(rows)


def _speeds(recipes: Sequence[Recipe], store: RunStore) -> dict[tuple[str, str], float]:
    """Median images/s of finished runs, by data set and backbone."""
    runs = [run for run in map(store.find, recipes) if run]
    seen = pd.DataFrame(
        [(run.recipe.dataset, run.recipe.backbone, run.info().get("images_per_second", np.nan)) for run in runs],
        columns=["dataset", "backbone", "speed"],
    )
    return seen.groupby(["dataset", "backbone"])["speed"].median().dropna().to_dict()


def plan(names: Sequence[str] = (), profile: str | None = None, parameters: Mapping[str, Any] | None = None) -> Plan:
    """The runs that notebooks would ask for, found by running them up to that point; nothing is trained.

    Args:
        names: which notebooks; none means all.
        profile: name of the profile; None means the notebooks' own default.
        parameters: further parameters, checked as for a batch.

    Raises:
        WsolkitError: for an unknown notebook, profile or parameter.
    """
    given = notebooks.complete(parameters or {}, profile)
    wanted: dict[Recipe, list[str]] = {}
    skipped = {}
    for notebook in notebooks.find(names):
        notebooks.check_parameters(notebook, given)
        try:
            recipes = notebooks.recipes_of(notebook, given)
        except NotInProfileError as error:
            skipped[notebook.stem] = str(error)
            continue
        for recipe in dict.fromkeys(recipes):
            for each in _with_pretraining(recipe):
                wanted.setdefault(each, []).append(notebook.stem)
    order = sorted(wanted, key=lambda recipe: isinstance(recipe.pretrained, Recipe))
    return Plan(tuple(order), {recipe: tuple(dict.fromkeys(stems)) for recipe, stems in wanted.items()}, skipped)


def by_kind(table: pd.DataFrame) -> pd.DataFrame:
    """Runs by what they train: ``dataset, backbone, method, runs, left, images, images/s, time``.

    Args:
        table: from `Plan.table`.
    """
    groups = table.assign(seconds=table["images"] / table["speed"]).groupby(
        ["dataset", "backbone", "method"], sort=False
    )
    shown = groups.agg(
        runs=("recipe", "size"),
        left=("state", lambda states: (states != "done").sum()),
        images=("images", "sum"),
        speed=("speed", "median"),
        time=("seconds", "sum"),
    )
    shown["speed"], shown["time"] = shown["speed"].round().astype(int), shown["time"].map(duration)
    return shown.rename(columns={"speed": "images/s"}).reset_index()


def totals(table: pd.DataFrame, jobs: int = 1) -> str:
    """How many runs there are in each state, what is left, and how long it takes.

    Args:
        table: from `Plan.table`.
        jobs: runs trained at once; the speed is that of one among so many.
    """
    if table.empty:
        return "These notebooks train nothing."
    states = table["state"].value_counts()
    done, begun, missing = (int(states.get(name, 0)) for name in ("done", "begun", "missing"))
    counts = f"{len(table)} unique runs: {done} done, {begun} begun, {missing} missing"
    left = table[table["images"] > 0]
    if left.empty:
        return f"{counts}\nnothing is left to do"
    seconds = (left["images"] / left["speed"]).sum()
    time = f"{duration(seconds)} one run at a time"
    time += f" or {duration(seconds / jobs)} with {jobs} at once" if jobs > 1 else ""
    sources = " or ".join(sorted(left["source"].unique()))
    advice = f" ({ASSUMED_SPEED:.0f} images/s; --images-per-second gives another)"
    advice = advice if "assumed" in sources else ""
    return f"{counts}\n{left['images'].sum():,.0f} images left, {time}, at {sources} speeds{advice}"


def duration(seconds: float) -> str:
    """A time in the unit that suits it: seconds, minutes, hours or days."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def images_left(recipe: Recipe, epochs_done: int = 0) -> int:
    """What is left of a run, in training images: those of its epochs, and a share for every image it evaluates."""
    sizes = datasets.find(recipe.dataset, recipe.dataset_options).extent.images
    epochs = recipe.epochs - epochs_done
    evaluated = epochs * sizes.get("train-fullsup", 0) + sizes.get("test", 0)
    return round(epochs * sizes.get("train-weaksup", 0) + EVALUATION_SHARE * evaluated)


def _with_pretraining(recipe: Recipe) -> list[Recipe]:
    before = recipe.pretrained
    return [*(_with_pretraining(before) if isinstance(before, Recipe) else []), recipe]
