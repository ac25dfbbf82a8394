"""What notebooks would train: unique runs, which are done, which are missing, and how long they may take."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wsolkit.errors import NotInProfileError, WsolkitError
from wsolkit.reproduce import begin_processes, notebooks
from wsolkit.study.study import PLAN_VARIABLE, Planned
from wsolkit.system.processes import call_apart, cores
from wsolkit.training.recipes import PRETRAINING, Recipe
from wsolkit.training.run_store import RunStore

#: Images a second if nobody says, and no run like it was measured: about a small network on two CPU cores, and half of
#: what docs/cost.md counts for the paper's networks on a good GPU.
ASSUMED_SPEED = 250.0

#: Cost of evaluating an image, in training steps of one image: a forward pass; training adds a backward pass.
EVALUATION_SHARE = 1 / 3

#: Seconds within which a notebook has to come to its runs.
PATIENCE = 60.0

#: What the code of a notebook says if it may ask for runs.
_ASKS = re.compile(r"open_study.*\.\s*(train|train_at|runs|check)\s*\(", re.DOTALL)


@dataclass(frozen=True)
class NotebookPlan:
    """What is known about a notebook before it is executed.

    Attributes:
        notebook: its file.
        parameters: what it is given; None if it cannot be executed.
        recipes: the runs that it asks for.
        skipped: what the profile lacks for it, so that it need not be executed, or None.
        problem: why its runs are not known; one that can be executed trains them itself then.
    """

    notebook: Path
    parameters: Mapping[str, Any] | None = None
    recipes: tuple[Recipe, ...] = ()
    skipped: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Plan:
    """The runs behind some notebooks.

    Attributes:
        parameters: of all notebooks, completed.
        notebooks: the plan of each.
    """

    parameters: Mapping[str, Any]
    notebooks: tuple[NotebookPlan, ...]

    @cached_property
    def recipes(self) -> dict[Recipe, list[str]]:
        """Each run once, those that others are pretrained by first, with the notebooks that ask for it."""
        found: dict[Recipe, list[str]] = {}
        for each in self.notebooks:
            for recipe in dict.fromkeys(part for asked in each.recipes for part in _with_pretraining(asked)):
                found.setdefault(recipe, []).append(each.notebook.stem)
        return dict(sorted(found.items(), key=lambda item: isinstance(item[0].pretrained, Recipe)))

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
        first = {recipe.pretrained for recipe in self.recipes}
        for recipe, wanted_by in self.recipes.items():
            run, epochs = store.find(recipe), store.finished_epochs(recipe)
            row = {name: getattr(recipe, name) for name in ("dataset", "backbone", "seed", "epochs")}
            row |= {"recipe": recipe.key, "method": recipe.label + f", {PRETRAINING}" * (recipe in first)}
            row |= {"notebooks": ", ".join(wanted_by), "state": "done" if run else "begun" if epochs else "missing"}
            row |= {"images": 0 if run else images_left(recipe, epochs)}
            rows.append(row | {"speed": run.info().get("images_per_second", np.nan) if run else np.nan})
        table = pd.DataFrame(rows)
        if images_per_second or table.empty:
            return table.assign(speed=images_per_second, source="given")
        measured = table.groupby(["dataset", "backbone"])["speed"].transform("median")
        source = measured.notna().map({True: "measured", False: "assumed"})
        return table.assign(speed=measured.fillna(ASSUMED_SPEED), source=source)


def plan(names: Sequence[str] = (), profile: str | None = None, parameters: Mapping[str, Any] | None = None) -> Plan:
    """The runs that notebooks would ask for; nothing is trained.

    A notebook that may ask for runs is executed up to that point, in a process of its own, so that nothing it does
    reaches this one. Others are not executed.

    Args:
        names: which notebooks; none means all but :data:`wsolkit.reproduce.notebooks.NAMED_ONLY`.
        profile: name of the profile; None means the notebooks' own default.
        parameters: further parameters, checked against each of them.

    Raises:
        WsolkitError: for an unknown notebook, profile or parameter.
    """
    given = notebooks.complete(parameters or {}, profile)
    asked = (each for each in notebooks.find(names) if names or each.stem not in notebooks.NAMED_ONLY)
    plans = [_checked(notebook, given) for notebook in asked]
    variables = notebooks.variables(given["profile"]) | {PLAN_VARIABLE: "1"}
    context = begin_processes()
    with ThreadPoolExecutor(cores()) as threads:
        return Plan(given, tuple(threads.map(_asked, plans, repeat(variables), repeat(context))))


def _checked(notebook: Path, given: Mapping[str, Any]) -> NotebookPlan:
    try:
        return NotebookPlan(notebook, notebooks.check_parameters(notebook, given))
    except notebooks.NotebookError as error:
        return NotebookPlan(notebook, problem=str(error))


def _asked(plan: NotebookPlan, variables: Mapping[str, str], context: Any) -> NotebookPlan:
    """A plan with what its notebook asks for."""
    cells = [] if plan.parameters is None else notebooks.code_cells(plan.notebook)
    if not _ASKS.search("\n".join(cell.source for cell in cells)):
        return plan
    code = [(cell.source, plan.parameters if notebooks.takes_parameters(cell) else {}) for cell in cells]
    try:
        answer = call_apart(_ask, plan.notebook.parent, code, variables, seconds=PATIENCE, context=context)
    except WsolkitError as error:
        return replace(plan, problem=str(error))
    return replace(plan, **answer | {"recipes": tuple(map(Recipe.from_json, answer.get("recipes", [])))})


def _ask(folder: Path, code: Sequence[tuple[str, Mapping[str, Any]]], variables: Mapping[str, str]) -> dict[str, Any]:
    """Execute a notebook in this process, up to its runs.

    Args:
        folder: where it is.
        code: of each cell, its source and the parameters to set after it.
        variables: of the environment.

    Returns:
        What is to be changed in its plan, as plain values.
    """
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Shell(InteractiveShell):
        def enable_gui(self, gui: str | None = None) -> None:  # `%matplotlib inline` asks for none
            pass

    os.environ.update(variables)
    os.chdir(folder)
    sys.path.insert(0, "")
    shell = Shell(config=Config(HistoryManager={"enabled": False}, InteractiveShell={"xmode": "Minimal"}))
    number = 0
    for source, parameters in code:
        number += 1
        result = shell.run_cell(source)
        error = result.error_before_exec or result.error_in_exec
        if isinstance(error, Planned):
            return {"recipes": [recipe.to_json() for recipe in error.recipes]}
        if isinstance(error, NotInProfileError):
            return {"skipped": str(error)}
        if error:
            return {"problem": f"cell {number}: {type(error).__name__}: {error}"}
        shell.push(dict(parameters))
        number += bool(parameters)  # papermill adds a cell with them
    return {}


def by_kind(table: pd.DataFrame) -> pd.DataFrame:
    """Runs by what they train: ``dataset, backbone, method, runs, left, images, images/s, time``.

    Args:
        table: from `Plan.table`.
    """
    table = table.assign(left=table["state"] != "done", time=table["images"] / table["speed"], runs=1)
    groups = table.groupby(["dataset", "backbone", "method"], sort=False)
    shown = groups.agg({"runs": "sum", "left": "sum", "images": "sum", "speed": "median", "time": "sum"}).reset_index()
    shown = shown.assign(speed=shown["speed"].round().astype(int), time=shown["time"].map(duration))
    return shown.rename(columns={"speed": "images/s"})


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
    advice = f" ({ASSUMED_SPEED:.0f} images/s; --images-per-second gives another)" if "assumed" in sources else ""
    return f"{counts}\n{left['images'].sum():,.0f} images left, {time}, at {sources} speeds{advice}"


def duration(seconds: float) -> str:
    """A time in the unit that suits it: seconds, minutes, hours or days."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def images_left(recipe: Recipe, epochs_done: int = 0) -> int:
    """What is left of a run, in training images: those of its epochs, and a share for every image it evaluates."""
    sizes = recipe.components.data.extent.images
    epochs = recipe.epochs - epochs_done
    evaluated = epochs * sizes.get("train-fullsup", 0) + sizes.get("test", 0)
    return round(epochs * sizes.get("train-weaksup", 0) + EVALUATION_SHARE * evaluated)


def _with_pretraining(recipe: Recipe) -> list[Recipe]:
    before = recipe.pretrained
    return [*(_with_pretraining(before) if isinstance(before, Recipe) else []), recipe]
