"""MEIL, erasing integrated learning at two depths (Mai et al., CVPR 2020); `eil` is the same at one."""

import torch.nn.functional as F
from pydantic.dataclasses import dataclass
from torch import Tensor

from wsolkit.erasing import attended_cells
from wsolkit.methods._base import Batch, Share, Step, Term, Weight
from wsolkit.models import GapClassifier, frozen_statistics
from wsolkit.system.plugins import STRICT

#: The row of the paper's tables.
LABEL = "MEIL"


@dataclass(frozen=True, config=STRICT)
class Options:
    """Hyperparameters; the defaults are EIL's, as its authors released them for VGG16.

    Attributes:
        erase_threshold: share of the largest channel mean above which a cell is erased, at either depth.
        lambda_erased: weight of the cross-entropy of each erased pass.
    """

    erase_threshold: Share = 0.7
    lambda_erased: Weight = 1.0


def step(model: GapClassifier, batch: Batch, options: Options) -> Step:
    """Cross-entropies of the plain pass, of one erased at the end of the first stage, and of one at the second's."""
    logits = model(batch.images).logits

    def erase(number: int, features: Tensor) -> Tensor:
        return features.masked_fill(attended_cells(features, options.erase_threshold), 0)

    terms = {"ce": Term(F.cross_entropy(logits, batch.labels))}
    for depth, name in enumerate(("erased_early", "erased_late")):
        with frozen_statistics(model), model.watched(erase, (depth,)):
            terms[name] = Term(F.cross_entropy(model(batch.images).logits, batch.labels), options.lambda_erased)
    return Step(logits, terms)
