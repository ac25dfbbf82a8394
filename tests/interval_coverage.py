"""How often the intervals of `wsolkit.study.statistics` hold the truth, by simulation; prints the table of the docs.

Differences between two methods are drawn with known deviations: between seeds, between images, and of what is left,
in points. The true difference is one point.
"""

import numpy as np

from wsolkit.study.statistics import CONFIDENCE, paired_effect

TRUTH = 1.0
IMAGES = 200
REPEATS = 1000

#: Numbers of seeds, each a column.
SEEDS = (3, 5, 10)

#: By name, the deviations between seeds, between images, and of the rest.
WORLDS = {
    "seeds decide": (2.0, 5.0, 10.0),
    "images decide": (0.1, 40.0, 5.0),
    "both alike": (2.0, 28.0, 5.0),
    "neither: each image is a coin": (0.0, 0.0, 45.0),
}


def draw(rng: np.random.Generator, world: tuple[float, float, float], seeds: int, truth: float = TRUTH) -> np.ndarray:
    """Differences (seeds, IMAGES) in points."""
    by_seed, by_image, rest = world
    noise = rng.normal(0, by_seed, (seeds, 1)) + rng.normal(0, by_image, (1, IMAGES))
    return truth + noise + rng.normal(0, rest, (seeds, IMAGES))


def coverage(world: tuple[float, float, float], seeds: int) -> tuple[float, float]:
    """The share of intervals that hold the truth, and their mean half-width in points."""
    rng, held, widths = np.random.default_rng(0), 0, 0.0
    for _ in range(REPEATS):
        gain = draw(rng, world, seeds)
        effect = paired_effect(gain, np.zeros_like(gain))
        held += effect.low <= TRUTH <= effect.high
        widths += (effect.high - effect.low) / 2
    return held / REPEATS, widths / REPEATS


def table() -> str:
    """The table as Markdown."""
    lines = [f"| what decides | {' | '.join(f'{n} seeds' for n in SEEDS)} |", "| --- |" + " --- |" * len(SEEDS)]
    for name, world in WORLDS.items():
        cells = (f"{100 * share:.1f}% (± {width:.1f})" for share, width in (coverage(world, n) for n in SEEDS))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(f"asked: {CONFIDENCE:.0%}\n{table()}")
