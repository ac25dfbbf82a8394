"""The command that examines this machine: what is fine, what is not, and what to type about it."""

import platform
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import distributions, requires
from pathlib import Path
from typing import NamedTuple

import typer

from wsolkit import __version__
from wsolkit.cli.options import DataRoot
from wsolkit.errors import WsolkitError
from wsolkit.system import folders
from wsolkit.system.atomic_files import writable_folder

#: Bytes of free disk below which a batch of the demo may not fit.
ROOM = 2e9

#: Colours of the states: fine; fine for the demo, not for everything; to be put right.
COLOURS = {"ok": "green", "note": "yellow", "wrong": "red"}


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
        Findings, one by one. A probe that fails is itself a finding.
    """
    from wsolkit import datasets

    yield Finding("wsolkit", "ok", f"{__version__} in Python {platform.python_version()}, {sys.prefix}")
    probes: dict[str, Callable[[], tuple[str, ...]]] = {
        "packages": _packages,
        "kernel": _kernel,
        "devices": _devices,
        "run store": partial(_folder, folders.runs_root(), "WSOLKIT_RUNS"),
        "cache": partial(_folder, folders.cache_root(), "WSOLKIT_CACHE"),
        "figures": partial(_folder, folders.figures_root(), "WSOLKIT_OUT"),
        "runs": _runs,
        "ImageNet weights": _weights,
        "Slurm": _slurm,
    }
    probes |= {name: partial(_data, name, data_root) for name in datasets.names() if data_root}
    for what, probe in probes.items():
        try:
            if found := probe():
                yield Finding(what, *found)
        except (WsolkitError, ImportError, OSError, ValueError) as error:
            yield Finding(what, "wrong", str(error))


def _packages() -> tuple[str, ...]:
    """Whether what is installed meets the requirements of the package."""
    from packaging.requirements import Requirement

    needed = [Requirement(line) for line in requires("wsolkit") or []]
    needed = [each for each in needed if not each.marker or each.marker.evaluate({"extra": ""})]
    here = {each.name: next((found.version for found in distributions(name=each.name)), "none") for each in needed}
    fits = {each: here[each.name] != "none" and each.specifier.contains(here[each.name], True) for each in needed}
    if missing := [each for each in needed if not fits[each]]:
        found = "; ".join(f"{each} (here: {here[each.name]})" for each in missing)
        return "wrong", found, shlex.join([sys.executable, "-m", "pip", "install", *map(str, missing)])
    return "ok", ", ".join(f"{name} {here[name]}" for name in ("torch", "torchvision", "numpy", "pandas"))


def _kernel() -> tuple[str, ...]:
    from wsolkit.reproduce.runner import KERNEL, check_kernel

    check_kernel()
    return "ok", f"{KERNEL!r} runs this environment"


def _devices() -> tuple[str, ...]:
    import torch

    if torch.cuda.is_available():
        return "ok", f"{torch.cuda.device_count()} GPU ({torch.cuda.get_device_name(0)})"
    return "note", "no GPU", "the demo needs none; the paper's own experiments do"


def _folder(folder: Path, variable: str) -> tuple[str, ...]:
    """Whether a folder can be written, or made, and how much room there is."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    try:
        writable_folder(there)
    except WsolkitError:
        return "wrong", f"{folder} cannot be written", f"set {variable} to a folder that can"
    if free < ROOM:
        return "wrong", f"{folder}, {free / 1e9:.1f} GB free", "make room, for example with wsolkit runs gc"
    return "ok", f"{folder}, {free / 1e9:.0f} GB free"


def _runs() -> tuple[str, ...]:
    from wsolkit.cli import housekeeping

    states = housekeeping.listing(housekeeping.open_store())["state"].tolist()
    return "ok", ", ".join(f"{states.count(state)} {state}" for state in ("done", "begun", "foreign"))


def _weights() -> tuple[str, ...]:
    from wsolkit import models

    for model in (models.build(name, 1) for name in models.names()):
        try:
            if model.imagenet_weights is not None:
                models.imagenet_weights_file(model)
        except WsolkitError as error:
            return "note", "some are missing; profiles photos, laptop and paper need them", str(error)
    return "ok", f"in {folders.weights_root()}"


def _slurm() -> tuple[str, ...]:
    found = shutil.which("sbatch")
    return ("ok", found) if found else ("note", "not here", "only --executor slurm needs it")


def _data(name: str, root: Path) -> tuple[str, ...]:
    """Whether a data set is complete; nothing of one that needs no files."""
    from wsolkit import datasets

    parts = datasets.find(name).parts(root)
    bad = [part for part in parts if part.state not in ("ok", "unknown")]
    if bad:
        found = f"{len(bad)} of {len(parts)} parts not ok: {bad[0].what} is {bad[0].state}"
        return "note", found, f"wsolkit data check {name} --data-root {root}"
    return ("ok", f"complete in {root}") if parts else ()
