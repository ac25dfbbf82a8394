"""One training run from a recipe: warm stage, main stage, schedule, model selection, checkpoints, resume."""

import logging
import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import SGD

import wsolkit
from wsolkit import checkpoints, methods, models, paths
from wsolkit.batches import BATCHES, METHOD, epoch_generator, training_batches
from wsolkit.datasets import SPLITS, CachedDataset, WsolDataset, open_dataset
from wsolkit.errors import CheckpointError, TrainingError
from wsolkit.evaluation import evaluate
from wsolkit.files import atomic_file
from wsolkit.maps import NotFiniteError
from wsolkit.progress import progress
from wsolkit.recipes import Recipe

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
class Place:
    """What a run needs of the machine, and what does not change its numbers.

    Attributes:
        data_root: folder or archive of real data; synthetic data needs none.
        device: ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"auto"``: CUDA where there is a GPU,
            else the CPU.
        cache: folder of decoded images; None keeps them in memory.
    """

    data_root: Path | None = None
    device: str = "auto"
    cache: Path | None = None

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

    def open(self, recipe: Recipe, split: str) -> CachedDataset:
        """The same split, each image read once."""
        return CachedDataset(self.source(recipe, split), self.cache)

    def fingerprints(self, recipe: Recipe) -> dict[str, str]:
        """What the recipe's data are here, by split: equal texts mean equal data.

        Raises:
            DataError: if a split is missing, incomplete or empty.
        """
        return {split: self.source(recipe, split).fingerprint for split in SPLITS}


