"""What a training step gives: named loss terms, each with its weight."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from torch import Tensor

Draw = Callable[[Sequence[int]], Tensor]
"""Gives uniform numbers in [0, 1) of a shape whose first entry counts images, on the CPU."""


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
