"""EIL, erasing integrated learning (Mai et al., CVPR 2020): the method that the paper compares attentive dropout with.

A second pass must recognise the class from features whose highly activated cells are erased. The paper uses it alone
(Fig. 1, 7b, A2) and together with alignment (Tab. 6).
"""

import torch.nn.functional as F
from pydantic.dataclasses import dataclass

from wsolkit.erasing import attended_cells
from wsolkit.methods._alignment import AlignmentOptions, alignment_losses, alignment_terms, without_alignment
from wsolkit.methods._base import Batch, Share, Step, Term, Weight
from wsolkit.models import GapClassifier, frozen_statistics
from wsolkit.system.plugins import STRICT


@dataclass(frozen=True, config=STRICT)
class Options(AlignmentOptions):
    """EIL's hyperparameters, as its authors released them for VGG16; alignment is off unless its weights are given.

    Attributes:
        erase_threshold: share of the largest channel mean above which a cell is erased, always.
        lambda_erased: weight of the cross-entropy of the erased pass.
    """

    lambda_sim: Weight = 0.0
    lambda_norm: Weight = 0.0
    erase_threshold: Share = 0.7
    lambda_erased: Weight = 1.0


def step(model: GapClassifier, batch: Batch, options: Options) -> Step:
    """Loss terms of one batch: the cross-entropies of both passes, which share all weights, and alignment.

    Args:
        model: the classifier, in training mode. Cells are erased after the pooling that follows its drop point.
        batch: the images; in the warm stage the alignment losses are left out.
        options: the method's hyperparameters.

    Returns:
        Logits and terms; CAMs are made from the pass without erasing.
    """
    output = model(batch.images)
    pooled = model.pooling(output.drop_point)
    erased = pooled.masked_fill(attended_cells(pooled, options.erase_threshold), 0)
    with frozen_statistics(model):
        logits = model.classifier(model.gap(model.after_pooling(erased)))
    terms = {
        "ce": Term(F.cross_entropy(output.logits, batch.labels)),
        "erased": Term(F.cross_entropy(logits, batch.labels), options.lambda_erased),
    }
    if not batch.warm:
        terms |= alignment_terms(output.features, model.classifier.weight, batch.labels, options)
    return Step(output.logits, terms)


def warm_stage(options: Options) -> tuple[str, Options]:
    """Alignment is left out."""
    return "eil", without_alignment(options)


def loss_terms(options: Options) -> tuple[str, ...]:
    """EIL's own, and those of alignment that have a weight, as in Tab. 6."""
    return ("eil", *alignment_losses(options))