def train(
    recipe: Recipe,
    folder: Path,
    place: Place,
    initial: Mapping[str, Tensor] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> nn.Module:
    """Train one run to its end, going on from where an earlier attempt stopped.

    Args:
        recipe: what to train.
        folder: the run's own folder; it exists. Gets ``last.safetensors`` and ``history.csv`` after every epoch (the
            last but one stays as ``previous.safetensors``), ``best.safetensors`` after every better one, and the
            recipe's snapshots.
        place: data, device and cache.
        initial: state dict of the run that the recipe is pretrained by; its classifier is not taken.
        should_stop: asked after every step; True ends the run at once.
        on_epoch: called with the number of every epoch once the folder holds it.

    Returns:
        The classifier with the selected weights.

    Raises:
        TrainingError: if a loss becomes NaN or infinite (epoch, step and term are named), or on `Stopped`.
        CheckpointError: if the folder's checkpoints are damaged, the last and the one before.
        WsolkitError: if the folder cannot be written; finished epochs stay.
    """
    device = place.torch_device()
    with cpu_threads(recipe.cpu_threads):
        data, held_out = place.open(recipe, "train-weaksup"), place.open(recipe, "train-fullsup")
        require_selectable(recipe, held_out)
        model = _initial_model(recipe, len(data.classes), initial).to(device, memory_format=torch.channels_last)
        optimizer = make_optimizer(recipe, model)
        history = _resume(folder, model, optimizer)
        if history:
            _write_history(folder, history)
        for epoch in progress(range(len(history) + 1, recipe.epochs + 1), f"epochs of {recipe.key}"):
            row = _train_epoch(recipe, epoch, model, optimizer, data, device, should_stop)
            row |= _held_out_rates(recipe, epoch, model, held_out, device)
            history.append(row)
            header = {"epoch": epoch, "recipe": recipe.key}
            if _is_best(history, recipe.select_by):
                checkpoints.save(folder / BEST, model.state_dict(), header)
            if epoch in recipe.snapshot_epochs:
                checkpoints.save(folder / snapshot(epoch), model.state_dict(), header)
            _save_progress(folder, model, optimizer, history)
            on_epoch(epoch)
        tensors, _ = checkpoints.load(folder / BEST)
        checkpoints.load_into(model, tensors, folder / BEST)
        return model.eval()


def make_optimizer(recipe: Recipe, model: models.GapClassifier) -> SGD:
    """The recipe's SGD, with one learning rate for each part of the network."""
    return SGD(
        model.parameter_groups(*recipe.learning_rates(1), recipe.latter_part),
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )


def optimise(
    step: Callable[..., methods.Step],
    model: models.GapClassifier,
    optimizer: SGD,
    images: Tensor,
    labels: Tensor,
    warm: bool,
    randomness: torch.Generator,
) -> tuple[methods.Step, Tensor]:
    """One optimisation step.

    Args:
        step: of the method, from `wsolkit.methods.configured_step`.
        model: in training mode; changed, unless the loss is not finite.
        optimizer: of the model.
        images: (B, 3, H, W), normalised, where the model is.
        labels: (B,) class indices.
        warm: whether this is the warm stage.
        randomness: whatever the method draws.

    Returns:
        The step's logits and terms, and its total loss, detached.
    """
    outcome = step(model, images, labels, warm, randomness)
    total = outcome.total()
    if torch.isfinite(total):
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return outcome, total.detach()


def require(recipe: Recipe, place: Place) -> None:
    """Make sure that the device and the weights of a recipe are to be had.

    Raises:
        WsolkitError: naming what is missing.
    """
    place.torch_device()
    if recipe.pretrained == "imagenet":
        models.imagenet_weights_file(models.build(recipe.backbone, 1))


def require_selectable(recipe: Recipe, held_out: CachedDataset) -> None:
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


def provenance(place: Place) -> dict[str, str]:
    """What made a run: versions, commit, device."""
    return {
        "wsolkit": wsolkit.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda) if torch.cuda.is_available() else "",
        "device": str(place.torch_device()),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def commit() -> str:
    """The commit of the clone, with ``+`` where the package has changes, or an empty text outside a clone."""
    clone = paths.clone()
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


def _initial_model(recipe: Recipe, num_classes: int, initial: Mapping[str, Tensor] | None) -> models.GapClassifier:
    model = models.build(recipe.backbone, num_classes, recipe.seed)
    if recipe.pretrained == "imagenet":
        models.load_imagenet_weights(model)
    elif initial is not None:
        kept = {name: tensor for name, tensor in initial.items() if not name.startswith("classifier.")}
        checkpoints.load_into(model, model.state_dict() | kept, Path(recipe.pretrained.key))
    return model


def _train_epoch(
    recipe: Recipe,
    epoch: int,
    model: models.GapClassifier,
    optimizer: SGD,
    data: CachedDataset,
    device: torch.device,
    should_stop: Callable[[], bool],
) -> dict[str, float]:
    """Train one epoch, counted from 1; returns the history row's training part."""
    warm = epoch <= recipe.warm_epochs
    for group, rate in zip(optimizer.param_groups, recipe.learning_rates(epoch), strict=True):
        group["lr"] = rate
    step = methods.configured_step(recipe.method, recipe.method_options)
    order, randomness = (epoch_generator(recipe.seed, epoch, stream) for stream in (BATCHES, METHOD))
    batch_size = recipe.warm_batch_size if warm else recipe.batch_size
    sums, right, seen = {}, 0, 0
    model.train()
    for number, (images, labels) in enumerate(
        training_batches(data, batch_size, recipe.crop_size, order, device), start=1
    ):
        with memory_for(images, f"epoch {epoch}, step {number}"):
            outcome, total = optimise(step, model, optimizer, images, labels, warm, randomness)
        if not torch.isfinite(total):
            raise _broken_loss(outcome, epoch, number)
        for name, value in [("total", total), *((name, term.value) for name, term in outcome.terms.items())]:
            sums[name] = sums.get(name, 0.0) + value.item() * len(labels)
        right += (outcome.logits.argmax(1) == labels).sum().item()
        seen += len(labels)
        if should_stop():
            raise Stopped(f"Stopped in epoch {epoch}, step {number}; the same call goes on from epoch {epoch}.")
    rates = dict(zip(("lr_former", "lr_latter"), recipe.learning_rates(epoch), strict=True))
    losses = {f"loss_{name}": value / seen for name, value in sums.items()}
    return {"epoch": epoch, "stage": "warm" if warm else "main", **rates, **losses, "train_top1_cls": right / seen}


def _broken_loss(outcome: methods.Step, epoch: int, step: int) -> TrainingError:
    broken = [name for name, term in outcome.terms.items() if not torch.isfinite(term.value)] or ["total"]
    return TrainingError(
        f"The loss is not finite any more: epoch {epoch}, step {step}, term {', '.join(map(repr, broken))}. "
        "Lower the learning rates or that term's weight; earlier epochs are kept."
    )


def _held_out_rates(
    recipe: Recipe, epoch: int, model: models.GapClassifier, held_out: CachedDataset, device: torch.device
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


def _save_progress(folder: Path, model: nn.Module, optimizer: SGD, history: list[dict]) -> None:
    tensors = {MODEL + name: tensor for name, tensor in model.state_dict().items()}
    tensors |= {MOMENTUM + name: tensor for name, tensor in checkpoints.momentum_tensors(optimizer).items()}
    if (folder / LAST).exists():
        os.replace(folder / LAST, folder / PREVIOUS)
    checkpoints.save(folder / LAST, tensors, {"history": history})
    _write_history(folder, history)


def _write_history(folder: Path, history: list[dict]) -> None:
    with atomic_file(folder / HISTORY) as partial:
        pd.DataFrame(history).to_csv(partial, index=False)


def begun(folder: Path) -> bool:
    """Whether a run's folder holds a finished epoch."""
    return any((folder / name).exists() for name in (LAST, PREVIOUS))


def _resume(folder: Path, model: nn.Module, optimizer: SGD) -> list[dict]:
    """Restore an earlier attempt into model and optimizer; returns its history, empty for a new run."""
    if not begun(folder):
        return []
    tensors, header, path = _newest_whole(folder)
    checkpoints.load_into(model, checkpoints.split_by_prefix(tensors, MODEL), path)
    checkpoints.restore_momentum(optimizer, checkpoints.split_by_prefix(tensors, MOMENTUM))
    return header["history"]


def _newest_whole(folder: Path) -> tuple[dict[str, Tensor], dict, Path]:
    """The newest progress that can be read; a damaged one is named, and the one before it taken."""
    try:
        return *checkpoints.load(folder / LAST), folder / LAST
    except CheckpointError as error:
        if not (folder / PREVIOUS).exists():
            raise
        logging.getLogger(__name__).warning("%s Going on from the epoch before, %s.", error, PREVIOUS)
        return *checkpoints.load(folder / PREVIOUS), folder / PREVIOUS
