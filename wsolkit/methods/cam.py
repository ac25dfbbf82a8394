"""CAM, the vanilla method: classification alone (Zhou et al., CVPR 2016; the paper's first row everywhere)."""

import torch.nn.functional as F
from pydantic.dataclasses import dataclass

from wsolkit.methods._base import Batch, Step, Term
from wsolkit.models import GapClassifier
from wsolkit.system.plugins import STRICT


@dataclass(frozen=True, config=STRICT)
class Options:
    """CAM has no options."""


def step(model: GapClassifier, batch: Batch, options: Options) -> Step:
    """Cross-entropy."""
    logits = model(batch.images).logits
    return Step(logits, {"ce": Term(F.cross_entropy(logits, batch.labels))})


def loss_terms(options: Options) -> tuple[str, ...]:
    """None beside the cross-entropy."""
    return ()
