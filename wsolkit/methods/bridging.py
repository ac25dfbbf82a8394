"""The paper's method: feature direction alignment and consistency with attentive dropout (Sec. 4)."""

from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from wsolkit import losses, maps
from wsolkit.erasing import AttentiveDropout
from wsolkit.methods._base import Step, Term
from wsolkit.models import GapClassifier, Output, frozen_statistics

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Options:
    """Hyperparameters of Eq. 5 to 10; the defaults are the paper's for CUB-200-2011 with VGG16 (Sec. 5.4).

    Attributes:
        lambda_sim: weight of the similarity loss; 0 leaves it out.
        lambda_norm: weight of the norm loss; 0 leaves it out.
        lambda_drop: weight of the drop loss; 0 leaves it, and its second pass, out.
        tau_fg: normalised norm above which a cell is foreground.
        tau_bg: normalised norm below which a cell is background.
        drop_threshold: share of the largest channel mean above which a cell is attended (paper: gamma).
        drop_prob: probability that an attended cell is dropped (paper: p).
        norm_mask: the similarity that divides foreground from background in the norm loss: that of the ``"target"``
            class, or, for fine-grained data, the maximum over classes, ``"any_class"`` (Sec. 4.1).
        drop_reduction: ``"mean"`` (released code) or ``"sum"`` (Eq. 9 read literally).
    """

    lambda_sim: Weight = 0.5
    lambda_norm: Weight = 0.15
    lambda_drop: Weight = 3.0
    tau_fg: Share = 0.6
    tau_bg: Share = 0.1
    drop_threshold: Share = 0.8
    drop_prob: Share = 0.5
    norm_mask: Literal["target", "any_class"] = "any_class"
    drop_reduction: Literal["mean", "sum"] = "mean"


def step(
    model: GapClassifier, images: Tensor, labels: Tensor, options: Options, warm: bool, generator: Generator
) -> Step:
    """Loss terms of one batch (Eq. 10; in the warm stage Eq. 11).

    Args:
        model: the classifier, in training mode.
        images: (B, 3, H, W), normalised.
        labels: (B,) class indices.
        options: the method's hyperparameters.
        warm: whether this is the warm stage, which leaves the alignment losses out.
        generator: source of randomness of attentive dropout, on the CPU.
    """
    output = model(images)
    terms = {"ce": Term(F.cross_entropy(output.logits, labels))}
    if options.lambda_drop:
        terms["drop"] = Term(_drop_loss(model, output, options, generator), options.lambda_drop)
    if not warm:
        terms |= _alignment_terms(model, output, labels, options)
    return Step(output.logits, terms)


def _drop_loss(model: GapClassifier, output: Output, options: Options, generator: Generator) -> Tensor:
    dropped = AttentiveDropout(options.drop_threshold, options.drop_prob)(output.drop_point, generator)
    with frozen_statistics(model):
        erased = model.after_drop_point(dropped)
    return losses.drop_loss(output.features, erased, options.drop_reduction)


def _alignment_terms(model: GapClassifier, output: Output, labels: Tensor, options: Options) -> dict[str, Term]:
    if not (options.lambda_sim or options.lambda_norm):
        return {}
    features, weight, terms = output.features, model.classifier.weight, {}
    norms = maps.norm_map(features)
    target = maps.target_similarity(features, weight, labels)
    if options.lambda_sim:
        value = losses.similarity_loss(norms, target, options.tau_fg, options.tau_bg)
        terms["sim"] = Term(value, options.lambda_sim)
    if options.lambda_norm and options.norm_mask == "any_class":
        strongest = maps.similarity_map(features.detach(), weight.detach()).amax(1)
        terms["norm"] = Term(losses.norm_loss(norms, strongest, "background"), options.lambda_norm)
    elif options.lambda_norm:
        terms["norm"] = Term(losses.norm_loss(norms, target), options.lambda_norm)
    return terms
