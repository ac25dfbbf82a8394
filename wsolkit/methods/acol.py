"""ACoL, adversarial complementary learning: a second classifier sees what the first does not (Zhang et al., CVPR 2018).

The first classifier is the network's own. Where its CAM of the true class is strong, the features are erased, and from
the rest the second must recognise the class. The method localizes by the larger of both maps at each cell.
"""

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from wsolkit import maps
from wsolkit.methods._base import Batch, Share, Step, Term
from wsolkit.models import GapClassifier, Output
from wsolkit.system.plugins import STRICT

#: The row of the paper's tables.
LABEL = "ACoL"

#: Channels of the second classifier's convolutions, where the features have as many (the paper: 1024).
WIDTH = 1024


@dataclass(frozen=True, config=STRICT)
class Options:
    """Hyperparameters; the default is the paper's for ImageNet.

    Attributes:
        erase_threshold: share of the CAM, normalised to [0, 1], above which a cell is erased.
    """

    erase_threshold: Share = 0.6


def layers(model: GapClassifier, options: Options) -> nn.Sequential:
    """The second classifier: two 3x3 convolutions, and one 1x1 that gives a map (B, K, H, W) for each class."""
    channels, classes = model.classifier.in_features, model.classifier.out_features
    width = min(WIDTH, channels)
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, classes, 1),
    )


def step(model: GapClassifier, batch: Batch, options: Options) -> Step:
    """Cross-entropies of both classifiers."""
    output = model(batch.images)
    first = maps.cam(output.features.detach(), model.classifier.weight.detach(), batch.labels)
    second = model.extra(erased(output.features, first, options.erase_threshold)).mean((2, 3))
    terms = {
        "ce": Term(F.cross_entropy(output.logits, batch.labels)),
        "second": Term(F.cross_entropy(second, batch.labels)),
    }
    return Step(output.logits, terms)


def erased(features: Tensor, cam: Tensor, erase_threshold: float) -> Tensor:
    """Features (B, C, H, W) without the cells where a CAM (B, H, W), normalised to [0, 1], exceeds the threshold."""
    return features.masked_fill((maps.min_max(cam, check=False) > erase_threshold)[:, None], 0)


def predict(model: GapClassifier, output: Output, labels: Tensor, options: Options) -> tuple[Tensor, Tensor]:
    """The first classifier's logits, and the larger of both normalised maps at each cell."""
    first = maps.cam(output.features, model.classifier.weight, labels)
    every = model.extra(erased(output.features, first, options.erase_threshold))
    second = every[torch.arange(len(labels), device=labels.device), labels]
    return output.logits, torch.maximum(maps.min_max(first), maps.min_max(second))
