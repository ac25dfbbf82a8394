"""A classifier from a file of weights: a run of the kit, or a model of torchvision."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wsolkit import models
from wsolkit.errors import CheckpointError, unknown
from wsolkit.system import folders
from wsolkit.training.checkpoints import BEST
from wsolkit.training.recipes import Recipe
from wsolkit.training.run_store import RECIPE

logger = logging.getLogger(__name__)

#: The model that weights are taken for, and the side of the images in pixels, unless the user or a run names others.
USUAL_MODEL, USUAL_SIZE = "resnet50", 224

#: How many models with names like the given one are tried to find one that the weights fit.
ALIKE = 12

#: A number of classes that no layer has as its width: it shows which tensors belong to the classes.
PROBE = 7919


@dataclass(frozen=True)
class Classifier:
    """A network, and the size of its images.

    Attributes:
        network: with its weights, in evaluation mode.
        size: side in pixels of its images.
        name: of the model.
    """

    network: nn.Module
    size: int
    name: str


def open_classifier(weights: Path, model: str | None = None, size: int | None = None) -> Classifier:
    """A classifier from its weights; a run's weights need no model named.

    Args:
        weights: a run's folder, its key or the first characters of it; or a file as `wsolkit.models.read_state_dict`
            takes it.
        model: one of the kit's backbones, or a model of torchvision; None takes a run's own, else ``"resnet50"``.
        size: side in pixels of the images; None takes a run's own, else 224.

    Raises:
        RecipeError: for an unknown model.
        CheckpointError: if there are no such weights, or they do not fit the model.
    """
    file = find_weights(weights)
    beside = file.with_name(RECIPE)
    recipe = Recipe.from_file(beside) if os.path.exists(beside) else None
    side = size or (recipe.crop_size if recipe else USUAL_SIZE)
    if named := model or (recipe and recipe.backbone):
        return Classifier(load_classifier(named, file), side, named)
    try:
        return Classifier(load_classifier(USUAL_MODEL, file), side, USUAL_MODEL)
    except CheckpointError as error:
        raise CheckpointError(f"{error} ({USUAL_MODEL} was assumed; --model, or model=, names another.)") from None


def find_weights(weights: Path) -> Path:
    """The file of weights behind a file, a run's folder, or the first characters of a run's key.

    Raises:
        CheckpointError: if there is none, or several runs begin with these characters.
    """
    given = weights.expanduser()
    if os.path.isdir(given):
        if not os.path.isfile(given / BEST):
            raise CheckpointError(f"{weights} holds no {BEST}: it is not the folder of a finished run.")
        return given / BEST
    if os.path.exists(given):
        return given
    runs = sorted(folders.runs_root().glob(f"*/{BEST}"))
    found = [file for file in runs if file.parent.name.startswith(str(weights))]
    if len(found) != 1:
        count = f"{len(found)} runs begin" if found else "no run begins"
        raise CheckpointError(
            f"{weights} does not exist, and {count} with it. Give a state dict (.safetensors or .pth), or a run that "
            "`wsolkit runs list` shows."
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
    from torchvision import models as torchvision_models

    others = torchvision_models.list_models(module=torchvision_models)
    if name not in (*models.names(), *others):
        raise unknown("model", name, [*models.names(), *others])
    state = models.read_state_dict(weights)
    fit = min(_fits(name, others, state), key=lambda fit: sum(map(len, fit.misfits.values())))
    if fit.misfits:
        under = f" Under the prefix {fit.prefix!r}, of" if fit.prefix else " Of"
        said = ", ".join(f"{len(keys)} {what} (e.g. {keys[0]})" for what, keys in fit.misfits.items())
        alike = get_close_matches(name, others, ALIKE, 0)
        fitting = next((each for each in alike if _takes(each, others, state)), None)
        advice = f"It fits {fitting}." if fitting else "Name the model that it belongs to."
        raise CheckpointError(f"{weights} does not fit {name}.{under} the tensors, {said}. {advice}")
    if fit.prefix:
        left = f", {len(state) - len(fit.state)} tensors without it are left out" if len(fit.state) < len(state) else ""
        logger.warning("%s: the prefix %r is taken off the names of the tensors%s.", weights, fit.prefix, left)
    model = fit.build(fit.classes)
    try:
        model.load_state_dict(fit.state)
    except (RuntimeError, NotImplementedError) as error:  # of types that cannot be copied, such as quantized ones
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"The weights in {weights} cannot be copied into {name}: {reason}") from error
    return model.eval()


class _Fit(NamedTuple):
    """How well tensors fit a model.

    Attributes:
        build: makes the model with a number of classes.
        classes: the number of classes.
        prefix: before the names of the tensors.
        state: the tensors that have the prefix, by their names without it.
        misfits: names of tensors by what is wrong with them; empty if they fit.
    """

    build: Callable[[int], nn.Module]
    classes: int
    prefix: str
    state: Mapping[str, Tensor]
    misfits: Mapping[str, Sequence[str]]


def _takes(name: str, others: Sequence[str], state: Mapping[str, Tensor]) -> bool:
    """Whether a model fits, for the advice in an error: nothing is raised for one that cannot be built."""
    try:
        return any(not fit.misfits for fit in _fits(name, others, state))
    except Exception:
        logger.debug("%s cannot be built to compare it with the weights", name, exc_info=True)
        return False


def _fits(name: str, others: Sequence[str], state: Mapping[str, Tensor]) -> Iterator[_Fit]:
    """How tensors fit the kit's and torchvision's model of a name (both have a resnet50), under each prefix."""
    from torchvision.models import get_model

    builders: list[Callable[[int], nn.Module]] = []
    if name in models.names():
        builders.append(lambda classes: models.build(name, classes))
    if name in others:
        builders.append(lambda classes: _quietly(get_model, name, weights=None, num_classes=classes))
    for build in builders:
        shapes = _shapes(build)
        heads, first = [key for key, shape in shapes.items() if PROBE in shape[:1]], next(iter(shapes))
        for prefix in ("", *sorted({key.removesuffix(first) for key in state if key.endswith(f".{first}")})):
            given = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
            classes = max((len(given[key]) for key in heads if key in given and given[key].ndim), default=0) or PROBE
            own = {key: (classes, *shape[1:]) if key in heads else tuple(shape) for key, shape in shapes.items()}
            found = {
                "missing": [key for key in own if key not in given],
                "unknown to the model": [key for key in given if key not in own],
                "of another shape": [key for key in own if key in given and own[key] != tuple(given[key].shape)],
            }
            yield _Fit(build, classes, prefix, given, {what: keys for what, keys in found.items() if keys})


def _quietly(make: Callable[..., nn.Module], *args: object, **kwargs: object) -> nn.Module:
    """A model without torchvision's warnings about initial values, which nobody uses here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(*args, **kwargs)


def _shapes(build: Callable[[int], nn.Module]) -> dict[str, torch.Size]:
    """Names and shapes of a model's tensors, with :data:`PROBE` classes; without memory for them if possible."""
    try:
        with _WithoutMemory():
            model = build(PROBE)
    except Exception:  # a constructor that computes with its own tensors
        model = build(PROBE)
    return {key: tensor.shape for key, tensor in model.state_dict().items()}


class _WithoutMemory(TorchFunctionMode):
    """Make the tensors of layers on the meta device, all others as usual: some constructors compute with those."""

    def __torch_function__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        """Call a function of PyTorch."""
        kwargs = dict(kwargs or {})
        if func in (torch.empty, torch.zeros, torch.ones) and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
