"""ADL, attention-based dropout layers at several depths (Choe and Shim, CVPR 2019)."""

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor

from wsolkit.erasing import attended_cells
from wsolkit.methods._base import Batch, Share, Step, Term
from wsolkit.models import GapClassifier
from wsolkit.system.plugins import STRICT

#: The row of the paper's tables.
LABEL = "ADL"


@dataclass(frozen=True, config=STRICT)
class Options:
    """Hyperparameters; the defaults are the paper's for VGG-GAP.

    Attributes:
        drop_threshold: share of the largest channel mean above which the drop mask hides a cell.
        drop_prob: probability that a layer applies the drop mask; otherwise it applies the importance map.
    """

    drop_threshold: Share = 0.8
    drop_prob: Share = 0.75


def step(model: GapClassifier, batch: Batch, options: Options) -> Step:
    """Cross-entropy behind a dropout layer at the end of each of the last three stages.

    Each layer chooses once for the whole batch, as the authors' code does.
    """
    drops = [number < options.drop_prob for number in batch.draw.for_all(3)]

    def act(number: int, features: Tensor) -> Tensor:
        return features * attention(features, options.drop_threshold, drops[number])

    with model.watched(act):
        logits = model(batch.images).logits
    return Step(logits, {"ce": Term(F.cross_entropy(logits, batch.labels))})


def attention(features: Tensor, drop_threshold: float, drop: bool) -> Tensor:
    """What features (B, C, H, W) are multiplied by, (B, 1, H, W): the drop mask, or the importance map.

    Both are made from the channel mean: the mask is 0 where it exceeds the threshold, the map is its sigmoid.
    """
    if drop:
        return (~attended_cells(features, drop_threshold)).to(features.dtype)
    return torch.sigmoid(features.mean(1, keepdim=True))
