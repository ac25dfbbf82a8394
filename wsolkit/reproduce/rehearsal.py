"""A rehearsal: one optimisation step and one evaluation batch of every recipe at full size, before days of GPU time."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from wsolkit import models
from wsolkit.datasets import CachedDataset, OpenedDataset, Sample, Source, WsolDataset
from wsolkit.errors import WsolkitError
from wsolkit.system.progress import progress
from wsolkit.training.engine import Engine, Stepper, optimise
from wsolkit.training.evaluation import MAP_KINDS, evaluate
from wsolkit.training.loop import check_selectable, epoch_batches, initial_model, make_optimizer
from wsolkit.training.machine import Machine
from wsolkit.training.recipes import Recipe


@dataclass(frozen=True)
class Rehearsed:
    """How one recipe did.

    Attributes:
        recipe: the recipe, one of those that differ by their seed only.
        pictures: ``"real"`` if its data are present, else ``"generated"``.
        seconds: of the step and the evaluation.
        failure: what went wrong, or None.
    """

    recipe: Recipe
    pictures: str
    seconds: float
    failure: str | None = None


class Generated(WsolDataset):
    """Random pictures with one box in the middle, or a mask of it, instead of a split that is missing."""

    def __init__(self, name: str, split: str, size: int, classes: int, count: int, masks: bool):
        """Describe the split; picture i is always the same."""
        self.name, self.split, self.size = name, split, size
        self.classes = tuple(map(str, range(classes)))
        self.labels = np.arange(count, dtype=np.int64) % classes
        self.fingerprint = "generated"
        self._masks = masks

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (self.size, self.size, 3), np.uint8)
        low, high = self.size // 4, 3 * self.size // 4
        box = np.array([[low, low, high, high]])
        mask = np.zeros((self.size, self.size), np.uint8)
        mask[low:high, low:high] = 1
        boxes = np.zeros((0, 4), np.int64) if self._masks else box
        return Sample(image, int(self.labels[index]), boxes, mask if self._masks else None, f"generated-{index}")


def describe(done: Rehearsed) -> str:
    """One line on a rehearsed recipe."""
    recipe = done.recipe
    what = f"{recipe.dataset}, {recipe.backbone}, {recipe.label}, {recipe.crop_size} pixels"
    state = "ok    " if done.failure is None else "failed"
    why = "" if done.failure is None else f"\n  {done.failure}\n  {recipe.method_options}"
    return f"{state} {recipe.key} {what:54} {done.pictures} pictures {done.seconds:5.1f} s{why}"


def distinct(recipes: Iterable[Recipe]) -> list[Recipe]:
    """One recipe of each kind: recipes that differ by their seed only count once."""
    return list({recipe.changed(seed=0, snapshot_epochs=()): recipe for recipe in recipes}.values())


def rehearse(recipes: Sequence[Recipe], machine: Machine, batch_size: int | None = 2) -> Iterator[Rehearsed]:
    """Take one step and evaluate one batch with every distinct recipe, with random weights; nothing is written.

    Args:
        recipes: what is to be trained.
        machine: data and device; missing data are replaced by generated pictures of the same size.
        batch_size: images in the step and in the evaluation; None takes each recipe's own, to see whether it fits
            the memory.

    Yields:
        How each did; a failure does not keep the others from being rehearsed.
    """
    absent = {source for source in {recipe.components.data for recipe in recipes} if _is_absent(source, machine)}
    for recipe in progress(distinct(recipes), "recipes", unit="recipe"):
        start, missing = time.monotonic(), recipe.components.data in absent
        try:
            count = batch_size or recipe.batch_size
            train, test = (_few(recipe, split, count, machine, missing) for split in ("train-weaksup", "test"))
            _step_and_evaluation(recipe, train, test, machine.torch_device())
            failure = None
        except (WsolkitError, ValueError, RuntimeError, ArithmeticError) as error:
            failure = f"{type(error).__name__}: {error}"
        yield Rehearsed(recipe, "generated" if missing else "real", time.monotonic() - start, failure)


def _few(recipe: Recipe, split: str, count: int, machine: Machine, absent: bool) -> OpenedDataset:
    """The first images of a split, or generated ones if the data set is absent."""
    if absent:
        known = recipe.components.data.extent
        return CachedDataset(Generated(recipe.dataset, split, recipe.size_of(split), known.classes, count, known.masks))
    first = copy(machine.source(recipe, split))
    first.labels = first.labels[:count]
    return CachedDataset(first)


def _is_absent(source: Source, machine: Machine) -> bool:
    """Whether no part of a published data set is present; incomplete or damaged data are not absent, but a failure."""
    if not source.published or machine.data_root is None:
        return source.published
    parts = source.parts(machine.data_root)
    return not any(
        part.found or part.path.is_file() or (part.path.is_dir() and any(part.path.iterdir())) for part in parts
    )


def _step_and_evaluation(recipe: Recipe, train: OpenedDataset, test: OpenedDataset, device: torch.device) -> None:
    model = initial_model(recipe.changed(pretrained=None), len(train.classes), device).train()
    engine, optimizer = Engine(device), make_optimizer(recipe, model)
    batches, randomness = epoch_batches(recipe, recipe.warm_epochs + 1, train, engine)
    optimise(engine, Stepper(model, recipe.components.method.step), optimizer, next(batches), randomness)
    check_selectable(recipe, test)
    evaluate(model, test, recipe.threshold_step, tuple(MAP_KINDS), len(test))


def weights_at_hand(recipes: Sequence[Recipe]) -> dict[str, Path | None]:
    """The file of ImageNet weights of each backbone that a recipe starts from; None if it is missing."""
    found: dict[str, Path | None] = {}
    for backbone in {recipe.backbone for recipe in recipes if recipe.pretrained == "imagenet"}:
        with suppress(WsolkitError):
            found[backbone] = models.imagenet_weights_file(models.build(backbone, 1))
        found.setdefault(backbone)
    return found
