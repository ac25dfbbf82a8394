"""One training run from a recipe: warm stage, main stage, schedule, model selection, checkpoints, resume."""

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import SGD

from wsolkit import models
from wsolkit.datasets import OpenedDataset
from wsolkit.errors import TrainingError
from wsolkit.maps import NotFiniteError
from wsolkit.system.progress import progress
from wsolkit.training import checkpoints
from wsolkit.training.engine import Batch, Engine, Stepper, StepResult, open_engine, optimise
from wsolkit.training.evaluation import evaluate
from wsolkit.training.loading import BATCHES, METHOD, epoch_generator, share, training_batches
from wsolkit.training.machine import Machine, cpu_threads, explain_out_of_memory
from wsolkit.training.recipes import Recipe
from wsolkit.training.tracking import tracked

logger = logging.getLogger(__name__)

#: Rates on train-fullsup that the history keeps, where the annotation allows them.
JUDGED = ("max_box_acc_v2", "gt_known_loc", "pxap", "top1_cls")


class Stopped(TrainingError):
    """Training was asked to stop; the run folder holds all finished epochs."""


def train(
    recipe: Recipe,
    folder: Path,
    machine: Machine,
    initial: Mapping[str, Tensor] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_epoch: Callable[[int], None] = lambda epoch: None,
    engine: Engine | None = None,
) -> models.GapClassifier:
    """Train one run to its end, continuing where an earlier attempt stopped.

    Args:
        recipe: what to train.
        folder: the run's own folder, which exists. Gets the progress and ``history.csv`` after every epoch, the best
            weights after every better one, and the recipe's snapshots (see `wsolkit.training.checkpoints`).
        machine: data, device and cache.
        initial: state dict of the run that the recipe is pretrained by; its classifier is not used.
        should_stop: asked after every step; True ends the run at once.
        on_epoch: called with the number of every epoch once the folder holds it.
        engine: how steps are taken; None opens one for the machine. If several processes train together, the main one
            evaluates and writes.

    Returns:
        The classifier with the selected weights.

    Raises:
        TrainingError: if a loss becomes NaN or infinite (naming epoch, step and term), or as `Stopped`.
        CheckpointError: if both the last checkpoint and the one before are damaged.
        WsolkitError: if the folder cannot be written; finished epochs stay.
    """
    engine = engine or open_engine(machine.torch_device(), machine.precision)
    with cpu_threads(recipe.cpu_threads):
        data, held_out = machine.open(recipe, "train-weaksup"), machine.open(recipe, "train-fullsup")
        check_selectable(recipe, held_out)
        _check_shareable(recipe, engine)
        model = initial_model(recipe, len(data.classes), engine.device, initial)
        optimizer = make_optimizer(recipe, model)
        history = checkpoints.resume(folder, model, optimizer, engine)
        stepper, prepared = engine.prepare(Stepper(model, recipe.components.method.step), optimizer)
        with tracked(machine.track if engine.main else None, folder, recipe.key) as log:
            for epoch in progress(range(len(history) + 1, recipe.epochs + 1), f"epochs of {recipe.key}"):
                rates = dict(zip(("lr_former", "lr_latter"), recipe.learning_rates(epoch), strict=True))
                for group, rate in zip(prepared.param_groups, rates.values(), strict=True):
                    group["lr"] = rate
                stage = "warm" if epoch <= recipe.warm_epochs else "main"
                steps = _steps(recipe, epoch, data, engine, stepper, prepared, machine.parts)
                row = {"epoch": epoch, "stage": stage, **rates, **_averages(steps, epoch, should_stop)}
                if engine.main:
                    row |= _held_out_rates(recipe, epoch, model, held_out, engine.device)
                    history.append(row)
                    checkpoints.keep_epoch(folder, recipe, model, optimizer, history, engine.state())
                    log(row, epoch)
                    logger.info("%s epoch %d of %d: %s", recipe.key, epoch, recipe.epochs, _in_words(row))
                    on_epoch(epoch)
                engine.wait()
        tensors, _ = checkpoints.load(folder / checkpoints.BEST)
        checkpoints.load_into(model, tensors, folder / checkpoints.BEST)
        return model.eval()


def initial_model(
    recipe: Recipe, num_classes: int, device: torch.device, initial: Mapping[str, Tensor] | None = None
) -> models.GapClassifier:
    """The network of a recipe before its first step, on a device; arguments as for `train`."""
    model = recipe.components.backbone.build(num_classes, recipe.seed)
    if isinstance(recipe.pretrained, str):
        models.load_pretrained(model, recipe.pretrained)
    elif initial is not None and recipe.pretrained is not None:
        kept = {name: tensor for name, tensor in initial.items() if not name.startswith("classifier.")}
        checkpoints.load_into(model, model.state_dict() | kept, Path(recipe.pretrained.key))
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stub


