"""Keeping a run store: what is in it, whether it is whole, and what could go."""

import dataclasses
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from wsolkit.errors import RecipeError, WsolkitError
from wsolkit.system.writing import PARTIAL
from wsolkit.training import checkpoints, warm_stages
from wsolkit.training.recipes import PRETRAINING, Recipe
from wsolkit.training.run_store import DONE, RECIPE, Run, RunStore

COLUMNS = ("run", "made", "dataset", "backbone", "method", "options", "seed", "epochs", "state", "gt_known_loc", "MB")

THRESHOLD = "best_threshold"
"""How rates begin that are no shares of images."""

ABOVE = ("recipe", "data", "code")
"""What a run knows of itself and a description has elsewhere, or only machines compare."""

FEW = 6
"""Runs that an error names."""

ABANDONED = 3600
"""Seconds after which nobody is writing a file any more: no file of a run takes that long."""


@dataclass(frozen=True)
class Checked:
    """What a look into a run's folder found.

    Attributes:
        run: name of the folder.
        problems: what is wrong, one line each; none if it is whole.
    """

    run: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Garbage:
    """Something that could go.

    Attributes:
        path: file or folder.
        why: why nothing is lost with it.
        size: in bytes.
    """

    path: Path
    why: str
    size: int


def folders(store: RunStore) -> list[Path]:
    """The folders of all runs, finished or not."""
    return sorted(path.parent for path in store.root.glob(f"*/{RECIPE}"))


def find(store: RunStore, name: str) -> Path:
    """A run's folder from its key or the beginning of it.

    Raises:
        RecipeError: if none or several begin so.
    """
    known = folders(store)
    found = [folder for folder in known if folder.name.startswith(name)]
    if len(found) > 1:
        keys = ", ".join(folder.name for folder in found[:FEW]) + (" ..." if len(found) > FEW else "")
        raise RecipeError(f"{len(found)} runs begin with {name!r}: {keys}. Give more of the key.")
    if not found:
        raise RecipeError(f"No run begins with {name!r}; `wsolkit runs list` lists all {len(known)}.")
    return found[0]


def listing(store: RunStore) -> pd.DataFrame:
    """One row a run, the newest first, columns :data:`COLUMNS`.

    ``made`` is when it was finished, else begun; ``method`` is named as in the paper's rows, with
    :data:`~wsolkit.training.recipes.PRETRAINING` where other runs begin with its weights; ``options`` are those in
    which it is not as most runs of its data set, backbone and method; ``gt_known_loc`` is in percent on the test
    split, NaN where there is none. A recipe that this version cannot read, or whose key has changed, is in state
    ``foreign``.
    """
    recipes = {folder: _readable(folder) for folder in folders(store)}
    first = {recipe.pretrained for recipe in recipes.values() if recipe and isinstance(recipe.pretrained, Recipe)}
    seen: dict[tuple, Counter] = defaultdict(Counter)
    for recipe in filter(None, recipes.values()):
        for name, value in recipe.method_options.items():
            seen[*_kind(recipe), name][str(value)] += 1
    usual = {option: _majority(counts) for option, counts in seen.items()}
    rows = [_row(store, folder, recipe, usual, recipe in first) for folder, recipe in recipes.items()]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64", "gt_known_loc": float})
    return table.sort_values("made", ascending=False, ignore_index=True)


def _majority(counts: Counter) -> str | None:
    """The value of more than half; None if no value has so many."""
    value, count = counts.most_common(1)[0]
    return value if 2 * count > counts.total() else None


def _readable(folder: Path) -> Recipe | None:
    """The recipe of a run, if this version can read it."""
    try:
        return Recipe.from_file(folder / RECIPE)
    except WsolkitError:
        return None


def _kind(recipe: Recipe) -> tuple[str, str, str]:
    return recipe.dataset, recipe.backbone, recipe.label


def _row(store: RunStore, folder: Path, recipe: Recipe | None, usual: Mapping[tuple, str | None], first: bool) -> dict:
    written = next(path for name in (DONE, RECIPE) if (path := folder / name).exists())
    made = datetime.fromtimestamp(written.stat().st_mtime).isoformat(" ", "minutes")
    row = {"run": folder.name, "made": made, "state": "foreign", "MB": round(_size(folder) / 1e6, 1)}
    if recipe is None:
        return row
    row["dataset"], row["backbone"], method = kind = _kind(recipe)
    row |= {"method": f"{method}, {PRETRAINING}" if first else method, "seed": recipe.seed}
    options = recipe.method_options.items()
    row["options"] = " ".join(f"{name}={value}" for name, value in options if str(value) != usual[*kind, name])
    row["epochs"] = f"{store.finished_epochs(recipe)}/{recipe.epochs}"
    if recipe.key != folder.name:
        return row
    run = store.find(recipe)
    rates = _rates(run) if run else {}
    return row | {"state": "done" if run else "begun", "gt_known_loc": rates.get("gt_known_loc")}


def _rates(run: Run) -> dict[str, float]:
    """The CAM's rates on the test split, in percent, and best thresholds, in [0, 1].

    Nothing where the report cannot be read, which `verify` says.
    """
    try:
        rates = run.report().rates
    except (OSError, ValueError):
        return {}
    cam = rates[rates["map"] == "cam"]
    pairs = zip(cam["metric"], cam["value"], strict=True)
    return {name: value if name.startswith(THRESHOLD) else round(value * 100, 2) for name, value in pairs}


