"""Tensors on their way to the device that computes with them."""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A CPU tensor on a device; nothing waits for a GPU, which copies it when its turn has come."""
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
