"""Backbones: one file each, all giving a :class:`GapClassifier`.

A backbone's file has a function ``build(num_classes) -> GapClassifier``. To add a backbone, add its file here.
"""

from dataclasses import dataclass
from types import ModuleType

import torch

from wsolkit.models._base import GapClassifier, Output, frozen_statistics, new_classifier, without_prefix
from wsolkit.models._weights import (
    PUBLISHED,
    imagenet_weights_file,
    load_imagenet_weights,
    load_pretrained,
    pretrained_file,
    read_state_dict,
    torchvision_file,
    torchvision_name,
)
from wsolkit.system import plugins

__all__ = [
    "PUBLISHED",
    "Backbone",
    "GapClassifier",
    "Output",
    "build",
    "find",
    "frozen_statistics",
    "imagenet_weights_file",
    "load_imagenet_weights",
    "load_pretrained",
    "names",
    "new_classifier",
    "pretrained_file",
    "read_state_dict",
    "torchvision_file",
    "torchvision_name",
    "without_prefix",
]


@dataclass(frozen=True)
class Backbone:
    """A backbone that is not built yet: its name and its file."""

    name: str
    module: ModuleType

    def build(self, num_classes: int, seed: int = 0) -> GapClassifier:
        """The network with random weights; see `wsolkit.models.build`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.module.build(num_classes)


def names() -> tuple[str, ...]:
    """Names of the backbones."""
    return plugins.names(__name__)


def build(name: str, num_classes: int, seed: int = 0) -> GapClassifier:
    """Build a backbone with random weights.

    Args:
        name: a file name in this folder, e.g. ``"vgg16"``.
        num_classes: outputs of the classifier.
        seed: of the initial weights; the global random state is left as it was.

    Raises:
        RecipeError: if the backbone is unknown.
    """
    return find(name).build(num_classes, seed)


def find(name: str) -> Backbone:
    """A backbone by name.

    Raises:
        RecipeError: if it is unknown.
    """
    return Backbone(name, plugins.load(__name__, "backbone", name))
