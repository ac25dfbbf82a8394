"""What produced a number: versions of package and PyTorch, commit, device, and the files behind a recipe's names."""

import platform
import subprocess

import torch

import wsolkit
from wsolkit.system import folders, registry
from wsolkit.training.machine import Machine
from wsolkit.training.recipes import Recipe


def of(machine: Machine) -> dict[str, str | int]:
    """Versions, commit and device with which runs are trained here."""
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
    named = recipe.components
    return {
        f"methods/{named.method.name}.py": registry.file_hash(named.method.module),
        f"models/{named.backbone.name}.py": registry.file_hash(named.backbone.module),
        f"datasets/{named.data.name}.py": registry.file_hash(named.data.module),
    }


def commit() -> str:
    """The clone's commit, with ``+`` if the package has uncommitted changes; empty outside a clone."""
    known = _git("rev-parse", "--short=10", "HEAD")
    return known and known + ("+" if _git("status", "--porcelain", "--", "wsolkit") else "")


def _git(*arguments: str) -> str:
    clone = folders.clone()
    if clone is None:
        return ""
    try:
        command = ["git", "-C", str(clone), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
