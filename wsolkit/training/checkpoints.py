"""Checkpoints in safetensors, and the files of a run's folder.

A checkpoint holds tensors by name and a JSON header. It is written atomically, read without running code, and carries a
hash of its content, so that a file that was cut short or altered is never mistaken for a whole one.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from wsolkit.errors import CheckpointError, turned_into
from wsolkit.models import without_prefix
from wsolkit.system.atomic_files import write_file
from wsolkit.training.engine import Engine
from wsolkit.training.recipes import Recipe

logger = logging.getLogger(__name__)

#: Everything that the next epoch needs, after the newest epoch and after the one before.
LAST, PREVIOUS = "last.safetensors", "previous.safetensors"

BEST = "best.safetensors"
HISTORY = "history.csv"

#: Name of the only metadata entry, JSON with ``header`` and ``sha256``; safetensors shuffles several entries.
ENTRY = "wsolkit"

MODEL, MOMENTUM = "model.", "momentum."


def snapshot(epoch: int) -> str:
    """Name of the file with the weights after an epoch, if the recipe asks for them."""
    return f"epoch-{epoch:03d}.safetensors"


def save(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a header; ``path`` holds either its old or its new content, never a part.

    Raises:
        WsolkitError: if the file cannot be written, for example on a full disk.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    entry = json.dumps({"header": header, "sha256": _digest(plain, header)})
    write_file(path, safetensors.torch.save(plain, {ENTRY: entry}))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors, on the CPU, and the header.

    Raises:
        CheckpointError: if the file is missing, cut short, altered or not ours.
    """
    what, advice = f"{path} is not a checkpoint, or is cut short", "Delete or replace it."
    with (
        turned_into(CheckpointError, what, advice, OSError, SafetensorError, ValueError),
        safe_open(path, framework="pt") as file,
    ):
        entry = (file.metadata() or {}).get(ENTRY)
        if entry is None:
            raise CheckpointError(f"{path} is not a checkpoint of this kit: its header has no {ENTRY!r} entry.")
        tensors, content = {name: file.get_tensor(name) for name in file.keys()}, json.loads(entry)  # noqa: SIM118
    header = content.get("header")
    if content.get("sha256") != _digest(tensors, header):
        raise CheckpointError(f"{path} was altered: its content does not match its hash. Delete or replace it.")
    return tensors, header


def load_into(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy a checkpoint's tensors into a model of the same shape.

    Raises:
        CheckpointError: if names or shapes differ, naming the first that does.
    """
    what, advice = f"{path} does not fit {type(model).__name__}", "Train it again, or take the version that made it."
    with turned_into(CheckpointError, what, advice, RuntimeError):
        model.load_state_dict(tensors)


def judged_by(recipe: Recipe) -> str:
    """The column of the history whose highest value decides which epoch's weights are kept."""
    return "epoch" if recipe.select_by == "last" else f"fullsup_{recipe.select_by}"


def begun(folder: Path) -> bool:
    """Whether a run's folder holds a finished epoch."""
    return any((folder / name).exists() for name in (LAST, PREVIOUS))


def keep_epoch(
    folder: Path, recipe: Recipe, model: nn.Module, optimizer: Optimizer, history: list[dict], state: dict[str, Any]
) -> None:
    """Write what the newest epoch leaves behind; the progress comes last, because it makes the epoch count.

    Args:
        folder: the run's.
        recipe: what is trained.
        model: after the epoch.
        optimizer: after the epoch.
        history: one row for each epoch, the newest last.
        state: of the engine.
    """
    epoch, weights = len(history), model.state_dict()
    header = {"epoch": epoch, "recipe": recipe.key}
    judged = [row[judged_by(recipe)] for row in history]
    if judged.index(max(judged)) == epoch - 1:  # of equals, the earliest stays
        save(folder / BEST, weights, header)
    if epoch in recipe.snapshot_epochs:
        save(folder / snapshot(epoch), weights, header)
    # SGD has no momentum before its first step.
    momenta = {str(n): kept.get("momentum_buffer") for n, kept in optimizer.state_dict()["state"].items()}
    tensors = {MODEL + name: tensor for name, tensor in weights.items()}
    tensors |= {MOMENTUM + number: tensor for number, tensor in momenta.items() if tensor is not None}
    if (folder / LAST).exists():
        os.replace(folder / LAST, folder / PREVIOUS)
    save(folder / LAST, tensors, {"history": history, "engine": state})
    _write_history(folder, history)


def resume(folder: Path, model: nn.Module, optimizer: Optimizer, engine: Engine) -> list[dict]:
    """Restore an earlier attempt into model, optimizer and engine; returns its history, empty for a new run.

    If the newest progress is damaged, a warning names it, and the one before it is used.

    Raises:
        CheckpointError: if both are damaged.
    """
    if not begun(folder):
        return []
    path = folder / LAST
    try:
        tensors, header = load(path)
    except CheckpointError as error:
        if not (folder / PREVIOUS).exists():
            raise
        logger.warning("%s Going on from the epoch before, %s.", error, PREVIOUS)
        path = folder / PREVIOUS
        tensors, header = load(path)
    load_into(model, without_prefix(tensors, MODEL), path)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, buffer in without_prefix(tensors, MOMENTUM).items():
        parameter = parameters[int(number)]
        optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(buffer)
    engine.restore(header.get("engine", {}))
    if engine.main:  # a kill may have come between the checkpoint and the history
        _write_history(folder, header["history"])
    return header["history"]


def _write_history(folder: Path, history: list[dict]) -> None:
    write_file(folder / HISTORY, pd.DataFrame(history).to_csv(index=False))


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any] | None) -> str:
    seen = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        seen.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        seen.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return seen.hexdigest()
