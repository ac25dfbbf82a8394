"""Backbones: one file each, all giving a :class:`GapClassifier`.

A backbone module has a function ``build(num_classes) -> GapClassifier``. Adding one is adding its file here.
"""

import torch

from wsolkit.models._base import GapClassifier, Output, frozen_statistics
from wsolkit.models._weights import imagenet_weights_file, load_imagenet_weights, read_state_dict
from wsolkit.system import registry

__all__ = [
    "GapClassifier",
    "Output",
    "build",
    "frozen_statistics",
    "imagenet_weights_file",
    "load_imagenet_weights",
    "names",
    "read_state_dict",
]


def names() -> tuple[str, ...]:
    """Names of the backbones."""
    return registry.names(__name__)


def build(name: str, num_classes: int, seed: int = 0) -> GapClassifier:
    """Build a backbone with random weights.

    Args:
        name: a file name in this folder, e.g. ``"vgg16"``.
        num_classes: outputs of the classifier.
        seed: of the initial weights; the global random state is left as it was.

    Raises:
        RecipeError: for an unknown backbone.
    """
    module = registry.load(__name__, "backbone", name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return module.build(num_classes)
