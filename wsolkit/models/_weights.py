"""Weights from files: published ones, and what training programs save. Never from the network."""

import hashlib
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import Tensor

from wsolkit.errors import CheckpointError, turned_into
from wsolkit.models._base import GapClassifier
from wsolkit.system import folders

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

logger = logging.getLogger(__name__)

#: The kit's own published weights: of each a ``.safetensors`` file, and a ``.json`` file that says how it was made.
PUBLISHED = folders.PACKAGE / "models" / "weights"

#: Entries of a training checkpoint that usually hold the model's weights.
WRAPPERS = {"state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module"}

#: Entries within entries that are searched for weights; a hostile file may contain itself.
DEPTH = 3

#: Bytes from a file's beginning by which it is recognised, and what separates them from the error that it raised.
BEGINNING, SEPARATOR = 300, b"\n--\n"

#: What a file is that cannot be read, by the first pattern found in its beginning or in the error that it raised.
MISTAKEN = {
    rb"\A\n--\n": "is empty",
    rb"\A\x89HDF": "is an HDF5 file, as Keras writes them",
    rb"\A\x93NUMPY|\APK[\s\S]*\.npy": "is a file of NumPy arrays",
    rb"TorchScript": "is a TorchScript archive, a program with its weights",
    rb"\Aversion https://git-lfs": "is a Git LFS pointer (`git lfs pull` fetches the file itself)",
    rb"\A\s*<": "is a web page, from a download that went wrong",
    rb"\A(PK|\x80)[\s\S]*GLOBAL ": "holds Python objects besides tensors (reading them could run code)",
    rb"\A\x80[\x02-\x05](?!\x8a\nl\xfc)": "is a Python pickle, not from torch.save (reading it could run code)",
    rb"": "is not a file of weights, or is damaged or cut short; copy or download it again",
}

#: What to do about a file that cannot be used.
ADVICE = "Where the model was trained, write its weights alone: torch.save(model.state_dict(), PATH)."


def load_pretrained(model: GapClassifier, name: str) -> None:
    """Load published weights, by what they were pretrained on, into a backbone; its classifier stays random.

    Args:
        model: the backbone.
        name: ``"imagenet"`` for torchvision's weights, or a data set for which this kit publishes weights.

    Raises:
        CheckpointError: as `load_imagenet_weights` and `pretrained_file`.
    """
    if name == "imagenet":
        load_imagenet_weights(model)
    else:
        model.load_state_dict(model.state_dict() | load_file(pretrained_file(model, name)))


def pretrained_file(model: GapClassifier, name: str) -> Path:
    """The file of a backbone's published weights; arguments as for `load_pretrained`.

    Raises:
        CheckpointError: if there are none, or the file is missing or was altered.
    """
    if name == "imagenet":
        return imagenet_weights_file(model)
    backbone = type(model).__module__.rpartition(".")[2]
    path = PUBLISHED / f"{backbone}-{name}.safetensors"
    if not path.is_file():
        known = ", ".join(file.stem for file in sorted(PUBLISHED.glob("*.safetensors")))
        raise CheckpointError(f"There are no published weights of {backbone!r} from {name!r}. There are: {known}.")
    expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["sha256"]
    if sha256(path) != expected:
        raise CheckpointError(f"{path} was altered: its SHA-256 is not {expected}. Reinstall wsolkit.")
    return path


def load_imagenet_weights(model: GapClassifier, file: str | Path | None = None) -> None:
    """Load torchvision's ImageNet weights into a backbone.

    Args:
        model: a backbone that has such weights; its classifier, and layers unknown to torchvision, stay random.
        file: a torchvision state dict (``.pth`` or ``.safetensors``). None looks in
            `wsolkit.system.folders.weights_root` for the file under torchvision's own name.

    Raises:
        CheckpointError: if the backbone has no such weights, or the file is missing, unreadable or of another model.
    """
    file = imagenet_weights_file(model, file)
    what = f"{file} does not hold weights of {type(model).__name__}"
    with turned_into(CheckpointError, what, "Give torchvision's own file.", RuntimeError, KeyError):
        model.load_imagenet(read_state_dict(file))


