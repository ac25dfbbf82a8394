"""CutMix: a box of each image comes from another one, and the labels are mixed by area (Yun et al., ICCV 2019)."""

from typing import Annotated, cast

import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy import stats
from torch import Tensor

from wsolkit.methods._base import Batch, Share, Step, Term
from wsolkit.models import GapClassifier
from wsolkit.system.plugins import STRICT

#: The row of the paper's tables.
LABEL = "CutMix"

#: Each image has a partner.
PAIRS = "batch"


@dataclass(frozen=True, config=STRICT)
class Options:
    """Hyperparameters; the defaults are the paper's for ImageNet.

    Attributes:
        alpha: both parameters of the beta distribution of the share that an image keeps; 1 is uniform.
        mix_prob: probability that a batch is mixed.
    """

    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    mix_prob: Share = 1.0


def step(model: GapClassifier, batch: Batch, options: Options) -> Step:
    """Cross-entropies with the labels of an image and of its partner, weighted by their areas.

    The box is the same for all images of a batch, as in the authors' code.
    """
    mixed, quantile, y, x = batch.draw.for_all(4)
    _, _, height, width = batch.images.shape
    kept = stats.beta.ppf(quantile, options.alpha, options.alpha) if mixed < options.mix_prob else 1.0
    top, bottom, left, right = box(kept, height, width, y, x)
    images, (partners, partner_labels) = batch.images.clone(), cast(tuple[Tensor, Tensor], batch.partners)
    images[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
    logits = model(images).logits
    area = (bottom - top) * (right - left) / (height * width)
    own, other = F.cross_entropy(logits, batch.labels), F.cross_entropy(logits, partner_labels)
    return Step(logits, {"ce": Term((1 - area) * own + area * other)})


def box(kept: float, height: int, width: int, y: float, x: float) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of the box, around a centre given in [0, 1), cut at the edges.

    Uncut it covers a share of ``1 - kept``; both sides have the same share of the image's.
    """
    tall, wide = (int(side * (1 - kept) ** 0.5) for side in (height, width))
    centre_y, centre_x = int(y * height), int(x * width)
    return (
        max(0, centre_y - tall // 2),
        min(height, centre_y + tall // 2),
        max(0, centre_x - wide // 2),
        min(width, centre_x + wide // 2),
    )
