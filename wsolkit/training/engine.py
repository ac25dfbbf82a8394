"""How a training step is taken: in this process, or through Accelerate on several devices or in mixed precision.

None of this changes what a recipe asks for: the batch is the recipe's, shared among the processes and among the parts
of each, and every image meets the same crop and the same dropout as in one process.
"""

import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from wsolkit.errors import TrainingError
from wsolkit.methods import Draw, Step
from wsolkit.training.loading import share

#: How long processes wait for the main one, which evaluates alone.
PATIENCE = timedelta(days=1)

Precision = Literal["float32", "bf16", "fp16"]


class Engine:
    """One process, full precision: plain PyTorch.

    Attributes:
        device: where networks are trained.
        rank: number of this process among all that train together.
        world: how many those are.
    """

    rank, world = 0, 1

    def __init__(self, device: torch.device):
        """Take steps on this device."""
        self.device = device

    @property
    def main(self) -> bool:
        """Whether this process is the one that evaluates epochs and writes files."""
        return self.rank == 0

    def prepare(self, module: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """What to call instead of both."""
        return module, optimizer

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of a loss."""
        loss.backward()

    def unsynchronised(self, module: nn.Module) -> AbstractContextManager:
        """A block whose gradients stay in this process until a later part of the step."""
        return nullcontext()

    def sum(self, values: list[float]) -> list[float]:
        """The sums of some numbers over all processes."""
        return values

    def agree(self, answer: bool) -> bool:
        """The main process's answer, in all processes."""
        return answer

    def wait(self) -> None:
        """Wait until all processes arrive."""

    def state(self) -> dict[str, Any]:
        """What steps change besides network and optimizer, as plain numbers by name; nothing here."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`."""


class AcceleratedEngine(Engine):
    """Several processes or mixed precision, through Hugging Face Accelerate."""

    def __init__(self, device: torch.device, precision: Precision):
        """Join the processes that a launcher started, if one did."""
        try:
            from accelerate import Accelerator
            from accelerate.utils import InitProcessGroupKwargs
        except ImportError:
            raise TrainingError(
                "Several processes and mixed precision need Accelerate: pip install 'wsolkit[cluster]'."
            ) from None

        self._accelerator = Accelerator(
            mixed_precision="no" if precision == "float32" else precision,
            cpu=device.type == "cpu",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        )
        super().__init__(self._accelerator.device)
        self.rank, self.world = self._accelerator.process_index, self._accelerator.num_processes

    def prepare(self, module: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """As in the base class; on GPUs, batch normalisation then sees the batches of all processes."""
        if self.world > 1 and self.device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return self._accelerator.prepare(module, optimizer)

    def backward(self, loss: Tensor) -> None:
        """As in the base class, scaled if the precision needs it."""
        self._accelerator.backward(loss)

    def unsynchronised(self, module: nn.Module) -> AbstractContextManager:
        """As in the base class."""
        return self._accelerator.no_sync(module)

    def sum(self, values: list[float]) -> list[float]:
        """As in the base class."""
        if self.world == 1:
            return values
        numbers = torch.tensor(values, dtype=torch.float64, device=self.device)
        return self._accelerator.reduce(numbers, "sum").tolist()

    def agree(self, answer: bool) -> bool:
        """As in the base class."""
        return self.sum([float(answer and self.main)])[0] > 0

    def wait(self) -> None:
        """As in the base class."""
        self._accelerator.wait_for_everyone()

    def state(self) -> dict[str, Any]:
        """The scale of the loss, which ``fp16`` adapts during training."""
        scaler = self._accelerator.scaler
        return {} if scaler is None else scaler.state_dict()

    def restore(self, state: Mapping[str, Any]) -> None:
        """As in the base class."""
        if self._accelerator.scaler is not None and state:
            self._accelerator.scaler.load_state_dict(dict(state))


def open_engine(device: torch.device, precision: Precision = "float32") -> Engine:
    """The engine for the processes that a launcher (``torchrun``, ``accelerate launch``) started, or for this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 and precision == "float32":
        return Engine(device)
    return AcceleratedEngine(device, precision)


class SharedDraws:
    """Uniform random numbers for a whole batch, drawn once; each part of the batch takes its own share."""

    def __init__(self, generator: Generator, images: int):
        """Draw from a CPU generator for this many images."""
        self._generator, self._images = generator, images
        self._drawn: list[Tensor] = []

    def part(self, images: range) -> Draw:
        """What images ``images`` of the batch draw; every part's n-th call gets its share of the n-th drawing."""
        number = itertools.count()

        def draw(shape: Sequence[int]) -> Tensor:
            call = next(number)
            if call == len(self._drawn):
                self._drawn.append(torch.rand((self._images, *shape[1:]), generator=self._generator))
            return self._drawn[call][images.start : images.stop]

        return draw


class Stepper(nn.Module):
    """A network and a method's step in one module, which is what Accelerate wraps."""

    def __init__(self, model: nn.Module, step: Callable[..., Step]):
        """Take a network and a step (`wsolkit.methods.Method.step`)."""
        super().__init__()
        self.model, self._step = model, step

    def forward(self, images: Tensor, labels: Tensor, warm: bool, draw: Draw) -> tuple[Tensor, Tensor, dict]:
        """The total loss, the number of correctly classified images, and the loss terms by name.

        Raises:
            TrainingError: if the method, which may be anybody's, does not return a `Step` with scalar terms.
        """
        outcome = self._step(self.model, images, labels, warm, draw)
        if not isinstance(outcome, Step):
            raise TrainingError(
                f"The method's step returned a {type(outcome).__name__}; expected a Step (docs/extending.md)."
            )
        for name, term in outcome.terms.items():
            if term.value.ndim:
                shape = tuple(term.value.shape)
                raise TrainingError(f"The method's loss term {name!r} has the shape {shape}; expected a scalar.")
        right = (outcome.logits.argmax(1) == labels).sum()
        return outcome.total(), right, {name: term.value for name, term in outcome.terms.items()}


@dataclass(frozen=True)
class StepResult:
    """What a step says about its batch, over all processes.

    Attributes:
        losses: by name, ``"total"`` first, the sum over the images.
        right: correctly classified images.
        seen: images.
    """

    losses: dict[str, float]
    right: int
    seen: int

    @property
    def broken(self) -> list[str]:
        """Names of the losses that are not finite; if there are any, the network was not changed."""
        names = [name for name, value in self.losses.items() if not math.isfinite(value)]
        return [name for name in names if name != "total"] or names


@dataclass(frozen=True)
class Batch:
    """A process's share of a batch.

    Attributes:
        images: (B, 3, H, W), normalised.
        labels: (B,) class indices.
        randomness: CPU generator of whatever the method draws for the whole batch.
        mine: which images of the batch these are.
        size: images of the whole batch, over all processes.
    """

    images: Tensor
    labels: Tensor
    randomness: Generator
    mine: range
    size: int

    @classmethod
    def whole(cls, images: Tensor, labels: Tensor, randomness: Generator) -> "Batch":
        """A batch that one process has to itself."""
        return cls(images, labels, randomness, range(len(images)), len(images))


def optimise(
    engine: Engine, stepper: nn.Module, optimizer: Optimizer, batch: Batch, warm: bool = False, parts: int = 1
) -> StepResult:
    """One optimisation step.

    Args:
        engine: how.
        stepper: from `Engine.prepare`, in training mode; changed, unless a loss is not finite.
        optimizer: from `Engine.prepare`.
        batch: the images to learn from.
        warm: whether this is the warm stage.
        parts: forward and backward passes into which the images are split, one after the other, to save memory.
            Batch normalisation then sees one part at a time.
    """
    draws = SharedDraws(batch.randomness, batch.size)
    optimizer.zero_grad()
    shares = [part for number in range(parts) if len(part := share(batch.mine, number, parts))]
    found = []
    for part in shares:
        here = slice(part.start - batch.mine.start, part.stop - batch.mine.start)
        with nullcontext() if part == shares[-1] else engine.unsynchronised(stepper):
            total, right, terms = stepper(batch.images[here], batch.labels[here], warm, draws.part(part))
            # Gradients are averaged over processes; with this factor they are those of the mean over the batch.
            factor = len(part) * engine.world / batch.size
            engine.backward(total if factor == 1 else total * factor)
        found.append(torch.stack([total.detach(), *(term.detach() for term in terms.values()), right]))
    # One copy to the CPU for all numbers of the step: each copy would stall a GPU.
    rows = torch.stack(found).tolist()
    counts, names = [len(part) for part in shares], ["total", *terms]
    losses = [sum(count * row[n] for count, row in zip(counts, rows, strict=True)) for n in range(len(names))]
    *losses, right, seen = engine.sum([*losses, sum(row[-1] for row in rows), sum(counts)])
    result = StepResult(dict(zip(names, losses, strict=True)), int(right), int(seen))
    if not result.broken:
        optimizer.step()
    return result
