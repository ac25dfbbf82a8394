"""Checkpoints in safetensors: tensors by name and a JSON header, written atomically, read without running code.

Each carries a hash of its content, so that a file which was cut short or altered is never taken for a whole one.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from wsolkit.errors import CheckpointError
from wsolkit.system.writing import atomic_file, not_written

ENTRY = "wsolkit"
"""Name of the one metadata entry, JSON with ``header`` and ``sha256``; of several, safetensors shuffles the order."""


def save(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a header; ``path`` holds either its old or its new content, never a part.

    Raises:
        WsolkitError: if the file cannot be written, for example on a full disk.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    entry = json.dumps({"header": header, "sha256": _digest(plain, header)})
    with atomic_file(path) as partial:
        try:
            save_file(plain, partial, metadata={ENTRY: entry})
        except SafetensorError as error:
            raise not_written(path, error) from error


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors, on the CPU, and the header.

    Raises:
        CheckpointError: if the file is missing, cut short, altered or not ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            entry = (file.metadata() or {}).get(ENTRY)
            if entry is None:
                raise CheckpointError(f"{path} is not a checkpoint of this kit: its header has no {ENTRY!r} entry.")
            tensors, said = {name: file.get_tensor(name) for name in file.keys()}, json.loads(entry)  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is not a checkpoint, or is cut short: {error}. Delete or replace it.") from error
    header = said.get("header")
    if said.get("sha256") != _digest(tensors, header):
        raise CheckpointError(f"{path} was altered: its content has not the hash that it was written with. Replace it.")
    return tensors, header


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any] | None) -> str:
    seen = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        seen.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        seen.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return seen.hexdigest()


def load_into(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy a checkpoint's tensors into a model of the same shape.

    Raises:
        CheckpointError: if names or shapes differ, naming the first that does.
    """
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path} does not fit {type(model).__name__}: {detail}") from error


def momentum_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """SGD's momentum buffers by the number of their parameter; none before the first step."""
    states = optimizer.state_dict()["state"]
    return {str(n): s["momentum_buffer"] for n, s in states.items() if s.get("momentum_buffer") is not None}


def restore_momentum(optimizer: Optimizer, buffers: Mapping[str, Tensor]) -> None:
    """Put momentum buffers back where `momentum_tensors` took them."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, buffer in buffers.items():
        parameter = parameters[int(number)]
        layout = torch.empty_like(parameter)
        optimizer.state[parameter]["momentum_buffer"] = layout.copy_(buffer)


def split_by_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name starts with ``prefix``, named without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
