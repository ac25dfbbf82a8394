"""SPG, self-produced guidance: what the CAM is sure of teaches object masks at other depths (Zhang et al., ECCV 2018).

Cells where the CAM is high are seeds of the object, cells where it is low seeds of the background; what lies between is
ignored. Seeds of the CAM guide a mask made from the second stage, that mask's seeds one made from the first, and the
seeds of their mean one made from the last features. The masks shape the features; the method localizes by the CAM.
"""

from typing import cast

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from wsolkit import maps
from wsolkit.methods._base import Batch, Share, Step, Term
from wsolkit.models import GapClassifier
from wsolkit.system.plugins import STRICT

#: The row of the paper's tables.
LABEL = "SPG"

#: Channels of the convolutions that make a mask.
WIDTH = 512


@dataclass(frozen=True, config=STRICT)
class Options:
    """Hyperparameters; the defaults are those of the WSOL benchmark's code.

    Attributes:
        high_cam: share of the CAM's range above which a cell is a seed of the object.
        low_cam: share below which it is one of the background.
        high_second: the same for the mask of the second stage.
        low_second: the same for the mask of the second stage.
        high_mean: the same for the mean of both masks.
        low_mean: the same for the mean of both masks.
    """

    high_cam: Share = 0.7
    low_cam: Share = 0.01
    high_second: Share = 0.5
    low_second: Share = 0.05
    high_mean: Share = 0.7
    low_mean: Share = 0.1


def layers(model: GapClassifier, options: Options) -> nn.ModuleDict:
    """What makes a mask, before its sigmoid, from features: three convolutions in a stage, two at the end."""
    seen = _stages(model.eval(), torch.zeros(1, 3, 64, 64))
    model.train()
    first, second, last = seen[0].shape[1], seen[1].shape[1], model.classifier.in_features
    width = min(WIDTH, last)

    def of_stage(channels: int) -> nn.Sequential:
        return nn.Sequential(
            *(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True)),
            nn.Conv2d(width, 1, 1),
        )

    at_end = nn.Sequential(nn.Conv2d(last, width, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(width, 1, 1))
    return nn.ModuleDict({"first": of_stage(first), "second": of_stage(second), "last": at_end})


def step(model: GapClassifier, batch: Batch, options: Options) -> Step:
    """The cross-entropy, and that of each mask with its seeds."""
    found: dict[int, Tensor] = {}
    with model.watched(found.__setitem__, (0, 1)):
        output = model(batch.images)
    masks = cast(nn.ModuleDict, model.extra)
    first, second = masks["first"](found[0])[:, 0], masks["second"](found[1])[:, 0]
    last = masks["last"](output.features)[:, 0]
    cam = maps.cam(output.features.detach(), model.classifier.weight.detach(), batch.labels)
    attention, of_second = maps.min_max(cam, check=False), second.detach().sigmoid()
    mean = (_resized(first.detach().sigmoid(), of_second) + of_second) / 2
    terms = {
        "ce": Term(F.cross_entropy(output.logits, batch.labels)),
        "second": Term(guidance_loss(second, attention, options.high_cam, options.low_cam)),
        "first": Term(guidance_loss(first, of_second, options.high_second, options.low_second)),
        "last": Term(guidance_loss(last, mean, options.high_mean, options.low_mean)),
    }
    return Step(output.logits, terms)


def guidance_loss(mask: Tensor, guide: Tensor, high: float, low: float) -> Tensor:
    """Mean binary cross-entropy of a mask, before its sigmoid, over the seeds of a guide.

    Args:
        mask: (B, H, W).
        guide: (B, h, w) in [0, 1], without gradient; resized to the mask's size.
        high: above it a cell is a seed of the object.
        low: below it a cell is a seed of the background.

    Returns:
        A scalar; 0 without seeds.
    """
    guide = _resized(guide, mask).to(mask.dtype)
    object_, seeds = guide > high, (guide > high) | (guide < low)
    each = F.binary_cross_entropy_with_logits(mask, object_.to(mask.dtype), reduction="none")
    return each.masked_fill(~seeds, 0).sum() / seeds.sum().clamp(min=1)


@torch.no_grad()
def _stages(model: GapClassifier, images: Tensor) -> dict[int, Tensor]:
    """What the first two stages give."""
    found: dict[int, Tensor] = {}
    with model.watched(found.__setitem__, (0, 1)):
        model(images)
    return found


def _resized(maps: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(maps[:, None], like.shape[1:], mode="bilinear", align_corners=False)[:, 0]
