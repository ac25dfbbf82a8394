"""Intervals of paired differences over few repetitions, and a rule for adding repetitions until something is decided.

The unit is the repetition (seed): another classifier, other batches, crops and dropout. Two methods share their seeds
and their test images, so differences are taken image by image before anything else. What the intervals cover, what they
do not, and how often they do is in ``docs/statistics.md``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

#: Share of intervals that hold the true difference, unless another one is asked for.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Effect:
    """A difference of two means with its interval, in the unit of the values.

    Attributes:
        difference: the mean difference.
        low: the lowest difference that the values agree with.
        high: the highest.
    """

    difference: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def paired_effect(ours: np.ndarray, baseline: np.ndarray, confidence: float = CONFIDENCE) -> Effect:
    """How much one method is better than another, trained with the same seeds and tested on the same images.

    The interval adds, as squares, the half-widths of two t intervals: one over the means of the seeds, and one over
    those of the images (after Graybill and Wang's intervals of sums of variances). It is exact where one of the two
    decides, and slightly wide elsewhere, since both see the chance that belongs to a single seed and image. One seed
    shows nothing of the chance between trainings, so its interval has no ends.

    Args:
        ours: (S, N) one value for each seed and image, e.g. 1 where the box is right.
        baseline: (S, N) the same of the other method.
        confidence: share of such intervals that hold the true difference.

    Raises:
        ValueError: if the two do not pair up.
    """
    if ours.shape != baseline.shape or ours.ndim != 2:
        raise ValueError(f"Expected two (seeds, images) arrays of one shape, received {ours.shape}, {baseline.shape}.")
    gain = ours.astype(float) - baseline.astype(float)
    (seeds, images), mean = gain.shape, gain.mean()
    if seeds < 2:
        return Effect(float(mean), -np.inf, np.inf)
    variance = sum(
        half_width(gain.mean(axis).std(ddof=1), count, confidence) ** 2
        for axis, count in ((1, seeds), (0, images))
        if count > 1
    )
    return Effect(float(mean), float(mean - variance**0.5), float(mean + variance**0.5))


def half_width(deviation: np.ndarray | float, count: np.ndarray | int, confidence: float = CONFIDENCE) -> np.ndarray:
    """Half of the t interval of a mean; zero where there is only one value, which shows nothing of chance.

    Args:
        deviation: sample deviation, in the unit of the mean: one or (N,); not a number for a single value.
        count: numbers of values, of the same shape.
        confidence: share of such intervals that hold the true mean.
    """
    return np.nan_to_num(stats.t.ppf((1 + confidence) / 2, count - 1) * deviation / np.sqrt(count))


def looks(first: int, most: int) -> list[int]:
    """Numbers of repetitions at which something may be decided: each twice as many as the one before.

    A look pays for what it adds: one more repetition, after three, would widen the interval by more than it narrows it.
    """
    found = [min(first, most)]
    while found[-1] < most:
        found.append(min(most, 2 * found[-1]))
    return found


def confidence_at(look: int, at: Sequence[int], tests: int = 1) -> float:
    """The confidence that an interval needs at one of several looks, so that all looks together err as one would.

    The chance of error is spent in proportion to the repetitions (Lan and DeMets): what a look adds to their number,
    it may add to the error. By Bonferroni's inequality this holds whatever the values are.

    Args:
        look: which look, counted from 0.
        at: repetitions at each look, planned before the first.
        tests: how many intervals are looked at together, where one of them is enough to decide.
    """
    new = at[look] - (at[look - 1] if look else 0)
    return 1 - (1 - CONFIDENCE) * new / at[-1] / tests
