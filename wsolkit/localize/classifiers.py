"""A classifier from a file of weights: a run of the kit, or a model of torchvision."""

import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, get_model_weights, list_models

from wsolkit import models
from wsolkit.errors import CheckpointError, require_known, turned_into
from wsolkit.system import folders
from wsolkit.training.checkpoints import BEST
from wsolkit.training.loading import IMAGENET_MEAN
from wsolkit.training.recipes import Recipe
from wsolkit.training.run_store import RECIPE

logger = logging.getLogger(__name__)

#: The model that weights are taken for, and the side of the images in pixels, unless the user or a run names others.
USUAL_MODEL, USUAL_SIZE = "resnet50", 224

#: The weights that torchvision publishes, as a user names them; of a model's several, the first are taken.
IMAGENET, FIRST = "imagenet", "IMAGENET1K_V1"

#: A number of classes that no layer has as its width: it shows which tensors belong to the classes.
PROBE = 7919


@dataclass(frozen=True)
class Classifier:
    """A network, and the size of its images.

    Attributes:
        network: with its weights, in evaluation mode.
        size: side in pixels of its images.
        name: of the model.
        classes: names of the classes; empty if they are not known.
    """

    network: nn.Module
    size: int
    name: str
    classes: tuple[str, ...] = ()


def open_classifier(weights: Path, model: str | None = None, size: int | None = None) -> Classifier:
    """A classifier from its weights; a run's weights need no model named.

    Args:
        weights: ``imagenet`` for those that torchvision publishes; a run's folder, its key or the first characters of
            it; or a file as `wsolkit.models.read_state_dict` takes it.
        model: one of the kit's backbones, or a model of torchvision; None takes a run's own, else ``"resnet50"``.
        size: side in pixels of the images; None takes a run's own or that of the published weights, else 224.

    Raises:
        RecipeError: for an unknown model.
        CheckpointError: if there are no such weights, they do not fit the model, or they expect other colours.
    """
    if str(weights) == IMAGENET:
        name = model or USUAL_MODEL
        published = imagenet_weights(name)
        expected = published.transforms()
        if tuple(expected.mean) != IMAGENET_MEAN:
            raise CheckpointError(f"{name} expects images normalised unlike ImageNet's; choose another --model.")
        network = load_classifier(name, models.torchvision_file(published))
        if hasattr(network, "transform_input"):  # of GoogLeNet and Inception, whose weights expect other means
            network.transform_input = True  # type: ignore[assignment]  # torch takes it for a module
        return Classifier(network, size or expected.crop_size[0], name, tuple(published.meta["categories"]))
    file = find_weights(weights)
    beside = file.with_name(RECIPE)
    recipe = Recipe.from_file(beside) if os.path.exists(beside) else None
    name = model or (recipe.backbone if recipe else USUAL_MODEL)
    side = size or (recipe.crop_size if recipe else USUAL_SIZE)
    return Classifier(load_classifier(name, file), side, name)


def find_weights(weights: Path) -> Path:
    """The file of weights behind a file, a run's folder, or the first characters of a run's key.

    Raises:
        CheckpointError: if there is none, or several runs begin with these characters.
    """
    given = weights.expanduser()
    if os.path.exists(given) and not os.path.isdir(given):
        return given
    runs = [run for run in folders.runs_root().glob("*") if run.name.startswith(str(weights))]
    found = [run / BEST for run in ([given] if os.path.isdir(given) else runs) if os.path.isfile(run / BEST)]
    if len(found) != 1:
        raise CheckpointError(
            f"{weights} is not a file, not the folder of a finished run, and {len(found)} runs have keys that begin "
            "with it. Give a state dict (.safetensors or .pth), or a key that `wsolkit runs list` shows."
        )
    return found[0]


