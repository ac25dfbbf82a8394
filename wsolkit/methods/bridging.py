"""The paper's method: feature direction alignment and consistency with attentive dropout (Sec. 4)."""

from typing import Literal

import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor

from wsolkit import losses
from wsolkit.erasing import AttentiveDropout
from wsolkit.methods import cam
from wsolkit.methods._alignment import AlignmentOptions, alignment_losses, alignment_terms, without_alignment
from wsolkit.methods._base import Batch, Draw, Share, Step, Term, Weight
from wsolkit.models import GapClassifier, Output, frozen_statistics
from wsolkit.system.plugins import STRICT


@dataclass(frozen=True, config=STRICT)
class Options(AlignmentOptions):
    """Hyperparameters of Eq. 5 to 10; the defaults are the paper's for CUB-200-2011 with VGG16 (Sec. 5.4).

    Attributes:
        lambda_drop: weight of the drop loss; 0 leaves it, and its second pass, out.
        drop_threshold: share of the largest channel mean above which a cell is attended (paper: gamma).
        drop_prob: probability that an attended cell is dropped (paper: p).
        drop_reduction: ``"mean"`` (released code) or ``"sum"`` (Eq. 9 read literally).
    """

    lambda_drop: Weight = 3.0
    drop_threshold: Share = 0.8
    drop_prob: Share = 0.5
    drop_reduction: Literal["mean", "sum"] = "mean"


def step(model: GapClassifier, batch: Batch, options: Options) -> Step:
    """Loss terms of one batch (Eq. 10; in the warm stage Eq. 11).

    Args:
        model: the classifier, in training mode.
        batch: the images; in the warm stage the alignment losses are left out.
        options: the method's hyperparameters.
    """
    output = model(batch.images)
    terms = {"ce": Term(F.cross_entropy(output.logits, batch.labels))}
    if options.lambda_drop:
        terms["drop"] = Term(_drop_loss(model, output, options, batch.draw), options.lambda_drop)
    if not batch.warm:
        terms |= alignment_terms(output.features, model.classifier.weight, batch.labels, options)
    return Step(output.logits, terms)


def warm_stage(options: Options) -> tuple[str, Options | cam.Options]:
    """Without alignment the drop loss is left, and without that the vanilla method."""
    return ("bridging", without_alignment(options)) if options.lambda_drop else ("cam", cam.Options())


def loss_terms(options: Options) -> tuple[str, ...]:
    """Those with a weight, in the order of Tab. 7."""
    return (*(["drop"] if options.lambda_drop else []), *alignment_losses(options))


def _drop_loss(model: GapClassifier, output: Output, options: Options, draw: Draw) -> Tensor:
    dropped = AttentiveDropout(options.drop_threshold, options.drop_prob)(output.drop_point, draw)
    with frozen_statistics(model):
        erased = model.after_drop_point(dropped)
    return losses.drop_loss(output.features, erased, options.drop_reduction)