def make_optimizer(recipe: Recipe, model: models.GapClassifier) -> SGD:
    """The recipe's SGD, with one learning rate for each part of the network."""
    return SGD(
        model.parameter_groups(*recipe.learning_rates(1), recipe.latter_part),
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )


def check_selectable(recipe: Recipe, held_out: OpenedDataset) -> None:
    """Make sure that the annotation of a split allows the recipe's model selection.

    Raises:
        TrainingError: naming the selections that are possible.
    """
    sample = held_out[0]
    possible = {"max_box_acc_v2": len(sample.boxes) > 0, "pxap": sample.mask is not None}
    if not possible.get(recipe.select_by, True):
        names = [name for name, there in possible.items() if there] + ["top1_cls", "last"]
        raise TrainingError(
            f"select_by = {recipe.select_by!r} is not possible: {recipe.dataset} has no "
            f"{'boxes' if recipe.select_by == 'max_box_acc_v2' else 'masks'}. Choose one of {', '.join(names)}."
        )


def _check_shareable(recipe: Recipe, engine: Engine) -> None:
    smallest = min(recipe.batch_size, recipe.warm_batch_size)
    if engine.world > smallest:
        raise TrainingError(
            f"{engine.world} processes cannot share batches of {smallest} images. Use fewer processes for this run, "
            "and train other runs beside it."
        )


def _steps(
    recipe: Recipe,
    epoch: int,
    data: OpenedDataset,
    engine: Engine,
    stepper: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: int,
) -> Iterable[StepResult]:
    """Take the steps of one epoch, one at a time."""
    order, randomness = (epoch_generator(recipe.seed, epoch, stream) for stream in (BATCHES, METHOD))
    warm = epoch <= recipe.warm_epochs
    size = recipe.warm_batch_size if warm else recipe.batch_size
    batches = training_batches(data, size, recipe.crop_size, order, engine.device, engine.rank, engine.world)
    stepper.train()
    for number, (images, labels) in enumerate(batches):
        whole = range(min(size, len(data) - number * size))
        batch = Batch(images, labels, randomness, share(whole, engine.rank, engine.world), len(whole))
        with explain_out_of_memory(images, f"epoch {epoch}, step {number + 1}"):
            result = optimise(engine, stepper, optimizer, batch, warm, parts)
        yield result


def _averages(steps: Iterable[StepResult], epoch: int, should_stop: Callable[[], bool]) -> dict[str, float]:
    """The loss terms and the classification rate of one epoch, over its images.

    Raises:
        TrainingError: if a loss is not finite.
        Stopped: if training is to stop.
    """
    sums: dict[str, float] = {}
    right, seen = 0, 0
    for number, result in enumerate(steps, start=1):
        if result.broken:
            raise TrainingError(
                f"The loss is no longer finite: epoch {epoch}, step {number}, term "
                f"{', '.join(map(repr, result.broken))}. Lower the learning rates or that term's weight; earlier "
                "epochs are kept."
            )
        for name, value in result.losses.items():
            sums[name] = sums.get(name, 0.0) + value
        right, seen = right + result.right, seen + result.seen
        if should_stop():
            raise Stopped(f"Stopped in epoch {epoch}, step {number}; the same call goes on from epoch {epoch}.")
    return {**{f"loss_{name}": value / seen for name, value in sums.items()}, "train_top1_cls": right / seen}


def _held_out_rates(
    recipe: Recipe, epoch: int, model: models.GapClassifier, held_out: OpenedDataset, device: torch.device
) -> dict[str, float]:
    try:
        result = evaluate(model, held_out, recipe.threshold_step, device)
    except NotFiniteError as error:
        raise TrainingError(
            f"The network is no longer finite: epoch {epoch}, evaluation on train-fullsup ({error}) "
            "Lower the learning rates; earlier epochs are kept."
        ) from error
    found = set(result.rates["metric"])
    return {f"fullsup_{metric}": result.rate(metric) for metric in JUDGED if metric in found}


def _in_words(row: Mapping[str, object]) -> str:
    rates = (f"{name} {value:.3g}" for name, value in row.items() if name.startswith(("loss_", "fullsup_")))
    return ", ".join(rates)