def load_classifier(name: str, weights: Path) -> nn.Module:
    """A classifier with weights from a file.

    A prefix before every name, such as the ``module.`` of ``nn.DataParallel``, is taken off, and the log says so.

    Args:
        name: one of the kit's backbones, or a model of torchvision, e.g. ``"resnet50"``.
        weights: a file as `wsolkit.models.read_state_dict` takes it.

    Returns:
        The network in evaluation mode, with as many classes as the weights have.

    Raises:
        RecipeError: for an unknown name.
        CheckpointError: if the file cannot be read, or does not fit.
    """
    known = [*models.names(), *list_models(module=torchvision.models)]
    require_known("model", name, known)
    state = models.read_state_dict(weights)
    fit = _best_fit(name, state)
    if fit.misfits:
        under = f"under the prefix {fit.prefix!r}, " if fit.prefix else ""
        raise CheckpointError(
            f"{weights} does not fit {name}: {under}{len(fit.misfits)} tensors are missing, unknown or of another "
            f"shape, e.g. {fit.misfits[0]}. Name the model that it belongs to by --model, or model=."
        )
    if fit.prefix:
        message = "%s: the prefix %r is taken off the names of the tensors; %d tensors without it are left out."
        logger.warning(message, weights, fit.prefix, len(state) - len(fit.state))
    model = fit.build(fit.classes)
    what = f"Cannot copy the weights in {weights} into {name}"  # of quantized types, for example
    with turned_into(CheckpointError, what, "Save them in float32.", RuntimeError):
        model.load_state_dict(fit.state)
    return model.eval()


def imagenet_weights(name: str) -> WeightsEnum:
    """The ImageNet weights that torchvision publishes for a model of its own, by name.

    Raises:
        RecipeError: for an unknown model.
        CheckpointError: if it has no first weights, :data:`FIRST`.
    """
    known = list_models(module=torchvision.models)
    require_known("model of torchvision", name, known)
    published = get_model_weights(name).__members__
    if FIRST not in published:
        raise CheckpointError(f"torchvision publishes no {FIRST} weights for {name}; give a file of weights.")
    return published[FIRST]


class _Fit(NamedTuple):
    """How well tensors fit a model.

    Attributes:
        build: makes the model with a number of classes.
        classes: the number of classes.
        prefix: before the names of the tensors.
        state: the tensors that have the prefix, by their names without it.
        misfits: the tensors that do not fit, and how; empty if all do.
    """

    build: Callable[[int], nn.Module]
    classes: int
    prefix: str
    state: Mapping[str, Tensor]
    misfits: Sequence[str]


def _best_fit(name: str, state: Mapping[str, Tensor]) -> _Fit:
    """How tensors fit the kit's or torchvision's model of a name (both have a resnet50), under the best prefix."""
    builders: list[Callable[[int], nn.Module]] = []
    if name in models.names():
        builders.append(partial(models.build, name))
    if name in list_models(module=torchvision.models):
        builders.append(partial(_torchvision_model, name))
    fits = []
    for build in builders:
        shapes = _shapes(build)
        heads, first = [key for key, shape in shapes.items() if PROBE in shape[:1]], next(iter(shapes))
        for prefix in ("", *sorted({key.removesuffix(first) for key in state if key.endswith(f".{first}")})):
            given = models.without_prefix(state, prefix)
            classes = max((len(given[key]) for key in heads if key in given and given[key].ndim), default=0) or PROBE
            expected = shapes | {key: (classes, *shapes[key][1:]) for key in heads}
            found = {key: tuple(tensor.shape) for key, tensor in given.items()}
            misfits = [
                f"{key} (expected {expected.get(key, 'none')}, found {found.get(key, 'none')})"
                for key in expected | found
                if expected.get(key) != found.get(key)
            ]
            fits.append(_Fit(build, classes, prefix, given, misfits))
    return min(fits, key=lambda fit: len(fit.misfits))


def _shapes(build: Callable[[int], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's tensors, with :data:`PROBE` classes; without memory for them if possible."""
    try:
        with torch.device("meta"):
            model = build(PROBE)
    except Exception:  # a constructor that computes with its own tensors
        model = build(PROBE)
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def _torchvision_model(name: str, classes: int) -> nn.Module:
    with warnings.catch_warnings(action="ignore"):  # about initial values, which nobody uses here
        return get_model(name, weights=None, num_classes=classes)
