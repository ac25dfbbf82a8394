"""One training run from a recipe: warm stage, main stage, schedule, model selection, checkpoints, resume."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from wsolkit import models
from wsolkit.datasets import OpenedDataset
from wsolkit.errors import TrainingError, turned_into
from wsolkit.maps import NotFiniteError
from wsolkit.system.progress import progress
from wsolkit.training import checkpoints
from wsolkit.training.engine import IMAGES, Engine, Stepper, Taken, optimise, totals
from wsolkit.training.evaluation import evaluate
from wsolkit.training.loading import BATCHES, METHOD, PARTNERS, Loaded, epoch_generator, training_batches
from wsolkit.training.machine import Machine, cpu_threads
from wsolkit.training.recipes import Recipe
from wsolkit.training.tracking import tracked

logger = logging.getLogger(__name__)

#: Rates on train-fullsup that the history keeps, where the annotation allows them.
JUDGED = ("max_box_acc_v2", "gt_known_loc", "pxap", "top1_cls")


#: Steps after which their losses are looked at, which a GPU has to be waited for.
LOOK_EVERY = 100


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
    engine = engine or Engine(machine.torch_device(), machine.precision)
    with cpu_threads(recipe.cpu_threads):
        data, held_out = machine.open(recipe, "train-weaksup"), machine.open(recipe, "train-fullsup")
        check_selectable(recipe, held_out)
        _check_shareable(recipe, engine)
        model = initial_model(recipe, len(data.classes), engine.device, initial)
        optimizer = make_optimizer(recipe, model)
        history = checkpoints.resume(folder, model, optimizer, engine)
        step = recipe.components.method.step
        stepper = engine.prepare(Stepper(model, torch.compile(step) if machine.compiled else step))
        with tracked(machine.track if engine.main else None, folder, recipe.key) as log:
            for epoch in progress(range(len(history) + 1, recipe.epochs + 1), f"epochs of {recipe.key}"):
                rates = dict(zip(("lr_former", "lr_latter"), recipe.learning_rates(epoch), strict=True))
                for group, rate in zip(optimizer.param_groups, rates.values(), strict=True):
                    group["lr"] = rate
                stage = "warm" if epoch <= recipe.warm_epochs else "main"
                means = _train_epoch(recipe, epoch, data, engine, stepper, optimizer, machine.parts, should_stop)
                if engine.main:
                    judged = _held_out_rates(recipe, epoch, model, held_out)
                    history.append({"epoch": epoch, "stage": stage, **rates, **means, **judged})
                    checkpoints.keep_epoch(folder, recipe, model, optimizer, history, engine.state())
                    log(history[-1], epoch)
                    said = ", ".join(f"{name} {value:.3g}" for name, value in (means | judged).items())
                    logger.info("%s epoch %d of %d: %s", recipe.key, epoch, recipe.epochs, said)
                    on_epoch(epoch)
                engine.wait()
        tensors, _ = checkpoints.load(folder / checkpoints.BEST)
        checkpoints.load_into(model, tensors, folder / checkpoints.BEST)
        return model.eval()


def initial_model(
    recipe: Recipe, num_classes: int, device: torch.device, initial: Mapping[str, Tensor] | None = None
) -> models.GapClassifier:
    """The network of a recipe before its first step, on a device; arguments as for `train`."""
    model = recipe.network(num_classes)
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
        fused=model.classifier.weight.is_cuda or None,  # and fp16 does not wait for the GPU either
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


def epoch_batches(
    recipe: Recipe, epoch: int, data: OpenedDataset, engine: Engine
) -> tuple[Iterator[Loaded], torch.Generator]:
    """A process's share of the batches of an epoch, and the source of whatever the method draws."""
    streams = (BATCHES, METHOD, PARTNERS)
    order, randomness, partners = (epoch_generator(recipe.seed, epoch, stream) for stream in streams)
    size = recipe.warm_batch_size if epoch <= recipe.warm_epochs else recipe.batch_size
    shared = engine.device, engine.rank, engine.world
    pairs = recipe.components.method.pairs
    return training_batches(data, size, recipe.crop_size, order, *shared, pairs, partners), randomness


def _train_epoch(
    recipe: Recipe,
    epoch: int,
    data: OpenedDataset,
    engine: Engine,
    stepper: nn.Module,
    optimizer: Optimizer,
    parts: int,
    should_stop: Callable[[], bool],
) -> dict[str, float]:
    """Take the steps of one epoch; its loss terms and classification rate, over its images.

    Raises:
        TrainingError: if a loss is not finite, or memory runs out.
        Stopped: if training is to stop.
    """
    batches, randomness = epoch_batches(recipe, epoch, data, engine)
    warm = epoch <= recipe.warm_epochs
    sums, taken = Counter[str](), list[Taken]()
    stepper.train()
    for number, batch in enumerate(batches, start=1):
        where = f"epoch {epoch}, step {number}"
        try:
            taken.append(optimise(engine, stepper, optimizer, batch, randomness, warm, parts))
        except torch.OutOfMemoryError as error:
            count, side, reason = len(batch.images), batch.images.shape[-1], str(error).split(". ")[0].strip()
            raise TrainingError(
                f"Out of memory on {engine.device}: {where}, {count} images of {side}x{side}. Finished epochs are "
                f"kept. Train fewer runs at once (`wsolkit reproduce --jobs 1`), or this one in more parts (`wsolkit "
                f"train RECIPE --parts {2 * parts}`). ({reason})"
            ) from error
        if should_stop():
            raise Stopped(f"Stopped in {where}; the same call goes on from epoch {epoch}.")
        if number % LOOK_EVERY == 0:
            _add(sums, taken, engine, epoch, number)
    _add(sums, taken, engine, epoch, number)
    images = sums.pop(IMAGES)
    return {name: value / images for name, value in sums.items()}


def _add(sums: Counter[str], taken: list[Taken], engine: Engine, epoch: int, last: int) -> None:
    """Add what steps took to the sums, and forget them; TrainingError if a loss is not finite."""
    advice = "Lower the learning rates or that term's weight; earlier epochs are kept."
    with turned_into(TrainingError, f"In epoch {epoch} the loss is no longer finite", advice, FloatingPointError):
        sums.update(totals(engine, taken, last - len(taken) + 1))
    taken.clear()


def _held_out_rates(
    recipe: Recipe, epoch: int, model: models.GapClassifier, held_out: OpenedDataset
) -> dict[str, float]:
    what = f"After epoch {epoch} the network's maps of train-fullsup are no longer finite"
    with turned_into(TrainingError, what, "Lower the learning rates; earlier epochs are kept.", NotFiniteError):
        result = evaluate(model, held_out, recipe.threshold_step)
    rates = result.rates.set_index("metric")["value"]
    return {f"fullsup_{metric}": float(rates[metric]) for metric in JUDGED if metric in rates}
