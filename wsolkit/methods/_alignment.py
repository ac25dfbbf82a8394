"""Alignment of feature directions (paper, Sec. 4.1): its options and its loss terms, for any method to add."""

import dataclasses
from typing import Any, Literal, TypeVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from wsolkit import losses, maps
from wsolkit.methods._base import Share, Term, Weight
from wsolkit.system.plugins import STRICT


@dataclass(frozen=True, config=STRICT)
class AlignmentOptions:
    """Hyperparameters of Eq. 5 to 8; the defaults are the paper's for CUB-200-2011 with VGG16 (Sec. 5.4).

    Attributes:
        lambda_sim: weight of the similarity loss; 0 leaves it out.
        lambda_norm: weight of the norm loss; 0 leaves it out.
        tau_fg: normalised norm above which a cell is foreground.
        tau_bg: normalised norm below which a cell is background.
        norm_mask: the similarity that divides foreground from background in the norm loss: that of the ``"target"``
            class, or, for fine-grained data, the maximum over classes, ``"any_class"`` (Sec. 4.1).
    """

    lambda_sim: Weight = 0.5
    lambda_norm: Weight = 0.15
    tau_fg: Share = 0.6
    tau_bg: Share = 0.1
    norm_mask: Literal["target", "any_class"] = "any_class"


Aligned = TypeVar("Aligned", bound=AlignmentOptions)


def without_alignment(options: Aligned) -> Aligned:
    """The options with alignment off and all that then has no effect at its default."""
    defaults: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(AlignmentOptions)}
    return dataclasses.replace(options, **defaults | {"lambda_sim": 0.0, "lambda_norm": 0.0})


def alignment_losses(options: AlignmentOptions) -> tuple[str, ...]:
    """Names of the alignment losses that have a weight."""
    return tuple(name for name in ("sim", "norm") if getattr(options, f"lambda_{name}"))


def alignment_terms(features: Tensor, weight: Tensor, labels: Tensor, options: AlignmentOptions) -> dict[str, Term]:
    """The terms ``sim`` and ``norm``, each where its weight is not 0.

    Args:
        features: (B, C, H, W).
        weight: (K, C), weight of the linear classifier.
        labels: (B,) class indices.
        options: the hyperparameters.
    """
    if not alignment_losses(options):
        return {}
    # Directions are compared in full precision, whatever that of the network.
    with torch.autocast(features.device.type, enabled=False):
        return _terms(maps.full_precision(features), maps.full_precision(weight), labels, options)


def _terms(features: Tensor, weight: Tensor, labels: Tensor, options: AlignmentOptions) -> dict[str, Term]:
    terms = {}
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
