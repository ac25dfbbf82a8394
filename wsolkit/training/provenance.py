"""What made a number: the package's version and commit, PyTorch's version, the device."""

import platform
import subprocess
from pathlib import Path

import torch

import wsolkit
from wsolkit.system import folders, registry
from wsolkit.training.loop import Machine
from wsolkit.training.recipes import Recipe


def of(machine: Machine) -> dict[str, str | int]:
    """What makes a run here: versions, commit, device."""
    return {
        "wsolkit": wsolkit.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda) if torch.cuda.is_available() else "",
        "device": str(machine.torch_device()),
        "precision": machine.precision,
        "parts": machine.parts,
        "machine": f"{platform.system()} {platform.machine()}",
    }


def code(recipe: Recipe) -> dict[str, str]:
    """Hashes of the files that a recipe names: its method, backbone and data set."""
    folders = {"method": "methods", "backbone": "models", "dataset": "datasets"}
    named = {kind: getattr(recipe, kind) for kind in folders}
    return {
        f"{folders[kind]}/{name}.py": registry.file_hash(f"wsolkit.{folders[kind]}", kind, name)
        for kind, name in named.items()
    }


def commit() -> str:
    """The commit of the clone, with ``+`` where the package has changes, or an empty text outside a clone."""
    clone = folders.clone()
    if clone is None:
        return ""
    known = _git(clone, "rev-parse", "--short=10", "HEAD")
    return known and known + ("+" if _git(clone, "status", "--porcelain", "--", "wsolkit") else "")


def _git(clone: Path, *arguments: str) -> str:
    try:
        command = ["git", "-C", str(clone), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
