"""One training run from a recipe: warm stage, main stage, schedule, model selection, checkpoints, resume."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from wsolkit import methods, models
from wsolkit.datasets import SPLITS, CachedDataset, OpenedDataset, UncachedDataset, WsolDataset, open_dataset
from wsolkit.errors import CheckpointError, TrainingError
from wsolkit.maps import NotFiniteError
from wsolkit.system.progress import progress
from wsolkit.system.writing import atomic_file
from wsolkit.training import checkpoints
from wsolkit.training.engine import Batch, Engine, Precision, Stepper, StepResult, open_engine, optimise
from wsolkit.training.evaluation import evaluate
from wsolkit.training.loading import BATCHES, METHOD, epoch_generator, share, training_batches
from wsolkit.training.recipes import Recipe
from wsolkit.training.tracking import tracked

logger = logging.getLogger(__name__)

LAST, PREVIOUS = "last.safetensors", "previous.safetensors"
"""Everything that the next epoch needs, after the newest epoch and after the one before."""

BEST = "best.safetensors"
HISTORY = "history.csv"

MODEL, MOMENTUM = "model.", "momentum."


def snapshot(epoch: int) -> str:
    """Name of the file with the weights after an epoch, where the recipe asks for it."""
    return f"epoch-{epoch:03d}.safetensors"


class Stopped(TrainingError):
    """Training was asked to stop; the run folder holds all finished epochs."""


@dataclass(frozen=True)
class Machine:
    """What a run needs of the machine, and what does not change its numbers.

    Attributes:
        data_root: folder or archive of real data; synthetic data needs none.
        device: ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"auto"``: CUDA where there is a GPU,
            else the CPU.
        cache: folder of decoded images; None keeps them in memory, ``"off"`` decodes them whenever they are asked for.
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
            raise TrainingError(f"Device {self.device!r} is not to be had here; 'auto' or 'cpu' always is.") from error

    def source(self, recipe: Recipe, split: str) -> WsolDataset:
        """A split of the recipe's data at its training or evaluation size; nothing is decoded yet."""
        return open_dataset(recipe.dataset, split, recipe.size_of(split), recipe.dataset_options, self.data_root)

    def open(self, recipe: Recipe, split: str) -> OpenedDataset:
        """The same split, each image read once, unless the cache is off."""
        source = self.source(recipe, split)
        return UncachedDataset(source) if self.cache == "off" else CachedDataset(source, self.cache)

    def fingerprints(self, recipe: Recipe) -> dict[str, str]:
        """What the recipe's data are here, by split: equal texts mean equal data.

        Raises:
            DataError: if a split is missing, incomplete or empty.
        """
        return {split: self.source(recipe, split).fingerprint for split in SPLITS}


