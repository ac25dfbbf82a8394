"""HaS, hide-and-seek: random patches of the input are hidden in training (Singh and Lee, ICCV 2017)."""

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from wsolkit.methods._base import Batch, Draw, Share, Step, Term
from wsolkit.models import GapClassifier
from wsolkit.system.plugins import STRICT

#: The row of the paper's tables.
LABEL = "HaS"


@dataclass(frozen=True, config=STRICT)
class Options:
    """Hyperparameters; the defaults are the paper's HaS-56: patches of 56 of 224 pixels, half of them hidden.

    Attributes:
        patches: patches a side.
        hide_prob: probability that a patch is hidden.
    """

    patches: Annotated[int, Field(ge=1)] = 4
    hide_prob: Share = 0.5


def step(model: GapClassifier, batch: Batch, options: Options) -> Step:
    """Cross-entropy of images with hidden patches."""
    logits = model(hidden(batch.images, options, batch.draw)).logits
    return Step(logits, {"ce": Term(F.cross_entropy(logits, batch.labels))})


def hidden(images: Tensor, options: Options, draw: Draw) -> Tensor:
    """Images (B, 3, H, W) whose hidden pixels are 0, which is ImageNet's mean colour, since images are normalised."""
    kept = draw((len(images), 1, options.patches, options.patches)) >= options.hide_prob
    kept = kept.to(images.dtype)
    return images * F.interpolate(kept, images.shape[2:], mode="nearest")
