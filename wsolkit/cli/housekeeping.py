"""Keeping a run store: what is in it, whether it is whole, and what could be removed."""

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from wsolkit.errors import RecipeError, WsolkitError
from wsolkit.system.folders import runs_root
from wsolkit.system.writing import PARTIAL
from wsolkit.training import checkpoints, warm_stages
from wsolkit.training.machine import Machine
from wsolkit.training.recipes import PRETRAINING, Recipe
from wsolkit.training.run_store import DONE, RECIPE, Run, RunStore

COLUMNS = ("run", "made", "dataset", "backbone", "method", "options", "seed", "epochs", "state", "gt_known_loc", "MB")

#: What the names of thresholds begin with; all other rates are shares of images.
THRESHOLD = "best_threshold"

#: How many runs an error names.
FEW = 6

#: Seconds after which nobody is writing a file any more: no file of a run takes that long.
ABANDONED = 3600

#: What reading a damaged report or ``run.json`` raises.
DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError)


class Garbage(NamedTuple):
    """Something that could be removed.

    Attributes:
        path: file or folder.
        why: why nothing is lost with it.
        size: in bytes.
    """

    path: Path
    why: str
    size: int


def open_store() -> RunStore:
    """The run store of this machine."""
    return RunStore(runs_root(), Machine())


def folders(store: RunStore) -> list[Path]:
    """The folders of all runs, finished or not."""
    return sorted(path.parent for path in store.root.glob(f"*/{RECIPE}"))


def find(store: RunStore, name: str) -> Path:
    """A run's folder from its key or the first characters of it.

    Raises:
        RecipeError: if there is none, or several begin with them.
    """
    known = folders(store)
    found = [folder for folder in known if folder.name == name]
    found = found or [folder for folder in known if folder.name.startswith(name)]
    if len(found) > 1:
        keys = ", ".join(folder.name for folder in found[:FEW]) + (" ..." if len(found) > FEW else "")
        raise RecipeError(f"{len(found)} runs begin with {name!r}: {keys}. Give more of the key.")
    if not found:
        raise RecipeError(f"No run begins with {name!r}; `wsolkit runs list` lists all {len(known)}.")
    return found[0]


def listing(store: RunStore) -> pd.DataFrame:
    """One row a run, the newest first, columns :data:`COLUMNS`.

    ``made`` is when it was finished, or else begun; ``method`` is named as in the paper's rows, with
    :data:`~wsolkit.training.recipes.PRETRAINING` if other runs begin with its weights; ``options`` are those in which
    it differs from more than half of the runs of its data set, backbone and method; ``gt_known_loc`` is in percent on
    the test split, or NaN. A recipe that this version cannot read, or whose key has changed, is in state ``foreign``.
    """
    recipes = {folder: _readable(folder) for folder in folders(store)}
    pretraining = {recipe.pretrained for recipe in recipes.values() if recipe and isinstance(recipe.pretrained, Recipe)}
    unusual = _unusual_options({folder.name: recipe for folder, recipe in recipes.items() if recipe})
    rows: list[dict[str, Any]] = []
    for folder, recipe in recipes.items():
        written = next(path for name in (DONE, RECIPE, "") if (path := folder / name).exists())
        made = datetime.fromtimestamp(written.stat().st_mtime).isoformat(" ", "minutes")
        rows.append({"run": folder.name, "made": made, "state": "foreign", "MB": round(_size(folder) / 1e6, 1)})
        if recipe is None:
            continue
        run = store.find(recipe) if recipe.key == folder.name else None
        rows[-1] |= {name: getattr(recipe, name) for name in ("dataset", "backbone", "seed")}
        rows[-1]["method"] = f"{recipe.label}, {PRETRAINING}" if recipe in pretraining else recipe.label
        rows[-1]["options"] = unusual.get(folder.name, "")
        rows[-1]["epochs"] = f"{_finished_epochs(store, recipe)}/{recipe.epochs}"
        if recipe.key == folder.name:
            rows[-1] |= {"state": "done" if run else "begun", "gt_known_loc": _rates(run).get("gt_known_loc")}
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64", "gt_known_loc": float})
    return table.sort_values("made", ascending=False, ignore_index=True)


def _readable(folder: Path) -> Recipe | None:
    """The recipe of a run, if this version can read it."""
    with suppress(WsolkitError):
        return Recipe.from_file(folder / RECIPE)
    return None


def _unusual_options(recipes: Mapping[str, Recipe]) -> pd.Series:
    """By run, the options whose value at most half of the runs of its data set, backbone and method have."""
    rows = [
        (run, (recipe.dataset, recipe.backbone, recipe.label), name, str(value))
        for run, recipe in recipes.items()
        for name, value in recipe.method_options.items()
    ]
    table = pd.DataFrame(rows, columns=["run", "kind", "option", "value"])
    alike = table.groupby(["kind", "option", "value"])["run"].transform("size")
    unusual = table[2 * alike <= table.groupby(["kind", "option"])["run"].transform("size")]
    return (unusual["option"] + "=" + unusual["value"]).groupby(unusual["run"], sort=False).agg(" ".join)


def _finished_epochs(store: RunStore, recipe: Recipe) -> int:
    with suppress(*DAMAGED):
        return store.finished_epochs(recipe)
    return 0


