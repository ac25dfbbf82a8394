"""What a training step is given and what it gives: a `Batch`, and named loss terms, each with its weight."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple, cast

import torch
from pydantic import Field
from torch import Generator, Tensor

from wsolkit.system.devices import send

#: A loss term's weight, and a share or probability, as options.
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]

#: Whether each image of a batch has another one as its partner, or images of a class stand side by side.
Pairs = Literal["batch", "class"]


@dataclass(frozen=True)
class Draw:
    """Uniform numbers in [0, 1), drawn on the CPU: the same for each image on one process and on many.

    Attributes:
        generator: in the same state wherever images of the batch are.
        images: images of the whole batch.
        part: which of them are here.
        device: where the numbers go.
    """

    generator: Generator
    images: int
    part: range
    device: torch.device | str = "cpu"

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """Numbers for each image: (B, ...), where B counts the images that are here."""
        drawn = torch.rand((self.images, *shape[1:]), generator=self.generator)
        return send(drawn[self.part.start : self.part.stop], self.device)

    def for_all(self, count: int) -> list[float]:
        """So many numbers that all images of the batch have in common."""
        return torch.rand(count, generator=self.generator).tolist()


@dataclass(frozen=True)
class Batch:
    """Images to learn from; of a batch that several processes share, those that are here.

    Attributes:
        images: (B, 3, H, W), normalised.
        labels: (B,) class indices.
        draw: the only randomness that a method uses, so that a run can be repeated and resumed.
        warm: whether this is the warm stage (paper, Eq. 11).
        partners: of each image another one of the whole batch, as images and labels, each image once; None unless the
            method's file says ``PAIRS = "batch"``.
        gather: a tensor (B, ...) on the images that are here to one on all images of the batch, without gradients; rows
            that no process has, since a step is taken in parts, are zero.
    """

    images: Tensor
    labels: Tensor
    draw: Draw
    warm: bool = False
    partners: tuple[Tensor, Tensor] | None = None
    # A factory, since a function as a default would be a method of the class.
    gather: Callable[[Tensor], Tensor] = field(default_factory=lambda: Tensor.detach)


class Term(NamedTuple):
    """One loss term: a scalar, unweighted, and its weight in the total."""

    value: Tensor
    weight: float = 1.0


@dataclass(frozen=True)
class Step:
    """The outcome of one training step, before the backward pass.

    Attributes:
        logits: (B, K).
        terms: loss terms by name.
    """

    logits: Tensor
    terms: dict[str, Term]

    def total(self) -> Tensor:
        """The weighted sum of the terms (paper, Eq. 10 and 11)."""
        total = sum(term.weight * term.value for term in self.terms.values())
        return cast(Tensor, total)  # the stub of `sum` has 0 for no terms, and every method gives some
