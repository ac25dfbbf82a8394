"""CAM, the vanilla method: classification alone (Zhou et al., CVPR 2016; the paper's first row everywhere)."""

import torch.nn.functional as F
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from wsolkit.methods._base import Draw, Step, Term
from wsolkit.models import GapClassifier


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Options:
    """CAM has no options."""


def step(model: GapClassifier, images: Tensor, labels: Tensor, options: Options, warm: bool, draw: Draw) -> Step:
    """Cross-entropy of images (B, 3, H, W) and labels (B,)."""
    logits = model(images).logits
    return Step(logits, {"ce": Term(F.cross_entropy(logits, labels))})


def loss_terms(options: Options) -> tuple[str, ...]:
    """None beside the cross-entropy."""
    return ()
