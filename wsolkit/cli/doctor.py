"""What is fine on this machine, what is not, and what to type about it."""

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from wsolkit import __version__
from wsolkit.errors import WsolkitError
from wsolkit.system import folders
from wsolkit.system.writing import writable_folder

ROOM = 2e9
"""Bytes of disk below which a batch of the demo may not fit."""

FOLDERS: dict[str, tuple[Callable[[], Path], str]] = {
    "run store": (folders.runs_root, "WSOLKIT_RUNS"),
    "cache": (folders.cache_root, "WSOLKIT_CACHE"),
    "figures": (folders.figures_root, "WSOLKIT_OUT"),
}
"""What is written, and the variable that puts it elsewhere."""


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes:
        what: what was looked at.
        state: ``"ok"``, ``"note"`` (fine for the demo, not for everything), or ``"wrong"``.
        found: what was found.
        remedy: what to type or do; empty where nothing is to be done.
    """

    what: str
    state: Literal["ok", "note", "wrong"]
    found: str
    remedy: str = ""


def examine(data_root: Path | None = None) -> Iterator[Finding]:
    """Look at environment, kernel, devices, folders, run store and data.

    Args:
        data_root: folder of the real data sets; None leaves them out.

    Yields:
        Findings as they come; nothing is changed.
    """
    yield Finding("wsolkit", "ok", f"{__version__} in Python {platform.python_version()}, {sys.prefix}")
    yield _packages()
    yield _checked("kernel", _kernel)
    yield _device()
    for name, (folder, variable) in FOLDERS.items():
        yield _folder(name, folder(), variable)
    yield _checked("notebooks", lambda: f"{len(_notebooks())} in {folders.notebooks_root()}")
    yield _runs()
    yield _weights()
    yield _slurm()
    if data_root is not None:
        yield from _data(data_root)


def _checked(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, "ok", look())
    except (WsolkitError, ImportError) as error:
        return Finding(what, "wrong", str(error))


def _packages() -> Finding:
    """Whether the requirements of the package are met by what is installed."""
    from packaging.requirements import Requirement

    missing, shown = [], []
    for line in requires("wsolkit") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            installed = "none"
        if installed == "none" or not requirement.specifier.contains(installed, prereleases=True):
            missing.append(f"{requirement} (here: {installed})")
        elif requirement.name in ("torch", "torchvision", "numpy", "pandas"):
            shown.append(f"{requirement.name} {installed}")
    if missing:
        return Finding("packages", "wrong", "; ".join(missing), f"{sys.executable} -m pip install --upgrade wsolkit")
    return Finding("packages", "ok", ", ".join(shown))


def _kernel() -> str:
    from wsolkit.batch.runner import KERNEL, check_kernel

    check_kernel()
    return f"{KERNEL!r} runs this environment"


def _device() -> Finding:
    import torch

    from wsolkit.system.processes import cores

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return Finding("devices", "ok", f"{len(names)} GPU ({names[0]}), {cores()} cores")
    remedy = "the demo needs none; the paper's own experiments do"
    return Finding("devices", "note", f"no GPU, {cores()} cores, torch {torch.__version__}", remedy)


def _folder(name: str, folder: Path, variable: str) -> Finding:
    """Whether a folder can be written, or made, and how much room there is."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    try:
        writable_folder(there)
    except WsolkitError:
        return Finding(name, "wrong", f"{folder} cannot be written", f"set {variable} to a folder that can")
    found = f"{folder}, {free / 1e9:.0f} GB free"
    if free < ROOM:
        return Finding(name, "wrong", found, "make room; wsolkit runs gc removes what finished runs do not need")
    return Finding(name, "ok", found)


def _notebooks() -> list[Path]:
    from wsolkit.batch.notebooks import find

    return find()


def _runs() -> Finding:
    from wsolkit.cli import housekeeping
    from wsolkit.training.machine import Machine
    from wsolkit.training.run_store import RunStore

    table = housekeeping.listing(RunStore(folders.runs_root(), Machine()))
    states = table["state"].value_counts()
    found = ", ".join(f"{states.get(state, 0)} {state}" for state in ("done", "begun", "foreign"))
    return Finding("runs", "ok", found, "wsolkit runs list" if len(table) else "make figures trains them")


def _weights() -> Finding:
    from wsolkit import models

    missing: dict[str, str] = {}
    for name in models.names():
        model = models.build(name, 1)
        if model.imagenet_weights is None:
            continue
        try:
            models.imagenet_weights_file(model)
        except WsolkitError as error:
            missing[name] = str(error)
    if missing:
        said = f"missing for {', '.join(missing)}; only profile paper needs them"
        return Finding("ImageNet weights", "note", said, next(iter(missing.values())))
    return Finding("ImageNet weights", "ok", f"in {folders.weights_root()}")


def _slurm() -> Finding:
    found = shutil.which("sbatch")
    if not found:
        return Finding("Slurm", "note", "not here", "only --executor slurm needs it")
    try:
        answer = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        answer = None
    if answer is None or answer.returncode or " UP" not in answer.stdout:
        advice = "set SLURM_CONF, or go to a login node; only --executor slurm needs it"
        return Finding("Slurm", "note", f"{found}, but no controller answers", advice)
    return Finding("Slurm", "ok", found)


def _data(root: Path) -> Iterator[Finding]:
    from wsolkit import datasets

    for name in datasets.names():
        parts = datasets.find(name).parts(root)
        if not parts:
            continue
        bad = [part for part in parts if part.state not in ("ok", "unknown")]
        if not bad:
            yield Finding(name, "ok", f"complete in {root}")
        else:
            found = f"{len(bad)} of {len(parts)} parts are not: {bad[0].what} is {bad[0].state}"
            yield Finding(name, "note", found, f"wsolkit data check {name} --data-root {root}")
