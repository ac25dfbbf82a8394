"""What produced a number: versions, commit, processor or device, and the files behind a recipe's names."""

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import wsolkit
from wsolkit.system import folders, registry
from wsolkit.training.machine import Machine
from wsolkit.training.recipes import Recipe

#: Libraries whose versions are kept with a run.
LIBRARIES = ("torchvision", "numpy", "pillow", "opencv-python-headless")

#: Environment variables that choose a CPU's kernels.
CPU_VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "OMP_NUM_THREADS")


def of(machine: Machine) -> dict[str, Any]:
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
        **processor(),
        "libraries": {name: version(name) for name in LIBRARIES} | _arithmetic(),
    }


def processor() -> dict[str, Any]:
    """What decides the last digits of sums on a CPU: its model, the instructions that PyTorch uses, and its cores."""
    return {
        "cpu": _cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_cores": os.cpu_count() or 1,
        "cpu_variables": {name: os.environ[name] for name in CPU_VARIABLES if name in os.environ},
    }


def _cpu_model() -> str:
    """The processor's name as the system tells it; only Linux keeps it in a file."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _arithmetic() -> dict[str, str]:
    """Versions of the libraries of linear algebra and convolution that PyTorch was built with."""
    found = re.findall(r"(oneDNN|Math Kernel Library|MKL-DNN) v?(?:Version )?([\w.]+)", torch.__config__.show())
    return {name.replace("Math Kernel Library", "MKL"): number for name, number in found}


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
