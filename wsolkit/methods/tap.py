"""Thresholded average pooling, clamped weights and PaS (Bae et al., "Rethinking CAM for WSOL", ECCV 2020).

A channel is averaged over the cells where it is active instead of over all, so that a small active region is not told
by large activations. The method localizes by the CAM of the positive class weights, up to a high percentile.
"""

import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor

from wsolkit import maps
from wsolkit.methods._base import Batch, Share, Step, Term
from wsolkit.models import GapClassifier, Output
from wsolkit.system.plugins import STRICT

#: The row of the paper's tables.
LABEL = "Bae et al."


@dataclass(frozen=True, config=STRICT)
class Options:
    """Hyperparameters.

    Attributes:
        pool_threshold: share of a channel's maximum above which a cell takes part in its average.
        percentile: share of the map's cells below its upper bound (PaS).
    """

    pool_threshold: Share = 0.1
    percentile: Share = 0.9


def step(model: GapClassifier, batch: Batch, options: Options) -> Step:
    """Cross-entropy of what thresholded average pooling gives."""
    pooled = thresholded_average(model(batch.images).features, options.pool_threshold)
    logits = model.classifier(pooled)
    return Step(logits, {"ce": Term(F.cross_entropy(logits, batch.labels))})


def thresholded_average(features: Tensor, threshold: float) -> Tensor:
    """The mean (B, C) of each channel of features (B, C, H, W) >= 0 over the cells above a share of its maximum."""
    active = features > threshold * features.detach().amax((2, 3), keepdim=True)
    return features.masked_fill(~active, 0).sum((2, 3)) / active.sum((2, 3)).clamp(min=1)


def predict(model: GapClassifier, output: Output, labels: Tensor, options: Options) -> tuple[Tensor, Tensor]:
    """Logits by thresholded average pooling, and CAMs without negative class weights, bounded by PaS."""
    logits = model.classifier(thresholded_average(output.features, options.pool_threshold))
    positive = maps.cam(output.features, model.classifier.weight.clamp(min=0), labels)
    return logits, maps.pas(positive, options.percentile)
