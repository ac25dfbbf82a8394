"""`Machine`: what a run uses of the machine it is trained on, none of which decides its numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from wsolkit import models
from wsolkit.datasets import SPLITS, CachedDataset, OpenedDataset, UncachedDataset, WsolDataset
from wsolkit.errors import TrainingError
from wsolkit.training.engine import Precision
from wsolkit.training.recipes import Recipe


@dataclass(frozen=True)
class Machine:
    """Data, device, cache and precision.

    Attributes:
        data_root: folder or archive of real data; not needed for drawn data.
        device: ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"auto"``: CUDA if there is a GPU, else the CPU.
        cache: folder of decoded images; None keeps them in memory, ``"off"`` decodes them each time they are used.
        precision: of the network's passes, ``"float32"``, ``"bf16"`` or ``"fp16"``; alignment is always in float32.
        parts: passes into which a process splits its images of a batch, to save memory.
        track: also log epochs here, e.g. ``"tensorboard"``; see `wsolkit.training.tracking`.
    """

    data_root: Path | None = None
    device: str = "auto"
    cache: Path | Literal["off"] | None = None
    precision: Precision = "float32"
    parts: int = 1
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


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let PyTorch use this many CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def explain_out_of_memory(images: Tensor, when: str) -> Iterator[None]:
    """Name the batch that did not fit if the device runs out of memory inside the block.

    Raises:
        TrainingError: saying what to try.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        count, side = len(images), images.shape[-1]
        reason = str(error).split(". ")[0].strip()
        raise TrainingError(
            f"Out of memory on {images.device}: {when}, {count} images of {side}x{side}. Finished epochs are kept. "
            f"Try a batch size of {max(1, count // 2)}, or close other programs that use the device. ({reason})"
        ) from error