def _rates(run: Run | None) -> dict[str, float]:
    """The CAM's rates on the test split, in percent, and best thresholds, in [0, 1].

    Nothing without a run, or if its report cannot be read: `problems` says why.
    """
    if run is not None:
        with suppress(*DAMAGED):
            table = run.report().rates
            cam = table[table["map"] == "cam"]
            pairs = zip(cam["metric"], cam["value"], strict=True)
            return {name: value if name.startswith(THRESHOLD) else round(value * 100, 2) for name, value in pairs}
    return {}


def describe(store: RunStore, folder: Path) -> str:
    """A run in lines: its folder, its recipe, its rates, and how it was made."""
    try:
        recipe = Recipe.from_file(folder / RECIPE)
    except WsolkitError as error:
        return f"{folder}\nforeign: {error}"
    run = store.find(recipe) if recipe.key == folder.name else None
    epochs = f"{_finished_epochs(store, recipe)} of {recipe.epochs}{'' if run else '; no report yet'}"
    blocks = {str(folder): {**_flat(recipe), "method": f"{recipe.label} ({recipe.method})", "epochs": epochs}}
    if run is not None:
        rates = {name: f"{value:6.2f}" for name, value in _rates(run).items()}
        blocks["CAM on the test split: percent, and best thresholds in [0, 1]"] = rates
        try:
            info = pd.json_normalize({**run.info(), "code": None}).iloc[0].dropna()  # hashes are for programs
            blocks["How it was made; epochs, seconds and images/s of the last attempt"] = info.to_dict()
        except DAMAGED as error:
            blocks[f"{DONE} cannot be read"] = {type(error).__name__: error}
    lines = [[title, *(f"  {name:34} {value}" for name, value in facts.items())] for title, facts in blocks.items()]
    return "\n\n".join(map("\n".join, lines))


def compare(store: RunStore, chosen: Sequence[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs side by side, one column a run: the fields of their recipes that differ, and their rates.

    Rates are the CAM's on the test split, in percent, and best thresholds; empty if a run has no report.

    Raises:
        RecipeError: for a recipe that this version cannot read.
    """
    recipes = {folder.name: Recipe.from_file(folder / RECIPE) for folder in chosen}
    fields = pd.DataFrame({name: pd.Series(_flat(recipe), dtype=object) for name, recipe in recipes.items()})
    rates = {name: pd.Series(_rates(store.find(recipe)), dtype=object) for name, recipe in recipes.items()}
    differing = fields[fields.astype(str).nunique(axis=1) > 1]
    first, second = (each.fillna("").rename_axis("field").reset_index() for each in (differing, pd.DataFrame(rates)))
    return first, second


def _flat(recipe: Recipe) -> dict[str, Any]:
    """All fields of a recipe, options by their dotted names, pretraining by its key."""
    before = recipe.pretrained.key if isinstance(recipe.pretrained, Recipe) else recipe.pretrained
    return pd.json_normalize(json.loads(recipe.to_json()) | {"pretrained": before}).iloc[0].to_dict()


def problems(store: RunStore, folder: Path) -> Iterator[str]:
    """Read everything of a run: recipe against folder, checkpoints against their hashes, reports.

    Yields:
        What is wrong, one line each; nothing if the run is whole.
    """
    try:
        recipe = Recipe.from_file(folder / RECIPE)
    except WsolkitError as error:
        yield str(error)
        return
    if recipe.key != folder.name:
        yield f"{folder / RECIPE} has the key {recipe.key}: another version of the kit wrote it, or it was altered"
    done = (folder / DONE).exists()
    needed = [checkpoints.BEST, *map(checkpoints.snapshot, recipe.snapshot_epochs)] if done else []
    yield from (f"{folder / name} is missing" for name in needed if not (folder / name).exists())
    for path in sorted(folder.glob("*.safetensors")):
        try:
            checkpoints.load(path)
        except (WsolkitError, *DAMAGED) as error:
            yield str(error)
    if done:
        try:
            run = Run(recipe, folder)
            dict(run.info()), run.report(), run.history()
        except DAMAGED as error:
            yield f"the report cannot be read: {error}"


def garbage(store: RunStore) -> list[Garbage]:
    """What could be removed without any run being trained again; folders of runs always stay."""
    resume = [
        path.parent / name for path in store.root.glob(f"*/{DONE}") for name in (checkpoints.LAST, checkpoints.PREVIOUS)
    ]
    partial = [*store.root.glob(f"*/.*{PARTIAL}"), *store.root.glob(f"{warm_stages.FOLDER}/.*")]
    found: dict[str, Iterable[Path]] = {
        "the run is finished: nothing resumes from it": resume,
        "left behind by a process that was killed": [path for path in partial if _age(path) > ABANDONED],
        "a shared warm stage: only runs that begin later would use it": store.root.glob(f"{warm_stages.FOLDER}/[!.]*"),
    }
    every = [Garbage(path, why, _size(path)) for why, paths in found.items() for path in paths if path.exists()]
    return sorted(every, key=lambda each: str(each.path))


def remove(everything: Sequence[Garbage]) -> None:
    """Delete what `garbage` found."""
    for each in everything:
        if each.path.is_dir():
            shutil.rmtree(each.path)
        else:
            each.path.unlink(missing_ok=True)


def _age(path: Path) -> float:
    """Seconds since a file was written; none if it has been finished meanwhile."""
    with suppress(OSError):
        return time.time() - path.stat().st_mtime
    return 0


def _size(path: Path) -> int:
    """Bytes of a file or folder; files that vanish meanwhile count nothing."""
    total = 0
    for file in path.rglob("*") if path.is_dir() else [path]:
        with suppress(OSError):
            total += file.stat().st_size if file.is_file() else 0
    return total
