"""Keeping a run store: what is in it, whether it is whole, and what could be removed."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from wsolkit.errors import RecipeError, WsolkitError
from wsolkit.system.atomic_files import PARTIAL
from wsolkit.system.folders import runs_root
from wsolkit.training import checkpoints, warm_stages
from wsolkit.training.machine import Machine
from wsolkit.training.recipes import PRETRAINING, Recipe
from wsolkit.training.run_store import DONE, RECIPE, Run, RunStore

COLUMNS = ("run", "made", "dataset", "backbone", "method", "options", "seed", "epochs", "state", "gt_known_loc", "MB")

#: What the names of thresholds begin with; all other rates are shares of images.
THRESHOLD = "best_threshold"

#: What the names of a method's options begin with.
OPTION = "method_options."

#: Seconds after which a file is no longer being written: no file of a run takes that long.
ABANDONED = 3600

#: What reading a damaged report or ``run.json`` raises.
DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError)


def open_store() -> RunStore:
    """The run store of this machine."""
    return RunStore(runs_root(), Machine())


def folders(store: RunStore, beginnings: Iterable[str] = ()) -> list[Path]:
    """The folders of runs, finished or not.

    Args:
        store: the run store.
        beginnings: of the runs' keys, or the whole keys; with none, all runs are meant.

    Raises:
        RecipeError: if no run, or more than one, has a key that begins so.
    """
    known = sorted(path.parent for path in store.root.glob(f"*/{RECIPE}"))
    chosen = []
    for beginning in beginnings:
        found = [folder for folder in known if folder.name.startswith(beginning)]
        if len(found) != 1:
            hint = "Give more of the key" if found else "`wsolkit runs list` lists them"
            raise RecipeError(f"{len(found)} of {len(known)} runs have a key beginning with {beginning!r}. {hint}.")
        chosen += found
    return chosen or known


def read_run(store: RunStore, folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What is known about a run, by dotted names.

    Returns:
        The recipe's fields, with its key, its label in the paper's rows, its state and epochs, and with pretraining by
        its key; the CAM's rates on the test split, in percent, and best thresholds, in [0, 1]; how the run was made.
        The last two are empty unless there is a report that can be read: `problems` says why.

    Raises:
        RecipeError: for a recipe that this version cannot read.
    """
    recipe = Recipe.from_file(folder / RECIPE)
    state = "foreign" if recipe.key != folder.name else "done" if store.find(recipe) else "begun"
    epochs, rates, made = 0, {}, {}
    with suppress(*DAMAGED):
        epochs = store.finished_epochs(recipe)
        if state == "done":
            run = Run(recipe, folder)
            made = run.info() | {"code": None}  # hashes are for programs
            cam = run.report().rates.set_index(["map", "metric"])["value"]["cam"]
            percent = cam.where(cam.index.str.startswith(THRESHOLD), cam * 100)
            rates = percent.round(2).to_dict()
    fields = json.loads(recipe.to_json()) | {"key": recipe.key, "label": recipe.label, "state": state}
    before = getattr(recipe.pretrained, "key", recipe.pretrained)
    fields |= {"epochs": f"{epochs}/{recipe.epochs}", "pretrained": before}
    flat, flat_made = (pd.json_normalize([nested]).iloc[0].to_dict() for nested in (fields, made))
    return flat, rates, flat_made