def train(
    recipe: Recipe,
    folder: Path,
    machine: Machine,
    initial: Mapping[str, Tensor] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_epoch: Callable[[int], None] = lambda epoch: None,
    engine: Engine | None = None,
) -> models.GapClassifier:
    """Train one run to its end, going on from where an earlier attempt stopped.

    Args:
        recipe: what to train.
        folder: the run's own folder; it exists. Gets ``last.safetensors`` and ``history.csv`` after every epoch (the
            last but one stays as ``previous.safetensors``), ``best.safetensors`` after every better one, and the
            recipe's snapshots.
        machine: data, device and cache.
        initial: state dict of the run that the recipe is pretrained by; its classifier is not taken.
        should_stop: asked after every step; True ends the run at once.
        on_epoch: called with the number of every epoch once the folder holds it.
        engine: how steps are taken; None opens one for the machine. Of several processes the main
            one judges and writes.

    Returns:
        The classifier with the selected weights.

    Raises:
        TrainingError: if a loss becomes NaN or infinite (epoch, step and term are named), or on `Stopped`.
        CheckpointError: if the folder's checkpoints are damaged, the last and the one before.
        WsolkitError: if the folder cannot be written; finished epochs stay.
    """
    engine = engine or open_engine(machine.torch_device(), machine.precision)
    with cpu_threads(recipe.cpu_threads):
        data, held_out = machine.open(recipe, "train-weaksup"), machine.open(recipe, "train-fullsup")
        require_selectable(recipe, held_out)
        if engine.world > min(recipe.batch_size, recipe.warm_batch_size):
            raise TrainingError(
                f"{engine.world} processes cannot share batches of {min(recipe.batch_size, recipe.warm_batch_size)} "
                "images. Use fewer, and train other runs beside."
            )
        model = _initial_model(recipe, len(data.classes), initial)
        model.to(engine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stub
        optimizer = make_optimizer(recipe, model)
        history = _resume(folder, model, optimizer, engine)
        if history and engine.main:
            _write_history(folder, history)
        step = methods.configured_step(recipe.method, recipe.method_options)
        trainer = _Trainer(recipe, engine, *engine.prepare(Stepper(model, step), optimizer), data, machine.parts)
        with tracked(machine.track if engine.main else None, folder, recipe.key) as log:
            for epoch in progress(range(len(history) + 1, recipe.epochs + 1), f"epochs of {recipe.key}"):
                row = trainer.epoch(epoch, should_stop)
                if engine.main:
                    row |= _held_out_rates(recipe, epoch, model, held_out, engine.device)
                    history.append(row)
                    _keep(recipe, folder, model, optimizer, history, engine.state())
                    log(row, epoch)
                    logger.info("%s epoch %d of %d: %s", recipe.key, epoch, recipe.epochs, _in_words(row))
                    on_epoch(epoch)
                engine.wait()
        tensors, _ = checkpoints.load(folder / BEST)
        checkpoints.load_into(model, tensors, folder / BEST)
        return model.eval()


def _in_words(row: Mapping[str, object]) -> str:
    rates = (f"{name} {value:.3g}" for name, value in row.items() if name.startswith(("loss_", "fullsup_")))
    return ", ".join(rates)


def make_optimizer(recipe: Recipe, model: models.GapClassifier) -> SGD:
    """The recipe's SGD, with one learning rate for each part of the network."""
    return SGD(
        model.parameter_groups(*recipe.learning_rates(1), recipe.latter_part),
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )


def require(recipe: Recipe, machine: Machine) -> None:
    """Make sure that the device and the weights of a recipe are to be had.

    Raises:
        WsolkitError: naming what is missing.
    """
    machine.torch_device()
    if recipe.pretrained == "imagenet":
        models.imagenet_weights_file(models.build(recipe.backbone, 1))


def require_selectable(recipe: Recipe, held_out: OpenedDataset) -> None:
    """Make sure that the annotation of a split lets the recipe's epochs be judged.

    Raises:
        TrainingError: naming the selections that it allows.
    """
    sample = held_out[0]
    has = {"max_box_acc_v2": len(sample.boxes) > 0, "pxap": sample.mask is not None}
    if not has.get(recipe.select_by, True):
        possible = [name for name, there in has.items() if there] + ["top1_cls", "last"]
        raise TrainingError(
            f"select_by = {recipe.select_by!r} cannot be judged: {recipe.dataset} has no "
            f"{'boxes' if recipe.select_by == 'max_box_acc_v2' else 'masks'}. Choose one of {', '.join(possible)}."
        )


@contextmanager
def memory_for(images: Tensor, when: str) -> Iterator[None]:
    """Say which batch did not fit where the block runs out of the device's memory.

    Raises:
        TrainingError: with what to do.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        count, side = len(images), images.shape[-1]
        raise TrainingError(
            f"Out of memory on {images.device}: {when}, {count} images of {side}x{side}. Finished epochs are kept. "
            f"Try a batch size of {max(1, count // 2)}, or free the device of other programs. ({_sentence(error)})"
        ) from error


def _sentence(error: Exception) -> str:
    return str(error).split(". ")[0].strip()


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let PyTorch use this many CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _initial_model(recipe: Recipe, num_classes: int, initial: Mapping[str, Tensor] | None) -> models.GapClassifier:
    model = models.build(recipe.backbone, num_classes, recipe.seed)
    if recipe.pretrained == "imagenet":
        models.load_imagenet_weights(model)
    elif initial is not None and recipe.pretrained is not None:
        kept = {name: tensor for name, tensor in initial.items() if not name.startswith("classifier.")}
        checkpoints.load_into(model, model.state_dict() | kept, Path(recipe.pretrained.key))
    return model


@dataclass(frozen=True)
class _Trainer:
    """Trains epochs; stepper and optimizer are as the engine has prepared them."""

    recipe: Recipe
    engine: Engine
    stepper: nn.Module
    optimizer: Optimizer
    data: OpenedDataset
    parts: int

    def epoch(self, epoch: int, should_stop: Callable[[], bool]) -> dict[str, float | str]:
        """Train one epoch, counted from 1; returns the history row's training part."""
        recipe, engine = self.recipe, self.engine
        warm = epoch <= recipe.warm_epochs
        rates = recipe.learning_rates(epoch)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        order, randomness = (epoch_generator(recipe.seed, epoch, stream) for stream in (BATCHES, METHOD))
        size = recipe.warm_batch_size if warm else recipe.batch_size
        batches = training_batches(self.data, size, recipe.crop_size, order, engine.device, engine.rank, engine.world)
        sums: dict[str, float] = {}
        right, seen = 0, 0
        self.stepper.train()
        for number, (images, labels) in enumerate(batches, start=1):
            whole = range(min(size, len(self.data) - (number - 1) * size))
            batch = Batch(images, labels, randomness, share(whole, engine.rank, engine.world), len(whole))
            with memory_for(images, f"epoch {epoch}, step {number}"):
                taken = optimise(engine, self.stepper, self.optimizer, batch, warm, self.parts)
            if taken.broken:
                raise _broken_loss(taken, epoch, number)
            for name, value in taken.losses.items():
                sums[name] = sums.get(name, 0.0) + value
            right, seen = right + taken.right, seen + taken.seen
            if should_stop():
                raise Stopped(f"Stopped in epoch {epoch}, step {number}; the same call goes on from epoch {epoch}.")
        named = dict(zip(("lr_former", "lr_latter"), rates, strict=True))
        losses = {f"loss_{name}": value / seen for name, value in sums.items()}
        return {"epoch": epoch, "stage": "warm" if warm else "main", **named, **losses, "train_top1_cls": right / seen}


def _broken_loss(taken: StepResult, epoch: int, step: int) -> TrainingError:
    return TrainingError(
        f"The loss is not finite any more: epoch {epoch}, step {step}, term {', '.join(map(repr, taken.broken))}. "
        "Lower the learning rates or that term's weight; earlier epochs are kept."
    )


def _keep(
    recipe: Recipe, folder: Path, model: nn.Module, optimizer: SGD, history: list[dict], state: dict[str, Any]
) -> None:
    """Write what the newest epoch leaves behind; the progress last, since it makes the epoch done."""
    header = {"epoch": len(history), "recipe": recipe.key}
    if _is_best(history, recipe.select_by):
        checkpoints.save(folder / BEST, model.state_dict(), header)
    if len(history) in recipe.snapshot_epochs:
        checkpoints.save(folder / snapshot(len(history)), model.state_dict(), header)
    _save_progress(folder, model, optimizer, history, state)


def _held_out_rates(
    recipe: Recipe, epoch: int, model: models.GapClassifier, held_out: OpenedDataset, device: torch.device
) -> dict[str, float]:
    try:
        result = evaluate(model, held_out, recipe.threshold_step, device)
    except NotFiniteError as error:
        raise TrainingError(
            f"The network is not finite any more: epoch {epoch}, evaluation on train-fullsup ({error}) "
            "Lower the learning rates; earlier epochs are kept."
        ) from error
    wanted = ("max_box_acc_v2", "gt_known_loc", "pxap", "top1_cls")
    found = set(result.rates["metric"])
    return {f"fullsup_{metric}": result.rate(metric) for metric in wanted if metric in found}


def _is_best(history: list[dict], select_by: str) -> bool:
    """Whether the newest epoch's weights are the ones to keep so far; the earliest of equals stays."""
    if select_by == "last" or len(history) == 1:
        return True
    column = f"fullsup_{select_by}"
    return history[-1][column] > max(row[column] for row in history[:-1])


def _save_progress(folder: Path, model: nn.Module, optimizer: SGD, history: list[dict], state: dict[str, Any]) -> None:
    tensors = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
    tensors |= {MOMENTUM + name: tensor for name, tensor in checkpoints.momentum_tensors(optimizer).items()}
    if (folder / LAST).exists():
        os.replace(folder / LAST, folder / PREVIOUS)
    checkpoints.save(folder / LAST, tensors, {"history": history, "engine": state})
    _write_history(folder, history)


def _write_history(folder: Path, history: list[dict]) -> None:
    with atomic_file(folder / HISTORY) as partial:
        pd.DataFrame(history).to_csv(partial, index=False)


def begun(folder: Path) -> bool:
    """Whether a run's folder holds a finished epoch."""
    return any((folder / name).exists() for name in (LAST, PREVIOUS))


def _resume(folder: Path, model: nn.Module, optimizer: SGD, engine: Engine) -> list[dict]:
    """Restore an earlier attempt into model, optimizer and engine; returns its history, empty for a new run."""
    if not begun(folder):
        return []
    tensors, header, path = _newest_whole(folder)
    checkpoints.load_into(model, checkpoints.split_by_prefix(tensors, MODEL), path)
    checkpoints.restore_momentum(optimizer, checkpoints.split_by_prefix(tensors, MOMENTUM))
    engine.restore(header.get("engine", {}))
    return header["history"]


def _newest_whole(folder: Path) -> tuple[dict[str, Tensor], dict, Path]:
    """The newest progress that can be read; a damaged one is named, and the one before it taken."""
    try:
        return *checkpoints.load(folder / LAST), folder / LAST
    except CheckpointError as error:
        if not (folder / PREVIOUS).exists():
            raise
        logger.warning("%s Going on from the epoch before, %s.", error, PREVIOUS)
        return *checkpoints.load(folder / PREVIOUS), folder / PREVIOUS