def describe(store: RunStore, folder: Path) -> str:
    """A run in lines: its folder, what it trains, its rates, how it came about."""
    try:
        recipe = Recipe.from_file(folder / RECIPE)
    except WsolkitError as error:
        return f"{folder}\nforeign: {error}\n\n{(folder / RECIPE).read_text(errors='replace')}"
    run = store.find(recipe) if recipe.key == folder.name else None
    before = recipe.pretrained.key if isinstance(recipe.pretrained, Recipe) else recipe.pretrained or "nothing"
    options = " ".join(f"{name}={value}" for name, value in recipe.method_options.items())
    lines = {
        "data set": recipe.dataset,
        "backbone": f"{recipe.backbone}, pretrained by {before}",
        "method": f"{_kind(recipe)[2]} ({recipe.method})",
        "options": options or "none",
        "seed": recipe.seed,
        "epochs": f"{store.finished_epochs(recipe)} of {recipe.epochs}" + ("" if run else "; no report yet"),
        "recipe": folder / RECIPE,
    }
    parts = [str(folder), "", *_aligned(lines)]
    if run is not None:
        info = run.info()
        if info["epochs_trained"] < recipe.epochs:
            info["epochs_trained"] = f"{info['epochs_trained']}; those before were a shared warm stage, or kept"
        made = {name.replace("_", " "): value for name, value in info.items() if name not in ABOVE and value != ""}
        for split, found in info["data"].items():
            made[f"data of {split}"] = found
        shown = {name: f"{value:6.2f}" for name, value in _rates(run).items()}
        parts += ["", "CAM on the test split: percent, and best thresholds in [0, 1]", *_aligned(shown)]
        parts += ["", "How it came about", *_aligned(made)]
    return "\n".join(parts)


def _aligned(facts: Mapping[str, object]) -> list[str]:
    return [f"  {name:24} {value}" for name, value in facts.items()]


def compare(store: RunStore, chosen: Sequence[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs side by side, one column a run: the fields of their recipes that differ, and their rates.

    Rates are the CAM's on the test split, in percent, and best thresholds; empty where a run has no report.

    Raises:
        RecipeError: for a recipe that this version cannot read.
    """
    recipes = {folder.name: Recipe.from_file(folder / RECIPE) for folder in chosen}
    fields = pd.DataFrame({name: _fields(recipe) for name, recipe in recipes.items()})
    runs = {name: store.find(recipe) for name, recipe in recipes.items()}
    rates = pd.DataFrame({name: pd.Series(_rates(run) if run else {}, dtype=object) for name, run in runs.items()})
    differing = fields[fields.astype(str).nunique(axis=1) > 1]
    first, second = (each.fillna("").rename_axis("field").reset_index() for each in (differing, rates))
    return first, second


def _fields(recipe: Recipe) -> dict[str, Any]:
    """All fields of a recipe, options by their dotted names, pretraining by its key."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if isinstance(value, Mapping):
            flat |= {f"{field.name}.{name}": each for name, each in value.items()}
        else:
            flat[field.name] = value.key if isinstance(value, Recipe) else value
    return flat


def verify(store: RunStore, chosen: Sequence[Path]) -> Iterator[Checked]:
    """Read everything of some runs: recipe against folder, checkpoints against their hashes, reports.

    Args:
        store: the store.
        chosen: folders of runs.

    Yields:
        One result a run, as it comes.
    """
    for folder in chosen:
        yield Checked(folder.name, tuple(_problems(store, folder)))


def _problems(store: RunStore, folder: Path) -> Iterator[str]:
    try:
        recipe = Recipe.from_file(folder / RECIPE)
    except WsolkitError as error:
        yield str(error)
        return
    if recipe.key != folder.name:
        yield f"{folder / RECIPE} has the key {recipe.key}: another version of the kit wrote it, or it was altered"
    done = (folder / DONE).exists()
    needed = [checkpoints.BEST, *map(checkpoints.snapshot, recipe.snapshot_epochs)] if done else []
    for name in needed:
        if not (folder / name).exists():
            yield f"{folder / name} is missing"
    for path in sorted(folder.glob("*.safetensors")):
        try:
            checkpoints.load(path)
        except WsolkitError as error:
            yield str(error)
    if done:
        try:
            run = Run(recipe, folder)
            run.info(), run.report(), run.history()
        except (OSError, ValueError) as error:
            yield f"the report cannot be read: {error}"


def garbage(store: RunStore) -> list[Garbage]:
    """What could go without any run being trained again; folders of runs always stay."""
    finished = [folder for folder in folders(store) if (folder / DONE).exists()]
    resume = [folder / name for folder in finished for name in (checkpoints.LAST, checkpoints.PREVIOUS)]
    partial = [*store.root.glob(f"*/.*{PARTIAL}"), *store.root.glob(f"{warm_stages.FOLDER}/.*")]
    latest = time.time() - ABANDONED
    found = {
        "the run is finished: nothing resumes from it": filter(Path.exists, resume),
        "left behind by a process that was killed": [path for path in partial if path.stat().st_mtime < latest],
        "a shared warm stage: only runs that begin later would use it": store.root.glob(f"{warm_stages.FOLDER}/[!.]*"),
    }
    every = [Garbage(path, why, _size(path)) for why, paths in found.items() for path in paths]
    return sorted(every, key=lambda each: str(each.path))


def remove(everything: Sequence[Garbage]) -> None:
    """Delete what `garbage` found."""
    for each in everything:
        if each.path.is_dir():
            shutil.rmtree(each.path)
        else:
            each.path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