def listing(store: RunStore) -> pd.DataFrame:
    """One row a run, the newest first, columns :data:`COLUMNS`.

    ``made`` is when it was finished, or else begun; ``method`` is named as in the paper's rows, with
    :data:`~wsolkit.training.recipes.PRETRAINING` if other runs begin with its weights; ``options`` are those in which
    it differs from more than half of the runs of its data set, backbone and method; ``gt_known_loc`` is in percent on
    the test split, or NaN. A recipe that this version cannot read, or whose key has changed, is in state ``foreign``.
    """
    rows: list[dict[str, Any]] = []
    for folder in folders(store):
        written = (folder / (DONE if (folder / DONE).exists() else RECIPE)).stat().st_mtime
        made = datetime.fromtimestamp(written).isoformat(" ", "minutes")
        rows.append({"run": folder.name, "made": made, "state": "foreign", "MB": round(_size(folder) / 1e6, 1)})
        with suppress(WsolkitError):
            fields, rates, _ = read_run(store, folder)
            rows[-1] |= fields | rates
    pretraining = {row.get("pretrained") for row in rows} - {None}
    alike = Counter(option[:length] for row in rows for option in _options(row) for length in (2, 3))
    for row in rows:
        unusual = [option for option in _options(row) if 2 * alike[option] <= alike[option[:2]]]
        row["options"] = " ".join(f"{name}={value}" for _, name, value in unusual)
        row["method"] = f"{row['label']}, {PRETRAINING}" if row.get("key") in pretraining else row.get("label")
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64", "gt_known_loc": float})
    return table.sort_values("made", ascending=False, ignore_index=True)


def _options(row: Mapping[str, Any]) -> list[tuple[tuple[str, ...], str, str]]:
    """The options of a run's method: the kind of the run, the option's name and its value."""
    kind = tuple(row.get(name, "") for name in ("dataset", "backbone", "label"))
    return [(kind, name.removeprefix(OPTION), str(row[name])) for name in row if name.startswith(OPTION)]


def side_by_side(store: RunStore, chosen: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """Tables with a row a field and a column a run: the recipes, the rates, and how the runs were made.

    Fields in which several runs agree are left out, except for rates.

    Raises:
        RecipeError: for a recipe that this version cannot read.
    """
    runs = {folder.name: read_run(store, folder) for folder in chosen}
    recipes, rates, made = (
        pd.DataFrame([run[part] for run in runs.values()], [*runs], dtype=object).T for part in range(3)
    )
    if len(runs) > 1:
        recipes, made = (each[each.astype(str).nunique(axis=1) > 1] for each in (recipes, made))
    tables = {
        "Recipe": recipes,
        "CAM on the test split: percent, and best thresholds in [0, 1]": rates,
        "How it was made; epochs, seconds and images/s of the last attempt": made,
    }
    return {title: table.fillna("").rename_axis("field").reset_index() for title, table in tables.items()}


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
    done, files = (folder / DONE).exists(), {*folder.glob("*.safetensors")}
    if done:
        files |= {folder / name for name in (checkpoints.BEST, *map(checkpoints.snapshot, recipe.snapshot_epochs))}
    for path in sorted(files):
        try:
            checkpoints.load(path)
        except (WsolkitError, *DAMAGED) as error:
            yield str(error) if path.exists() else f"{path} is missing"
    if done:
        try:
            run = Run(recipe, folder)
            dict(run.info()), run.report(), run.history()
        except DAMAGED as error:
            yield f"the report cannot be read: {error}"


def garbage(store: RunStore) -> list[tuple[Path, str, int]]:
    """What could be removed without any run being trained again: files or folders, why nothing is lost, and bytes.

    Folders of runs always stay.
    """
    stages, begun_before = store.root / warm_stages.FOLDER, time.time() - ABANDONED
    found: dict[Path, str] = {}
    for done in store.root.glob(f"*/{DONE}"):
        resume = [done.with_name(name) for name in (checkpoints.LAST, checkpoints.PREVIOUS)]
        found |= dict.fromkeys(resume, "the run is finished: nothing resumes from it")
    for path in (*store.root.glob(f"*/.*{PARTIAL}"), *stages.glob(".*")):
        with suppress(OSError):  # finished meanwhile
            if path.stat().st_mtime < begun_before:
                found[path] = "left behind by a process that was killed"
    found |= dict.fromkeys(stages.glob("[!.]*"), "a shared warm stage: only runs that begin later would use it")
    return sorted((path, why, _size(path)) for path, why in found.items() if path.exists())


def remove(everything: Iterable[Path]) -> None:
    """Delete files and folders that `garbage` found."""
    for path in everything:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    """Bytes of a file or folder; files that vanish meanwhile count nothing."""
    total = 0
    for file in (path, *path.rglob("*")):
        with suppress(OSError):
            total += file.stat().st_size if file.is_file() else 0
    return total
