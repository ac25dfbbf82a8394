"""One optimisation step: in this process or shared among several, in full or mixed precision, whole or in parts.

None of this changes what a recipe asks for: the batch is the recipe's, shared among the processes and among the parts
of each, and every image meets the same crop and the same dropout as in one process.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Literal

import torch
from torch import Generator, Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from wsolkit.errors import TrainingError
from wsolkit.methods import Batch, Draw, Step
from wsolkit.training.loading import Loaded, share

#: How long processes wait for the main one, which evaluates alone.
PATIENCE = timedelta(days=1)

Precision = Literal["float32", "bf16", "fp16"]

#: Types of the network's passes in mixed precision.
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}

#: The column of the history that has the sum of all losses, and the name of the number of images among `totals`.
TOTAL, IMAGES = "loss_total", "images"


class Engine:
    """The processes that share every batch, and the precision of their passes.

    Attributes:
        device: where this process trains.
        rank: number of this process among all that train together.
        world: how many those are.
        autocast: a block in which passes have the precision.
    """

    def __init__(self, device: torch.device, precision: Precision = "float32"):
        """Join the processes that a launcher (``torchrun``, ``accelerate launch``) started, if one did."""
        self.device = device
        self.rank, self.world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        gpus = torch.cuda.device_count() if device.type == "cuda" else 0
        if self.world > 1 and gpus:
            self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % gpus)
            torch.cuda.set_device(self.device)
        if self.world > 1 and not distributed.is_initialized():
            # NCCL refuses processes that share a GPU.
            alone = gpus >= int(os.environ.get("LOCAL_WORLD_SIZE", self.world))
            distributed.init_process_group("nccl" if alone else "gloo", timeout=PATIENCE)
        # What processes tell each other besides gradients stays on the CPU.
        self._words: Any = distributed.new_group(backend="gloo", timeout=PATIENCE) if self.world > 1 else None
        self.autocast = torch.autocast(device.type, HALF.get(precision), enabled=precision in HALF)
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    @property
    def main(self) -> bool:
        """Whether this process is the one that evaluates epochs and writes files."""
        return self.rank == 0

    def prepare(self, stepper: nn.Module) -> nn.Module:
        """What to call instead of a `Stepper`, so that gradients are averaged over the processes.

        On GPUs, batch normalisation then sees the batches of all processes.
        """
        if self.world == 1:
            return stepper
        if self.device.type == "cpu":
            return DistributedDataParallel(stepper)
        return DistributedDataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(stepper), device_ids=[self.device])

    def unsynchronised(self, stepper: nn.Module) -> AbstractContextManager:
        """A block whose gradients stay in this process until a later part of the step."""
        return stepper.no_sync() if isinstance(stepper, DistributedDataParallel) else nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of a loss, which is scaled if the precision needs it."""
        self._scaler.scale(loss).backward()

    def step(self, optimizer: Optimizer) -> None:
        """Let the optimizer use the gradients."""
        self._scaler.step(optimizer)
        self._scaler.update()

    def sum(self, values: Tensor) -> Tensor:
        """The sums of CPU numbers over all processes; each waits for the others, none for its GPU."""
        if self.world > 1:
            distributed.all_reduce(values, group=self._words)
        return values

    def gather(self, draw: Draw, values: Tensor) -> Tensor:
        """Rows (B, ...) on a process's images to those of the whole batch; see `Batch.gather`."""
        whole = values.new_zeros((draw.images, *values.shape[1:]))
        whole[draw.part.start : draw.part.stop] = values.detach()
        if self.world > 1:
            distributed.all_reduce(whole)
        return whole

    def agree(self, answer: bool) -> bool:
        """The main process's answer, in all processes."""
        return bool(self.sum(torch.tensor(float(answer and self.main))) > 0)

    def wait(self) -> None:
        """Wait until all processes arrive."""
        self.sum(torch.zeros(1))

    def state(self) -> dict[str, Any]:
        """What steps change besides network and optimizer: the scale of the loss, which ``fp16`` adapts."""
        return self._scaler.state_dict()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`; an empty one changes nothing."""
        if state:
            self._scaler.load_state_dict(dict(state))


class Stepper(nn.Module):
    """A network and a method's step in one module, because processes share the gradients of a module."""

    def __init__(self, model: nn.Module, step: Callable[..., Step]):
        """Take a network and a step (`wsolkit.methods.Method.step`)."""
        super().__init__()
        self.model, self._step = model, step

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, dict]:
        """The total loss, the share of correctly classified images, and the loss terms by name.

        Raises:
            TrainingError: if the method, which may be anybody's, does not return a `Step` with scalar terms.
        """
        outcome = self._step(self.model, batch)
        if not isinstance(outcome, Step):
            raise TrainingError(f"The step returned a {type(outcome).__name__}; expected a Step (docs/extending.md).")
        for name, term in outcome.terms.items():
            if term.value.ndim:
                shape = tuple(term.value.shape)
                raise TrainingError(f"The method's loss term {name!r} has the shape {shape}; expected a scalar.")
        right = (outcome.logits.argmax(1) == batch.labels).float().mean()
        return outcome.total(), right, {name: term.value for name, term in outcome.terms.items()}


@dataclass(frozen=True)
class Taken:
    """What is known of one optimisation step in this process.

    Attributes:
        names: of the columns: the losses, and the share of correctly classified images.
        means: (parts, columns) over the images of each part, on the device.
        counts: images of each part.
    """

    names: tuple[str, ...]
    means: Tensor
    counts: list[int]


def totals(engine: Engine, steps: Sequence[Taken], first: int = 1) -> dict[str, float]:
    """What some steps add up to over all processes; only here does anybody wait for the device.

    Args:
        engine: that took the steps.
        steps: one after the other, of one stage.
        first: the number of the first.

    Returns:
        By name, sums over all images, and the number of those by :data:`IMAGES`.

    Raises:
        FloatingPointError: naming the first step whose losses are not finite, and these losses.
    """
    if not steps:
        return {}
    means = torch.cat([step.means for step in steps]).cpu().double()
    counts = torch.tensor([count for step in steps for count in step.counts], dtype=means.dtype)[:, None]
    number = torch.tensor([number for number, step in enumerate(steps) for _ in step.counts])
    rows = torch.zeros(len(steps), means.shape[1] + 1, dtype=means.dtype)
    rows = engine.sum(rows.index_add(0, number, torch.cat([means * counts, counts], 1)))
    names = (*steps[0].names, IMAGES)
    for step, row in enumerate(rows.tolist(), first):
        if broken := [name for name, value in zip(names, row, strict=True) if not math.isfinite(value)]:
            terms = [repr(name.removeprefix("loss_")) for name in broken if name != TOTAL or broken == [TOTAL]]
            raise FloatingPointError(f"step {step}, term {', '.join(terms)}")
    return dict(zip(names, rows.sum(0).tolist(), strict=True))


def optimise(
    engine: Engine,
    stepper: nn.Module,
    optimizer: Optimizer,
    batch: Loaded,
    randomness: Generator,
    warm: bool = False,
    parts: int = 1,
) -> Taken:
    """One optimisation step, which never waits for the device.

    Args:
        engine: how.
        stepper: from `Engine.prepare`, in training mode; changed.
        optimizer: of its parameters.
        batch: this process's share of the images to learn from.
        randomness: CPU generator of whatever the method draws for the whole batch, alike in all processes.
        warm: whether this is the warm stage.
        parts: forward and backward passes into which the images are split, one after the other, to save memory.
            Batch normalisation then sees one part at a time.

    Returns:
        Its losses, which may not be finite, by columns of the history; see `totals`.
    """
    optimizer.zero_grad()
    shares = [part for number in range(parts) if len(part := share(batch.mine, number, parts))]
    found = []
    for part in shares:
        here, is_last = slice(part.start - batch.mine.start, part.stop - batch.mine.start), part == shares[-1]
        draw = Draw(randomness if is_last else randomness.clone_state(), batch.size, part, engine.device)
        partners = None if batch.partners is None else (batch.partners[0][here], batch.partners[1][here])
        gather = partial(engine.gather, draw)
        given = Batch(batch.images[here], batch.labels[here], draw, warm, partners, gather)
        with nullcontext() if is_last else engine.unsynchronised(stepper):
            with engine.autocast:
                total, right, terms = stepper(given)
            # Gradients are averaged over processes; with this factor they are those of the mean over the batch.
            factor = len(part) * engine.world / batch.size
            engine.backward(total if factor == 1 else total * factor)
        found.append(torch.stack([total.detach(), *(term.detach() for term in terms.values()), right]))
    engine.step(optimizer)
    names = (TOTAL, *(f"loss_{name}" for name in terms), "train_top1_cls")
    return Taken(names, torch.stack(found), [len(part) for part in shares])
