"""Intervals for few-seed comparisons: paired bootstrap over seeds and images."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Effect:
    """A difference of two means with its 95% interval, in the unit of the values."""

    difference: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def paired_effect(ours: np.ndarray, baseline: np.ndarray, resamples: int = 2000, seed: int = 0) -> Effect:
    """How much one method is better than another, trained with the same seeds and tested on the same images.

    Args:
        ours: (S, N) one value for each seed and image, e.g. 1 where the box is right.
        baseline: (S, N) the same of the other method.
        resamples: bootstrap resamples; each draws seeds and images with replacement, the same for both methods.
        seed: of the resampling.

    Returns:
        The mean difference and the 2.5 and 97.5 percentiles of its resampled values.

    Raises:
        ValueError: if the two do not pair up.
    """
    if ours.shape != baseline.shape or ours.ndim != 2:
        raise ValueError(f"Expected two (seeds, images) arrays of one shape, received {ours.shape}, {baseline.shape}.")
    gain = ours.astype(float) - baseline.astype(float)
    by_seed, by_image = _weights(*gain.shape, resamples, seed)
    means = np.einsum("rs,sn,rn->r", by_seed, gain, by_image, optimize=True)
    low, high = np.percentile(means, [2.5, 97.5])
    return Effect(float(gain.mean()), float(low), float(high))


@lru_cache(maxsize=4)
def _weights(seeds: int, images: int, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights of every seed and image in every resample; drawing them is nearly all the work of an interval."""
    rng = np.random.default_rng(seed)
    by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    return by_seed, rng.multinomial(images, np.full(images, 1 / images), resamples) / images
