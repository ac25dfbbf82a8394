"""Weights from files: torchvision's ImageNet weights, and what training programs save. Never from the network."""

import logging
import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from wsolkit.errors import CheckpointError
from wsolkit.models._base import GapClassifier
from wsolkit.system import folders

logger = logging.getLogger(__name__)

#: Entries of a training checkpoint that hold the model's weights, the likeliest first.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module")

#: Entries within entries that are searched for weights; a hostile file may contain itself.
DEPTH = 3

#: What is taken for weights by mistake: patterns of a file's first bytes and the members of an archive, and its kind.
MISTAKEN = {
    rb"\A\n": "empty",
    rb"\A\x89HDF": "an HDF5 file, as Keras writes them",
    rb"\A\x93NUMPY|\.npy\n": "a file of NumPy arrays",
    rb"constants\.pkl\n": "a TorchScript archive, a program with its weights",
    rb"\Aversion https://git-lfs": "a Git LFS pointer (`git lfs pull` fetches the file itself)",
    rb"\A\s*<": "a web page, from a download that went wrong",
}

#: What to do about a file that cannot be used.
ADVICE = "Where the model was trained, write its weights alone: torch.save(model.state_dict(), PATH)."


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
    state = read_state_dict(file)
    try:
        model.load_imagenet(state)
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{file} does not hold weights of {type(model).__name__}: {reason}") from error


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
    if not os.path.isfile(path):
        raise CheckpointError(
            f"ImageNet weights not found at {path}. Put the file there, set WSOLKIT_WEIGHTS to the folder that has it, "
            "or fetch it once: python -c 'import torchvision; "
            f'torchvision.models.get_weight("{weights}").get_state_dict()\''
        )
    return path


def read_state_dict(file: Path) -> Mapping[str, Tensor]:
    """Read tensors by name from a file of weights or a training checkpoint; no code in it is ever run.

    Of a training checkpoint the model's weights are taken (see :data:`WRAPPERS`), and the log says from which entry.

    Args:
        file: ``.safetensors``, or what ``torch.save`` wrote, in its present or its former format.

    Raises:
        CheckpointError: if the file is missing, is something else, or holds more than plain data and tensors.
    """
    if not os.path.isfile(file):
        found = "is a folder" if os.path.isdir(file) else "is not a regular file" if os.path.exists(file) else ""
        raise CheckpointError(f"{file} {found or 'does not exist'}. Give a file of weights, .safetensors or .pth.")
    try:
        content = _load(file)
    except OSError as error:
        raise CheckpointError(f"Cannot read {file}: {error.strerror or error}.") from error
    groups = list(_tensor_groups(content))
    if not groups:
        found = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(f"{file} holds no tensors by name: expected a state dict, found {found or 'nothing'}.")
    path, tensors = min(groups, key=_rank)
    if path or len(tensors) < len(content):
        others = [str(name) for name in content if name not in (path[:1] or tensors)]
        left = f"; left out: {', '.join(others[:8])}" if others else ""
        source = f"its entry {'.'.join(path)!r}" if path else "the tensors in it"
        logger.warning("%s is a training checkpoint: the weights are %s%s.", file, source, left)
    return tensors


def _load(file: Path) -> Any:
    """The content of a file; the code in a pickle is never run.

    Raises:
        OSError: if it cannot be read.
        CheckpointError: if it is something else or damaged, or holds more than plain data and tensors.
    """
    with open(file, "rb") as opened:
        start = opened.read(64)
    try:
        archive = zipfile.is_zipfile(file)
        members = zipfile.ZipFile(file).namelist() if archive else []
        seen = b"\n".join([start, *map(str.encode, members), b""])
        if kinds := [kind for pattern, kind in MISTAKEN.items() if re.search(pattern, seen)]:
            raise CheckpointError(f"{file} is {kinds[0]}. Expected weights, .safetensors or .pth. {ADVICE}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols
            if start[8:9] == b"{":
                return load_file(file)
            with open(file, "rb") as opened:  # of a path torch.load would also look at the ending
                return torch.load(opened, map_location="cpu", weights_only=True)
    except (OSError, CheckpointError):
        raise
    except Exception as error:  # bytes that are something else can raise anything
        if start.startswith((b"PK", b"\x80")) and (found := re.search(r"GLOBAL (\S+)", str(error))):
            former = "" if archive else " It is in PyTorch's format from before version 1.6."
            raise CheckpointError(
                f"{file} holds Python objects besides tensors ({found[1]}): a whole model, or the settings of a "
                f"training. Reading them could run code in the file, so it is not read.{former} {ADVICE}"
            ) from None
        raise CheckpointError(
            f"{file} is not a file of weights, or is damaged or cut short. Copy or download it again."
        ) from None


def _tensor_groups(content: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Every mapping from names to tensors within some content, with the names of the entries that lead to it."""
    if not isinstance(content, Mapping) or len(path) > DEPTH:
        return
    if tensors := {
        name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)
    }:
        yield path, tensors
    for name, value in content.items():
        yield from _tensor_groups(value, (*path, str(name)))


def _rank(group: tuple[tuple[str, ...], Mapping[str, Tensor]]) -> tuple[tuple[int, ...], int]:
    """Likelier entries come first; the file's own tensors after :data:`WRAPPERS`, before any other entry."""
    path, tensors = group
    known = len(WRAPPERS)
    ranks = tuple(WRAPPERS.index(name) if name in WRAPPERS else known + 1 for name in path) or (known,)
    return ranks, -len(tensors)
