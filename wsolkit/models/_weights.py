"""torchvision's ImageNet weights, from the local cache or from a file; never from the network."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wsolkit.errors import CheckpointError
from wsolkit.models._base import GapClassifier
from wsolkit.system import folders


def load_imagenet_weights(model: GapClassifier, file: str | Path | None = None) -> None:
    """Load torchvision's ImageNet weights into a backbone.

    Args:
        model: a backbone that has such weights; its classifier, and what torchvision does not have, stay random.
        file: a torchvision state dict (``.pth`` or ``.safetensors``). None takes the file of the weights' own name
            from `wsolkit.system.folders.weights_root`.

    Raises:
        CheckpointError: if the backbone has no such weights, or the file is missing, unreadable or of another model.
    """
    file = imagenet_weights_file(model, file)
    state = read_state_dict(file)
    try:
        model.load_imagenet(state)
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(
            f"{file} does not hold weights of {type(model).__name__}: {_first_line(error)}"
        ) from error


def imagenet_weights_file(model: GapClassifier, file: str | Path | None = None) -> Path:
    """Where the ImageNet weights of a backbone are; see `load_imagenet_weights`.

    Raises:
        CheckpointError: if the backbone has no such weights, or the file is missing.
    """
    weights = model.imagenet_weights
    if weights is None:
        raise CheckpointError(
            f"{type(model).__name__} has no ImageNet weights. Pretrain it with a recipe of its own, or choose vgg16."
        )
    path = Path(file or folders.weights_root() / weights.url.rsplit("/", 1)[-1]).expanduser()
    if not path.is_file():
        raise CheckpointError(
            f"ImageNet weights not found at {path}. Put the file there, set WSOLKIT_WEIGHTS to the folder that has it, "
            "or fetch it once: python -c 'import torchvision; "
            f'torchvision.models.get_weight("{weights}").get_state_dict()\''
        )
    return path


_NOT_A_PICKLE = (KeyError, IndexError, ValueError, AttributeError, TypeError)
"""What reading a file as a pickle raises, beside the errors made for it, where it is something else altogether."""


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def read_state_dict(file: Path) -> Mapping[str, Tensor]:
    """Read tensors by name from ``.safetensors`` or from a ``.pth`` that holds nothing but tensors.

    Raises:
        CheckpointError: if the file cannot be read so; no code in it is ever run.
    """
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist. Give a file of weights, .safetensors or .pth.")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not zipfile.is_zipfile(file):
            raise CheckpointError(f"{file} is not a file of weights, or is cut short: {_first_line(error)}.") from error
        raise CheckpointError(
            f"{file} holds more than tensors, a whole model perhaps. Reading that could run code in it, so it is not "
            "read. Write the weights alone: torch.save(model.state_dict(), PATH)."
        ) from error
    except (OSError, EOFError, RuntimeError, SafetensorError, *_NOT_A_PICKLE) as error:
        raise CheckpointError(f"{file} is not a file of weights, or is cut short: {_first_line(error)}.") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        found = f", found {', '.join(map(str, list(state)[:5]))}" if isinstance(state, Mapping) else ""
        raise CheckpointError(f"{file} does not hold tensors by name; expected a state dict{found}.")
    return state
