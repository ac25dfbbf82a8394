"""The command that examines this machine: what is fine, what is not, and what to type about it."""

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

import typer

from wsolkit import __version__
from wsolkit.cli.options import DataRoot
from wsolkit.errors import WsolkitError
from wsolkit.system import folders
from wsolkit.system.writing import writable_folder

#: Bytes of free disk below which a batch of the demo may not fit.
ROOM = 2e9

#: Colours of the states: fine; fine for the demo, not for everything; to be put right.
COLOURS = {"ok": "green", "note": "yellow", "wrong": "red"}

#: Folders that are written, and the variables that move them.
FOLDERS: dict[str, tuple[Callable[[], Path], str]] = {
    "run store": (folders.runs_root, "WSOLKIT_RUNS"),
    "cache": (folders.cache_root, "WSOLKIT_CACHE"),
    "figures": (folders.figures_root, "WSOLKIT_OUT"),
}


class Finding(NamedTuple):
    """One line of the examination.

    Attributes:
        what: what was examined.
        state: one of :data:`COLOURS`.
        found: what was found.
        remedy: what to type or do; empty if nothing is to be done.
    """

    what: str
    state: str
    found: str
    remedy: str = ""


def doctor(data_root: DataRoot = None) -> None:
    """Examine this machine: what is fine, what is not, what to type.

    Environment, kernel, devices, folders, runs, data. The exit code is 1 if something is wrong.

    Example: wsolkit doctor --data-root data
    """
    wrong = False
    for what, state, found, remedy in examine(data_root):
        wrong |= state == "wrong"
        typer.echo(f"{typer.style(f'{state:5}', COLOURS[state], bold=state == 'wrong')} {what:17} {found}")
        if remedy:
            typer.echo(f"{'':24}{remedy}")
    if wrong:
        raise typer.Exit(1)


def examine(data_root: Path | None = None) -> Iterator[Finding]:
    """Look at environment, kernel, devices, folders, run store and data; nothing is changed.

    Args:
        data_root: folder of the real data sets; None leaves them out.

    Yields:
        Findings, one by one. A look that fails is itself a finding.
    """
    yield Finding("wsolkit", "ok", f"{__version__} in Python {platform.python_version()}, {sys.prefix}")
    looks: dict[str, Callable[[], tuple[str, ...]]] = {"packages": _packages, "kernel": _kernel, "devices": _devices}
    looks |= {name: partial(_folder, *each) for name, each in FOLDERS.items()}
    looks |= {"notebooks": _notebooks, "runs": _runs, "ImageNet weights": _weights, "Slurm": _slurm}
    if data_root is not None:
        from wsolkit import datasets

        looks |= {name: partial(_data, name, data_root) for name in datasets.names()}
    for what, look in looks.items():
        try:
            if found := look():
                yield Finding(what, *found)
        except (WsolkitError, ImportError, OSError, ValueError) as error:
            yield Finding(what, "wrong", str(error))


def _packages() -> tuple[str, ...]:
    """Whether what is installed meets the requirements of the package."""
    from packaging.requirements import Requirement

    missing, shown = [], []
    for requirement in map(Requirement, requires("wsolkit") or []):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            installed = ""
        if not installed or not requirement.specifier.contains(installed, prereleases=True):
            missing.append(f"{requirement} (here: {installed or 'none'})")
        elif requirement.name in ("torch", "torchvision", "numpy", "pandas"):
            shown.append(f"{requirement.name} {installed}")
    if missing:
        return "wrong", "; ".join(missing), f"{sys.executable} -m pip install --upgrade wsolkit"
    return "ok", ", ".join(shown)


def _kernel() -> tuple[str, ...]:
    from wsolkit.batch.runner import KERNEL, check_kernel

    check_kernel()
    return "ok", f"{KERNEL!r} runs this environment"


def _devices() -> tuple[str, ...]:
    import torch

    from wsolkit.system.processes import cores

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return "ok", f"{len(names)} GPU ({names[0]}), {cores()} cores"
    found = f"no GPU, {cores()} cores, torch {torch.__version__}"
    return "note", found, "the demo needs none; the paper's own experiments do"


def _folder(root: Callable[[], Path], variable: str) -> tuple[str, ...]:
    """Whether a folder can be written, or made, and how much room there is."""
    folder = root()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    try:
        writable_folder(there)
    except WsolkitError:
        return "wrong", f"{folder} cannot be written", f"set {variable} to a folder that can"
    found = f"{folder}, {free / 1e9:.0f} GB free"
    if free < ROOM:
        return "wrong", found, "make room; wsolkit runs gc removes what finished runs do not need"
    return "ok", found


def _notebooks() -> tuple[str, ...]:
    from wsolkit.batch.notebooks import find

    return "ok", f"{len(find())} in {folders.notebooks_root()}"


def _runs() -> tuple[str, ...]:
    from wsolkit.cli import housekeeping

    states = housekeeping.listing(housekeeping.open_store())["state"].value_counts()
    found = ", ".join(f"{states.get(state, 0)} {state}" for state in ("done", "begun", "foreign"))
    return "ok", found, "wsolkit runs list" if len(states) else "make figures trains them"


def _weights() -> tuple[str, ...]:
    from wsolkit import models

    missing: dict[str, str] = {}
    for name in models.names():
        model = models.build(name, 1)
        try:
            if model.imagenet_weights is not None:
                models.imagenet_weights_file(model)
        except WsolkitError as error:
            missing[name] = str(error)
    if missing:
        found = f"missing for {', '.join(missing)}; only profile paper needs them"
        return "note", found, next(iter(missing.values()))
    return "ok", f"in {folders.weights_root()}"


def _slurm() -> tuple[str, ...]:
    found = shutil.which("sbatch")
    if not found:
        return "note", "not here", "only --executor slurm needs it"
    try:
        answer = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, check=False, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        answer = ""
    advice = "set SLURM_CONF, or go to a login node; only --executor slurm needs it"
    return ("ok", found) if " UP" in answer else ("note", f"{found}, but no controller answers", advice)


def _data(name: str, root: Path) -> tuple[str, ...]:
    """Whether a data set is complete; nothing of one that needs no files."""
    from wsolkit import datasets

    parts = datasets.find(name).parts(root)
    bad = [part for part in parts if part.state not in ("ok", "unknown")]
    if bad:
        found = f"{len(bad)} of {len(parts)} parts are not: {bad[0].what} is {bad[0].state}"
        return "note", found, f"wsolkit data check {name} --data-root {root}"
    return ("ok", f"complete in {root}") if parts else ()
