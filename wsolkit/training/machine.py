"""`Machine`: what a run uses of the machine it is trained on, none of which decides what a recipe asks for."""

import os
import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy
import torch
from llvmlite.binding import get_host_cpu_name

import wsolkit
from wsolkit import models
from wsolkit.datasets import SPLITS, CachedDataset, OpenedDataset, UncachedDataset, WsolDataset
from wsolkit.errors import TrainingError
from wsolkit.system import folders
from wsolkit.training.engine import Precision
from wsolkit.training.recipes import Recipe

#: Environment variables that choose a CPU's kernels, and so the last digits of a sum.
CPU_VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR")

#: Where Linux tells the name of its processors.
CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Machine:
    """Data, device, cache and precision.

    Attributes:
        data_root: folder or archive of real data; not needed for drawn data.
        device: ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"auto"``: CUDA if there is a GPU, else the CPU.
        cache: folder of decoded images; None keeps them in memory, ``"off"`` decodes them each time they are used.
        precision: of the network's passes, ``"float32"``, ``"bf16"`` or ``"fp16"``; alignment is always in float32.
        parts: passes into which a process splits its images of a batch, to save memory.
        compiled: whether steps are compiled by ``torch.compile``: numbers differ by rounding.
        track: also log epochs here, e.g. ``"tensorboard"``; see `wsolkit.training.tracking`.
    """

    data_root: Path | None = None
    device: str = "auto"
    cache: Path | Literal["off"] | None = None
    precision: Precision = "float32"
    parts: int = 1
    compiled: bool = False
    track: str | None = None

    def torch_device(self) -> torch.device:
        """The device as PyTorch knows it.

        Raises:
            TrainingError: if this machine does not have it.
        """
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            torch.empty(0, device=self.device)
            return torch.device(self.device)
        except (RuntimeError, AssertionError) as error:
            raise TrainingError(f"This machine has no device {self.device!r}. Choose 'auto' or 'cpu'.") from error

    def source(self, recipe: Recipe, split: str) -> WsolDataset:
        """A split of the recipe's data at its training or evaluation size; nothing is decoded yet."""
        return recipe.components.data.open(split, recipe.size_of(split), self.data_root)

    def open(self, recipe: Recipe, split: str) -> OpenedDataset:
        """The same split, each image read once, unless the cache is off."""
        source = self.source(recipe, split)
        return UncachedDataset(source) if self.cache == "off" else CachedDataset(source, self.cache)

    def fingerprints(self, recipe: Recipe) -> dict[str, str]:
        """By split, a text that identifies the recipe's data on this machine.

        Raises:
            DataError: if a split is missing, incomplete or empty.
        """
        return {split: self.source(recipe, split).fingerprint for split in SPLITS}

    def require(self, recipe: Recipe) -> None:
        """Make sure that this machine has the device and the weights that a recipe needs.

        Raises:
            WsolkitError: naming what is missing.
        """
        self.torch_device()
        if isinstance(recipe.pretrained, str):
            models.pretrained_file(recipe.components.backbone.build(1), recipe.pretrained)

    def provenance(self) -> dict[str, str | int]:
        """What produces numbers here: the code, and whatever may change their last digits on another machine."""
        device = self.torch_device()
        return {
            "wsolkit": wsolkit.__version__,
            "commit": commit(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": metadata.version("torchvision"),
            "numpy": numpy.__version__,
            "libraries": "; ".join(re.findall(r"- (.*(?:Kernel Library|MKL-DNN|oneDNN).*)", torch.__config__.show())),
            "cuda": str(torch.version.cuda) if torch.cuda.is_available() else "",
            "device": str(device),
            "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
            "cpu": cpu_model(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "cpu_variables": " ".join(f"{name}={os.environ[name]}" for name in CPU_VARIABLES if name in os.environ),
            "threads": torch.get_num_threads(),
            "precision": self.precision,
            "compiled": self.compiled,
            "parts": self.parts,
            "system": platform.platform(),
        }


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let PyTorch use this many CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cpu_model() -> str:
    """The processor's name as Linux tells it, else as LLVM does."""
    told = CPU_INFO.read_text(errors="replace") if CPU_INFO.exists() else ""
    return next(iter(re.findall(r"^model name\s*: (.+)$", told, re.MULTILINE)), get_host_cpu_name())


def commit() -> str:
    """The clone's commit, with ``+`` if the package has uncommitted changes; empty outside a clone."""
    if (clone := folders.clone()) is None:
        return ""
    command = ["git", "-C", str(clone), "status", "--porcelain=2", "--branch", "--", "wsolkit"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    known = re.search(r"^# branch\.oid ([0-9a-f]{10})", said)
    return known[1] + "+" * bool(re.search(r"^[^#]", said, re.MULTILINE)) if known else ""
