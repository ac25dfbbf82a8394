"""Whether an executed notebook would come out the same: what it was made from, noted in its own metadata."""

import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from wsolkit.reproduce.notebooks import PATHS
from wsolkit.study.study import RUNS_PART
from wsolkit.system import folders
from wsolkit.system.atomic_files import atomic_file
from wsolkit.training.run_store import DONE

#: The entry of a notebook's metadata.
ENTRY = "wsolkit"

#: Files of the package that decide what a notebook shows.
CODE = (".py", ".toml", ".csv", ".json")


def note(notebook: Path, executed: Path, parameters: Mapping[str, Any]) -> None:
    """Note in an executed notebook what it was made from, if it shows runs."""
    if not _list_of_runs(executed).exists():
        return
    content = nbformat.read(executed, nbformat.NO_CONVERT)
    content.metadata[ENTRY] = _stamp(notebook, executed, parameters)
    with atomic_file(executed) as partial:
        nbformat.write(content, partial)


def holds(notebook: Path, executed: Path, parameters: Mapping[str, Any]) -> bool:
    """Whether a notebook was executed with this very code, parameters and runs, and its files are as it left them.

    One that reads files of the user's is not asked: they may have changed.
    """
    if any(parameters.get(name) for name in PATHS if name not in ("data_root", "out_root")):
        return False
    try:
        before = nbformat.read(executed, nbformat.NO_CONVERT).metadata.get(ENTRY)
        return before is not None and before == _stamp(notebook, executed, parameters)
    except Exception:  # never executed, without runs, or damaged: executing it puts that right
        return False


def _stamp(notebook: Path, executed: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Hashes of what an executed notebook was made from, and of the files beside it.

    Raises:
        OSError: if a file or run is missing.
    """
    name, folder = executed.stem, executed.parent
    runs = pd.read_csv(_list_of_runs(executed), dtype=str)["recipe"]
    code = sorted(path for path in folders.PACKAGE.rglob("*") if path.suffix in CODE)
    versions = sorted(f"{each.name} {each.version}" for each in metadata.distributions())
    seen = hashlib.sha256(json.dumps([parameters, versions], sort_keys=True).encode())
    for path in (notebook, *code, *(folders.runs_root() / key / DONE for key in runs)):
        seen.update(path.read_bytes())
    beside = sorted(path for pattern in (f"{name}.*", f"{name}_*") for path in folder.glob(pattern))
    left = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in beside if path != executed}
    return {"made_from": seen.hexdigest(), "left": left}


def _list_of_runs(executed: Path) -> Path:
    return executed.with_name(f"{executed.stem}_{RUNS_PART}.csv")