def imagenet_weights_file(model: GapClassifier, file: str | Path | None = None) -> Path:
    """Where the ImageNet weights of a backbone are; see `load_imagenet_weights`.

    Raises:
        CheckpointError: if the backbone has no such weights, or as `torchvision_file`.
    """
    if model.imagenet_weights is None:
        raise CheckpointError(f"{type(model).__name__} has no ImageNet weights. Choose vgg16, or pretrain by a recipe.")
    return torchvision_file(model.imagenet_weights, file)


def torchvision_file(weights: "WeightsEnum", file: str | Path | None = None) -> Path:
    """Where torchvision's published weights are.

    Args:
        weights: which, e.g. ``MobileNet_V2_Weights.IMAGENET1K_V1``.
        file: None looks in `wsolkit.system.folders.weights_root` for the file under torchvision's own name.

    Raises:
        CheckpointError: if the file is missing, or is not the published one.
    """
    name, digits = torchvision_name(weights)
    path = Path(file or folders.weights_root() / name).expanduser()
    if not os.path.isfile(path):
        model = str(weights).removesuffix(f"_Weights.{weights.name}").lower()
        raise CheckpointError(
            f"ImageNet weights not found at {path}.\n`wsolkit data get weights --name {model}` downloads them; or set "
            "WSOLKIT_WEIGHTS to the folder that has the file."
        )
    if file is None and not sha256(path).startswith(digits):
        raise CheckpointError(f"{path} is not the file that torchvision publishes. Remove it and download it again.")
    return path


def torchvision_name(weights: "WeightsEnum") -> tuple[str, str]:
    """The name of the file of torchvision's published weights, and the first digits of its SHA-256, which end it."""
    name = weights.url.rpartition("/")[2]
    return name, Path(name).stem.rpartition("-")[2]


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_state_dict(file: Path) -> Mapping[str, Tensor]:
    """Read tensors by name from a file of weights or a training checkpoint; no code in it is ever run.

    Of a training checkpoint the model's weights are taken (see :data:`WRAPPERS`), and the log names their entry.

    Args:
        file: ``.safetensors``, or what ``torch.save`` wrote, in its present or its former format.

    Raises:
        CheckpointError: if the file is missing, is something else, or holds more than plain data and tensors.
    """
    if not os.path.isfile(file):
        state = "is a folder or not a regular file" if os.path.exists(file) else "does not exist"
        raise CheckpointError(f"{file} {state}. Give a file of weights, .safetensors or .pth.")
    content = _load(file)
    groups = list(_tensor_groups(content))
    if not groups:
        found = list(content)[:5] if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(f"{file} holds no tensors by name: expected a state dict, found {found}.")
    path, tensors = min(groups, key=lambda group: (sum(name not in WRAPPERS for name in group[0]), -len(group[1])))
    if path:
        logger.warning("%s is a training checkpoint: the weights are its entry %r.", file, ".".join(path))
    return tensors


def _load(file: Path) -> object:
    """The content of a file; the code in a pickle is never run.

    Raises:
        CheckpointError: if it cannot be read, is something else or damaged, or holds more than plain data and tensors.
    """
    try:
        with open(file, "rb") as opened, warnings.catch_warnings(action="ignore"):  # about former formats
            beginning = opened.read(BEGINNING)
            if beginning[8:9] == b"{":
                return load_file(file)
            opened.seek(0)  # of a path torch.load would also look at the ending
            return torch.load(opened, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"Cannot read {file}: {error.strerror or error}.") from error
    except Exception as error:  # bytes that are something else can raise anything
        seen = beginning + SEPARATOR + ascii(error).encode()
        kind = next(kind for pattern, kind in MISTAKEN.items() if re.search(pattern, seen))
        raise CheckpointError(f"{file} {kind}. {ADVICE}") from None


def _tensor_groups(content: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Every mapping from names to tensors within some content, with the names of the entries that lead to it."""
    if isinstance(content, Mapping) and len(path) <= DEPTH:
        tensors = {name: each for name, each in content.items() if isinstance(name, str) and isinstance(each, Tensor)}
        if tensors:
            yield path, tensors
        for name, each in content.items():
            yield from _tensor_groups(each, (*path, str(name)))
