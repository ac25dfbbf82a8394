"""What a training step costs, known without taking it: its operations and its memory, from tensors without content."""

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from wsolkit.methods import Batch, Draw
from wsolkit.training.engine import HALF, Precision
from wsolkit.training.loop import make_optimizer
from wsolkit.training.recipes import Recipe


@dataclass(frozen=True)
class Cost:
    """Of one training step.

    Attributes:
        operations: additions and multiplications of convolutions and matrix products, forward and backward.
        memory: bytes of all tensors at the moment when they are most: weights, gradients, momenta, and what the
            backward pass needs. A GPU needs more: its context, and the workspaces of its libraries.
    """

    operations: int
    memory: int


def step_cost(recipe: Recipe, precision: Precision = "float32", batch_size: int | None = None) -> Cost:
    """What the second step of a recipe costs, when the optimizer has its momenta.

    Args:
        recipe: of a data set whose number of classes is known.
        precision: of the network's passes.
        batch_size: images in the step; None takes the recipe's own.
    """
    method, side = recipe.components.method, recipe.crop_size
    count, classes = batch_size or recipe.batch_size, recipe.components.data.extent.classes
    with FakeTensorMode():
        model = recipe.network(classes).train()
        optimizer, memory = make_optimizer(recipe, model), _Memory([*model.parameters(), *model.buffers()])
        with memory:
            images = torch.empty(count, 3, side, side)
            labels = torch.zeros(count, dtype=torch.long)
            batch = Batch(images, labels, _Given(Generator(), count, range(count)), partners=(images, labels))
            for _ in range(2):
                optimizer.zero_grad()
                with FlopCounterMode(display=False) as counted:
                    with torch.autocast("cpu", HALF.get(precision), enabled=precision in HALF):
                        loss = method.step(model, batch).total()
                    loss.backward()
                optimizer.step()
                del loss
    return Cost(counted.get_total_flops(), memory.peak)


def too_large(recipes: Iterable[Recipe], gigabytes: float) -> list[str]:
    """A line on each kind of step that a GPU's memory cannot hold in single precision."""
    kinds = {(each.dataset, each.backbone, each.label, each.crop_size, each.batch_size): each for each in recipes}
    lines = []
    for (dataset, backbone, label, side, count), recipe in kinds.items():
        if (needed := step_cost(recipe).memory / 1e9) > gigabytes:
            mixed = step_cost(recipe, "bf16").memory / 1e9
            lines.append(
                f"does not fit {gigabytes:g} GB: {dataset}, {backbone}, {label}: {count} images of {side} pixels need "
                f"at least {needed:.1f} GB, with --precision bf16 {mixed:.1f} GB"
            )
    return lines


def gpu_memory() -> float | None:
    """The memory of this machine's GPU in GB, or None."""
    return torch.cuda.get_device_properties(0).total_memory / 1e9 if torch.cuda.is_available() else None


class _Given(Draw):
    """What all images have in common is read by Python, which tensors without content do not allow."""

    def for_all(self, count: int) -> list[float]:
        return [0.5] * count


class _Memory(TorchDispatchMode):
    """Adds up the storages that exist.

    Attributes:
        peak: the most bytes at any time.
    """

    def __init__(self, there: Iterable[Tensor]) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known = weakref.WeakSet[torch.UntypedStorage]()
        self._add(there)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        self._add(each for each in tree_leaves(found) if isinstance(each, Tensor))
        return found

    def _add(self, tensors: Iterable[Tensor]) -> None:
        for storage in (tensor.untyped_storage() for tensor in tensors):
            if storage not in self._known:
                self._known.add(storage)
                self._change(storage.nbytes())
                weakref.finalize(storage, self._change, -storage.nbytes())

    def _change(self, size: int) -> None:
        self._now += size
        self.peak = max(self.peak, self._now)
