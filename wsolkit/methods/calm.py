"""CALM: the location of the cue is a latent variable, and the score map a probability (Kim et al., ICCV 2021).

A network with two heads says at each cell z what it would be called, p(y | x, z), and where to look, p(z | x). The
class is found by summing both over the cells, so that the joint probability p(y, z | x) explains all of the prediction.

In training the sum over the cells that makes p(z | x) a probability counts as a constant, as in the authors' code:
a cell is attended to for what it explains, and not at the cost of others. With that sum differentiated, attention soon
shrinks to a few cells.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from wsolkit.methods._base import Batch, Step, Term
from wsolkit.models import GapClassifier, Output
from wsolkit.system.plugins import STRICT

#: The row of the paper's tables.
LABEL = "CALM"


@dataclass(frozen=True, config=STRICT)
class Options:
    """CALM, trained by marginal likelihood.

    Attributes:
        map_classes: whose joint probability the score map shows: that of the ``"label"``, or of ``"all"`` classes
            together, which the authors' code offers for classes that are kinds of one thing.
    """

    map_classes: Literal["label", "all"] = "label"


def layers(model: GapClassifier, options: Options) -> nn.Conv2d:
    """The second head, a 1x1 convolution: how much each cell counts, before softplus."""
    return nn.Conv2d(model.classifier.in_features, 1, 1)


def step(model: GapClassifier, batch: Batch, options: Options) -> Step:
    """The negative log likelihood of the labels."""
    logits = joint(model, model(batch.images).features).flatten(2).logsumexp(2)
    return Step(logits, {"ce": Term(F.nll_loss(logits, batch.labels))})


def joint(model: GapClassifier, features: Tensor) -> Tensor:
    """The logarithm of p(y, z | x), (B, K, H, W): its exponentials sum to 1 over classes and cells."""
    classifier = model.classifier
    by_cell = F.linear(features.movedim(1, 3), classifier.weight, classifier.bias).movedim(3, 1)
    attention = F.softplus(model.extra(features)).log()
    return by_cell.log_softmax(1) + attention - attention.detach().flatten(2).logsumexp(2)[..., None, None]


def predict(model: GapClassifier, output: Output, labels: Tensor, options: Options) -> tuple[Tensor, Tensor]:
    """The logarithm of p(y | x), and at each cell p(label, z | x), or its sum over all classes, p(z | x)."""
    found = joint(model, output.features)
    at_labels = found[torch.arange(len(labels), device=labels.device), labels]
    shown = at_labels if options.map_classes == "label" else found.logsumexp(1)
    return found.flatten(2).logsumexp(2), shown.exp()
