"""Anybody's classifier from a file of weights: a run of the kit, or a model of torchvision."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor, nn

from wsolkit import models
from wsolkit.errors import CheckpointError, unknown
from wsolkit.system import folders
from wsolkit.training.checkpoints import BEST
from wsolkit.training.recipes import Recipe
from wsolkit.training.run_store import RECIPE

USUAL_MODEL, USUAL_SIZE = "resnet50", 224
"""What weights belong to, and the side of the images in pixels, where neither the user nor a run says so."""

ALIKE = 12
"""Models of names like the given one that are tried, to say which one weights fit."""


@dataclass(frozen=True)
class Classifier:
    """A network and how its images are made.

    Attributes:
        network: with its weights, in evaluation mode.
        size: side in pixels of its images.
        name: of the model.
    """

    network: nn.Module
    size: int
    name: str


def open_classifier(weights: Path, model: str | None = None, size: int | None = None) -> Classifier:
    """A classifier from its weights; those of a run say by themselves what they belong to.

    Args:
        weights: a run's folder, its key or the beginning of it; or a state dict, ``.safetensors`` or ``.pth``.
        model: one of the kit's backbones, or a model of torchvision; None takes a run's own, else ``"resnet50"``.
        size: side in pixels of the images; None takes a run's own, else 224.

    Raises:
        RecipeError: for an unknown model.
        CheckpointError: if there are no such weights, or they do not fit the model.
    """
    file = find_weights(weights)
    beside = file.with_name(RECIPE)
    recipe = Recipe.from_file(beside) if beside.exists() else None
    side = size or (recipe.crop_size if recipe else USUAL_SIZE)
    if named := model or (recipe and recipe.backbone):
        return Classifier(load_classifier(named, file), side, named)
    try:
        return Classifier(load_classifier(USUAL_MODEL, file), side, USUAL_MODEL)
    except CheckpointError as error:
        raise CheckpointError(f"{error} ({USUAL_MODEL} was assumed; --model, or model=, names another.)") from None


def find_weights(weights: Path) -> Path:
    """The file of weights that a file, a run's folder, or the beginning of a run's key stands for.

    Raises:
        CheckpointError: if there is none, or several runs begin so.
    """
    if weights.is_file():
        return weights
    if weights.is_dir():
        if not (weights / BEST).is_file():
            raise CheckpointError(f"{weights} holds no {BEST}: it is not the folder of a finished run.")
        return weights / BEST
    begun = [
        file for file in sorted(folders.runs_root().glob(f"*/{BEST}")) if file.parent.name.startswith(str(weights))
    ]
    if len(begun) != 1:
        found = f"{len(begun)} runs begin so" if begun else "no run begins so either"
        raise CheckpointError(
            f"{weights} does not exist, and {found}. Give a state dict (.safetensors or .pth), or a run of "
            "`wsolkit runs list`."
        )
    return begun[0]


def load_classifier(name: str, weights: Path) -> nn.Module:
    """A classifier with weights from a file.

    Args:
        name: one of the kit's backbones, or a model of torchvision, e.g. ``"resnet50"``.
        weights: a state dict, ``.safetensors`` or ``.pth``; no code in it is run.

    Raises:
        RecipeError: for an unknown name.
        CheckpointError: if the file is missing, or does not fit.
    """
    from torchvision import models as torchvision_models

    others = torchvision_models.list_models(module=torchvision_models)
    if name not in (*models.names(), *others):
        raise unknown("model", name, [*models.names(), *others])
    state = models.read_state_dict(weights)
    last = [tensor for key, tensor in state.items() if key.endswith("weight") and tensor.ndim == 2]
    if not last:
        raise CheckpointError(f"{weights} has no weights of a linear layer; expected the state dict of a {name}.")
    misfits = []
    for model in _candidates(name, others, len(last[-1])):
        misfit = _compare(model.state_dict(), state)
        if not misfit:
            model.load_state_dict(state)
            return model.eval()
        misfits.append(misfit)
    nearest = min(misfits, key=lambda misfit: sum(map(len, misfit.values())))
    said = ", ".join(f"{len(keys)} {what} (e.g. {keys[0]})" for what, keys in nearest.items())
    alike = get_close_matches(name, others, n=ALIKE, cutoff=0)
    fitting = next((each for each in alike if _fits(each, others, state, len(last[-1]))), None)
    advice = f"It fits {fitting}." if fitting else "Name the model that it belongs to."
    raise CheckpointError(f"{weights} does not fit {name}. Of the tensors, {said}. {advice}")


def _fits(name: str, others: Sequence[str], state: Mapping[str, Tensor], classes: int) -> bool:
    with torch.device("meta"):  # shapes alone
        return any(not _compare(model.state_dict(), state) for model in _candidates(name, others, classes))


def _candidates(name: str, others: Sequence[str], classes: int) -> Iterator[nn.Module]:
    """The kit's own backbone, then torchvision's of the same name: both may be called resnet50."""
    if name in models.names():
        yield models.build(name, classes)
    if name in others:
        from torchvision.models import get_model

        yield get_model(name, weights=None, num_classes=classes)


def _compare(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """What keeps a model from taking a state dict: names of tensors by what is wrong with them; empty if it fits."""
    shared = [name for name in own if name in given]
    found = {
        "missing": [name for name in own if name not in given],
        "not the model's": [name for name in given if name not in own],
        "of another shape": [name for name in shared if own[name].shape != given[name].shape],
    }
    return {what: names for what, names in found.items() if names}
