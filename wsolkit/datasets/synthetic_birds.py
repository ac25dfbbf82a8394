"""Synthetic birds, the stand-in for CUB-200-2011: one shape, many species, which only the head tells apart for sure.

A species is a combination of colours for head, body, belly, wing, tail and bill. The head's colour is its own;
every other colour is shared with other species. So the head is the most discriminative part, and a classifier need
not look at the rest of the bird: the situation that the paper starts from (Sec. 1).
"""

import numpy as np

from wsolkit.datasets import _drawing as drawing
from wsolkit.datasets._drawing import Part, blob, ellipse, polygon
from wsolkit.datasets._synthetic import SyntheticOptions as Options
from wsolkit.datasets._synthetic import World

__all__ = ["Options", "extent", "open_split"]

#: The head's colour, which names the species.
HEADS = {
    "scarlet": (0.87, 0.10, 0.10),
    "golden": (0.98, 0.80, 0.08),
    "azure": (0.12, 0.32, 0.92),
    "sable": (0.07, 0.07, 0.09),
    "ivory": (0.95, 0.94, 0.90),
    "emerald": (0.08, 0.70, 0.28),
    "violet": (0.58, 0.18, 0.80),
    "amber": (0.96, 0.48, 0.06),
    "teal": (0.10, 0.72, 0.75),
    "rose": (0.96, 0.45, 0.68),
}

BODIES = ((0.62, 0.44, 0.26), (0.40, 0.48, 0.62), (0.48, 0.56, 0.30), (0.70, 0.46, 0.40))
BELLIES = ((0.94, 0.86, 0.66), (0.84, 0.86, 0.88), (0.90, 0.66, 0.46))
WINGS = ((0.36, 0.24, 0.18), (0.22, 0.30, 0.44), (0.54, 0.38, 0.16))
TAILS = ((0.46, 0.22, 0.14), (0.20, 0.24, 0.36), (0.64, 0.34, 0.18))
BILLS = ((0.92, 0.66, 0.20), (0.22, 0.20, 0.20))


def plumage(rng: np.random.Generator, label: int) -> dict[str, np.ndarray]:
    """The colours of one bird of a species, RGB in [0, 1] by part: those of its species, jittered."""
    shared = {"body": BODIES, "belly": BELLIES, "wing": WINGS, "tail": TAILS, "bill": BILLS}
    steps = {"body": 1, "belly": 2, "wing": 1, "tail": 2, "bill": 1}
    paint = {part: drawing.jitter(rng, of[label * steps[part] % len(of)], 0.09) for part, of in shared.items()}
    return paint | {"head": drawing.jitter(rng, list(HEADS.values())[label], 0.05)}


def _compose(rng: np.random.Generator, label: int) -> tuple[list[Part], drawing.Pose]:
    parts = bird(rng, plumage(rng, label))
    return parts, drawing.random_pose(rng, parts, extent=(0.5, 0.88), tilt=0.35)


def bird(rng: np.random.Generator, paint: dict[str, np.ndarray]) -> list[Part]:
    """The parts of one bird, seen from the side and looking right.

    Args:
        rng: source of randomness for wing, tail and head.
        paint: RGB in [0, 1] for ``head``, ``body``, ``belly``, ``wing``, ``tail`` and ``bill``.
    """
    lift, nod = rng.uniform(-0.12, 0.12), rng.uniform(-0.05, 0.05)
    dark = np.array([0.16, 0.12, 0.10])
    legs = [
        Part(polygon((x, 0.2), (x + 0.06, 0.2), (x + 0.08, 0.52), (x + 0.19, 0.56), (x - 0.02, 0.56)), dark)
        for x in (-0.06, 0.12)
    ]
    tail = blob((-0.42, -0.06), (-0.88, -0.14 + lift), (-1.06, 0.00 + lift), (-0.92, 0.14 + lift), (-0.42, 0.18))
    body = blob((-0.60, 0.02), (-0.25, -0.28), (0.22, -0.34), (0.56, -0.24), (0.60, 0.08), (0.30, 0.36), (-0.24, 0.33))
    belly = blob((-0.34, 0.18), (0.05, 0.06), (0.48, -0.04), (0.54, 0.10), (0.27, 0.33), (-0.16, 0.31))
    head = ellipse(0.60, -0.33 + nod, 0.205, 0.19)
    bill = polygon((0.76, -0.41 + nod), (0.98, -0.31 + nod), (0.76, -0.24 + nod))
    eye = ellipse(0.68, -0.39 + nod, 0.045, 0.045, points=12)
    glint = ellipse(0.695, -0.405 + nod, 0.017, 0.017, points=8)
    return [
        *legs,
        Part(tail, paint["tail"]),
        Part(tail * [1, 0.35] + [0, 0.035 + lift * 0.6], paint["tail"] * 0.72),
        Part(body, paint["body"]),
        Part(belly, paint["belly"]),
        *_wing(rng, paint["wing"]),
        Part(bill, paint["bill"]),
        Part(head, paint["head"]),
        Part(eye, np.array([0.04, 0.04, 0.04])),
        Part(glint, np.array([0.97, 0.97, 0.97])),
    ]


def _wing(rng: np.random.Generator, colour: np.ndarray) -> list[Part]:
    """A folded wing along the body, or one that is raised; both with a band of darker flight feathers."""
    if rng.random() < 0.5:
        wing = blob((0.26, -0.20), (-0.20, -0.22), (-0.72, 0.02), (-0.62, 0.10), (-0.10, 0.16), (0.24, 0.02))
        band = blob((0.02, 0.02), (-0.34, 0.00), (-0.70, 0.04), (-0.60, 0.11), (-0.14, 0.15))
    else:
        reach = rng.uniform(0.85, 1.1)
        tip = rng.uniform(-0.30, 0.05)
        wing = blob((0.28, -0.14), (0.22, -0.52), (tip, -reach), (-0.32 + tip, -0.90 * reach), (-0.30, -0.12))
        band = blob((-0.10, -0.30), (tip - 0.02, -0.92 * reach), (tip - 0.28, -0.84 * reach), (-0.28, -0.16))
    return [Part(wing, colour), Part(band, colour * 0.68)]


WORLD = World("synthetic_birds", tuple(f"{head} bird" for head in HEADS), _compose)
open_split, extent = WORLD.open_split, WORLD.extent
