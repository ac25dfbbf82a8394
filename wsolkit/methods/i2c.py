"""I2C, inter-image communication: objects of one class should have like features (Zhang et al., ECCV 2020).

Batches hold images of a class side by side. Features of a few cells on the object are drawn from each, and drawn
closer to those of the other image (stochastic consistency), and to the centre of their class, which is remembered over
the whole training set (global consistency).
"""

from typing import Annotated, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from wsolkit import maps
from wsolkit.methods._base import Batch, Share, Step, Term, Weight
from wsolkit.models import GapClassifier
from wsolkit.system.plugins import STRICT

#: The row of the paper's tables.
LABEL = "I2C"

#: Batches hold images of a class side by side.
PAIRS = "class"

#: A centre's rate of change is ``exp(-DECAY * n)`` at its n-th change (the authors' code).
DECAY = 0.002


@dataclass(frozen=True, config=STRICT)
class Options:
    """Hyperparameters; the defaults are those of the authors' code for CUB.

    Attributes:
        object_threshold: share of the CAM's range above which a cell is on the object.
        cells: cells drawn from each image.
        lambda_stochastic: weight of the distance between the cells of two images of a class.
        lambda_global: weight of the distance between their mean and the centre of the class (ImageNet-1K: 0.001).
    """

    object_threshold: Share = 0.7
    cells: Annotated[int, Field(ge=1)] = 3
    lambda_stochastic: Weight = 0.008
    lambda_global: Weight = 0.003


class Memory(nn.Module):
    """A centre for each class, and how many times it was changed."""

    centres: Tensor
    changes: Tensor

    def __init__(self, classes: int, channels: int):
        """Remember nothing yet."""
        super().__init__()
        self.register_buffer("centres", torch.zeros(classes, channels))
        self.register_buffer("changes", torch.zeros(classes))

    @torch.no_grad()
    def update(self, found: Tensor, labels: Tensor) -> None:
        """Move the centres of some classes to the means of what was found (B, C); a label below 0 does not count."""
        shares = F.one_hot(labels.clamp(min=0), len(self.changes)).to(found.dtype).T * (labels >= 0)
        counts = shares.sum(1)
        means = shares @ found / counts.clamp(min=1)[:, None]
        rates = torch.exp(-DECAY * self.changes) * (counts > 0)
        self.centres.lerp_(means, rates[:, None])
        self.changes += counts > 0


def layers(model: GapClassifier, options: Options) -> Memory:
    """The memory of the classes' centres, which has no parameters."""
    return Memory(model.classifier.out_features, model.classifier.in_features)


def step(model: GapClassifier, batch: Batch, options: Options) -> Step:
    """Cross-entropy and, after the warm stage, both consistencies.

    An image's gradient comes through its own cells alone, whether the other image is in this process or not. So each
    pair counts from both sides, which the weights make up for.
    """
    output = model(batch.images)
    terms = {"ce": Term(F.cross_entropy(output.logits, batch.labels))}
    if batch.warm:
        return Step(output.logits, terms)
    cam = maps.cam(output.features.detach(), model.classifier.weight.detach(), batch.labels)
    drawn = batch.draw((len(cam), options.cells, *cam.shape[1:]))
    here = cells(output.features, maps.min_max(cam, check=False) > options.object_threshold, drawn).float()
    everywhere, part = batch.gather(here.detach()), slice(batch.draw.part.start, batch.draw.part.stop)
    labels = batch.gather(batch.labels + 1) - 1
    others = mates(labels)
    paired = (labels >= 0) & (others != torch.arange(len(others), device=others.device))
    weights = paired / paired.float().mean().clamp(min=1 / len(paired))  # so that their mean over the batch is 1
    other, weights, memory = others[part], weights[part], cast(Memory, model.extra)
    distances = torch.linalg.vector_norm(here - everywhere[other], dim=2).mean(1)
    middle, known = (here + everywhere[other]).mean(1) / 2, memory.changes[batch.labels] > 0
    to_centres = torch.linalg.vector_norm(middle - memory.centres[batch.labels], dim=1)
    terms["stochastic"] = Term((distances * weights).mean(), 2 * options.lambda_stochastic)
    terms["global"] = Term((to_centres * weights * known).mean(), 2 * options.lambda_global)
    memory.update(everywhere.mean(1), labels)
    return Step(output.logits, terms)


def cells(features: Tensor, on_object: Tensor, drawn: Tensor) -> Tensor:
    """Features of cells on the object: (B, C, H, W), a mask (B, H, W) and uniform numbers (B, N, H, W) to (B, N, C)."""
    chosen = (drawn + on_object[:, None]).flatten(2).argmax(2)
    flat = features.flatten(2).transpose(1, 2)
    return flat.gather(1, chosen[..., None].expand(-1, -1, flat.shape[2]))


def mates(labels: Tensor) -> Tensor:
    """For each of (B,) labels, the position of the next image of its class, around the end; its own if it is alone."""
    positions = torch.arange(len(labels), device=labels.device)
    ahead = (positions[None] - positions[:, None] - 1) % len(labels)
    return ahead.masked_fill(labels[None] != labels[:, None], len(labels)).argmin(1)
