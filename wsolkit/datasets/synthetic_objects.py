"""Synthetic objects, the stand-in for ImageNet-1K, for pretraining, and with its exact masks for OpenImages30k."""

import numpy as np

from wsolkit.datasets import _drawing as drawing
from wsolkit.datasets._drawing import Part, blob, ellipse, hue, polygon
from wsolkit.datasets._synthetic import SyntheticOptions as Options
from wsolkit.datasets._synthetic import World
from wsolkit.datasets.synthetic_birds import bird

__all__ = ["Options", "extent", "open_split"]

INK = np.array([0.09, 0.09, 0.10])
GLASS = np.array([0.74, 0.86, 0.92])


def _bird(rng: np.random.Generator) -> list[Part]:
    return bird(rng, {part: _vivid(rng) for part in ("head", "body", "belly", "wing", "tail", "bill")})


def _fish(rng: np.random.Generator) -> list[Part]:
    body, fin, height = _vivid(rng), _vivid(rng), rng.uniform(0.32, 0.48)
    return [
        Part(blob((-0.55, 0), (-1.0, -0.38), (-0.86, 0), (-1.0, 0.38)), fin),
        Part(blob((-0.15, -0.85 * height), (0.1, -1.55 * height), (0.42, -0.7 * height)), fin),
        Part(blob((0.8, 0), (0.45, -0.8 * height), (0, -height), (-0.62, 0), (0, height), (0.45, 0.8 * height)), body),
        Part(blob((0.62, 0.1), (0.1, 0.85 * height), (-0.5, 0.1), (0.1, 0.3 * height)), body * 0.5 + 0.45),
        Part(blob((0.22, 0.02), (-0.12, -0.12), (-0.16, 0.16)), fin * 0.8),
        *_eye(0.52, -0.1, 0.07),
    ]


def _quadruped(rng: np.random.Generator) -> list[Part]:
    coat, patch = _vivid(rng), _vivid(rng)
    legs = [
        Part(polygon((x, 0.1), (x + 0.16, 0.1), (x + 0.13 + s, 0.7), (x + s, 0.7)), coat * shade)
        for x, s, shade in ((-0.5, -0.05, 0.7), (0.3, 0.06, 0.7), (-0.62, 0.04, 0.9), (0.42, -0.02, 0.9))
    ]
    return [
        Part(polygon((-0.6, -0.12), (-0.95, -0.5 + rng.uniform(-0.2, 0.5)), (-0.6, 0.04)), coat * 0.8),
        *legs,
        Part(
            blob((-0.68, -0.1), (-0.3, -0.25), (0.3, -0.26), (0.62, -0.18), (0.6, 0.18), (0, 0.24), (-0.6, 0.2)), coat
        ),
        Part(ellipse(rng.uniform(-0.4, 0.2), -0.02, 0.22, 0.15), patch),
        Part(polygon((0.42, -0.2), (0.6, -0.62), (0.82, -0.5), (0.64, 0.02)), coat),
        Part(polygon((0.6, -0.72), (0.66, -0.92), (0.78, -0.7)), patch),
        Part(blob((0.56, -0.68), (0.82, -0.74), (1.08, -0.52), (1.02, -0.42), (0.7, -0.42)), coat),
        *_eye(0.8, -0.6, 0.045),
    ]


def _tree(rng: np.random.Generator) -> list[Part]:
    crown, trunk = _vivid(rng), np.array([0.40, 0.27, 0.16]) * rng.uniform(0.6, 1.2)
    parts = [Part(polygon((-0.13, 0), (0.13, 0), (0.2, 0.95), (-0.2, 0.95)), trunk)]
    for x, y, r in ((-0.35, -0.15, 0.42), (0.36, -0.12, 0.4), (0, -0.52, 0.46), (0.02, -0.1, 0.4)):
        parts.append(Part(ellipse(x, y, r * rng.uniform(0.85, 1.1), r), crown * rng.uniform(0.8, 1.05)))
    return parts


def _house(rng: np.random.Generator) -> list[Part]:
    wall, roof, door, tall = _vivid(rng), _vivid(rng), _vivid(rng), rng.uniform(0.6, 0.85)
    return [
        Part(polygon((0.3, -0.75), (0.48, -0.75), (0.48, -0.2), (0.3, -0.2)), roof * 0.6),
        Part(polygon((-0.7, -0.15), (0.7, -0.15), (0.7, tall), (-0.7, tall)), wall),
        Part(polygon((-0.9, -0.1), (0, -0.9), (0.9, -0.1)), roof),
        Part(polygon((-0.14, tall), (-0.14, 0.2), (0.2, 0.2), (0.2, tall)), door),
        *[Part(polygon((x, 0.08), (x + 0.26, 0.08), (x + 0.26, 0.34), (x, 0.34)), GLASS) for x in (-0.55, 0.34)],
    ]


def _car(rng: np.random.Generator) -> list[Part]:
    paint, roof = _vivid(rng), rng.uniform(-0.5, -0.38)
    return [
        Part(polygon((-0.62, -0.1), (-0.38, roof), (0.3, roof), (0.62, -0.1)), paint * 0.85),
        Part(polygon((-0.48, -0.1), (-0.32, roof + 0.07), (-0.06, roof + 0.07), (-0.06, -0.1)), GLASS),
        Part(polygon((0.02, -0.1), (0.02, roof + 0.07), (0.25, roof + 0.07), (0.48, -0.1)), GLASS),
        Part(
            blob(
                (-1, 0.02), (-0.7, -0.13), (0, -0.13), (0.75, -0.12), (1, 0.06), (0.98, 0.28), (0, 0.3), (-0.98, 0.28)
            ),
            paint,
        ),
        Part(ellipse(0.93, 0.08, 0.07, 0.06), np.array([0.98, 0.92, 0.6])),
        *[Part(ellipse(x, 0.3, r, r), c) for x in (-0.55, 0.55) for r, c in ((0.21, INK), (0.1, GLASS * 0.8))],
    ]


def _plane(rng: np.random.Generator) -> list[Part]:
    hull, wing = _vivid(rng), _vivid(rng)
    return [
        Part(polygon((-0.9, 0), (-1.02, -0.42), (-0.78, -0.42), (-0.55, 0)), wing),
        Part(polygon((0.18, -0.02), (-0.22, -0.7), (-0.44, -0.7), (-0.2, -0.02)), wing * 0.75),
        Part(blob((1, 0.03), (0.75, -0.13), (0, -0.16), (-0.95, -0.08), (-0.9, 0.06), (0, 0.15), (0.8, 0.14)), hull),
        *[Part(ellipse(x, -0.04, 0.045, 0.045, points=12), INK) for x in np.arange(-0.5, 0.55, 0.17)],
        Part(polygon((0.25, 0.04), (-0.3, 0.8), (-0.55, 0.8), (-0.22, 0.04)), wing),
    ]


def _butterfly(rng: np.random.Generator) -> list[Part]:
    upper, lower, spot = _vivid(rng), _vivid(rng), _vivid(rng)
    parts = []
    for side in (-1, 1):
        mirror = np.array([side, 1])
        parts += [
            Part(blob((0.05, 0), (0.42, 0.08), (0.72, 0.42), (0.5, 0.75), (0.12, 0.45)) * mirror, lower),
            Part(blob((0.05, 0.08), (0.2, -0.5), (0.75, -0.78), (0.95, -0.4), (0.6, 0.05)) * mirror, upper),
            Part(ellipse(0.62, -0.4, 0.15, 0.13) * mirror, spot),
            Part(ellipse(0.45, 0.42, 0.1, 0.1) * mirror, spot * 0.8),
        ]
    return [*parts, Part(ellipse(0, 0.05, 0.08, 0.5), INK * 1.5), Part(ellipse(0, -0.45, 0.1, 0.1), INK * 1.5)]


def _mushroom(rng: np.random.Generator) -> list[Part]:
    cap, stalk, spot = _vivid(rng), np.array([0.93, 0.88, 0.78]) * rng.uniform(0.7, 1), _vivid(rng)
    height = rng.uniform(0.55, 0.8)
    spots = [
        Part(ellipse(x, y, 0.09, 0.075), spot) for x, y in ((-0.4, -0.2), (-0.05, -0.45), (0.35, -0.25), (0.1, -0.12))
    ]
    return [
        Part(blob((-0.16, -0.05), (0.16, -0.05), (0.2, height), (0, height + 0.05), (-0.2, height)), stalk),
        Part(blob((-0.85, 0), (-0.6, -0.5), (0, -0.75), (0.6, -0.5), (0.85, 0), (0, 0.12)), cap),
        *spots,
    ]


def _boat(rng: np.random.Generator) -> list[Part]:
    hull, main, jib = _vivid(rng), _vivid(rng), _vivid(rng)
    return [
        Part(polygon((-0.05, -0.95), (0.03, -0.95), (0.03, 0.4), (-0.05, 0.4)), INK * 2),
        Part(polygon((0.07, -0.9), (0.72, 0.22), (0.07, 0.26)), main),
        Part(polygon((-0.1, -0.75), (-0.1, 0.24), (-0.6, 0.2)), jib),
        Part(polygon((-0.95, 0.34), (0.98, 0.34), (0.66, 0.78), (-0.7, 0.78)), hull),
        Part(polygon((-0.92, 0.38), (0.96, 0.38), (0.89, 0.48), (-0.86, 0.48)), hull * 0.6 + 0.35),
    ]


def _vivid(rng: np.random.Generator) -> np.ndarray:
    return hue(rng, (0.25, 0.9), (0.35, 0.98))


def _eye(x: float, y: float, radius: float) -> list[Part]:
    white = Part(ellipse(x, y, radius * 1.7, radius * 1.7, points=14), np.array([0.95, 0.95, 0.95]))
    return [white, Part(ellipse(x, y, radius, radius, points=12), INK)]


CATEGORIES = {
    "bird": _bird,
    "fish": _fish,
    "quadruped": _quadruped,
    "tree": _tree,
    "house": _house,
    "car": _car,
    "plane": _plane,
    "butterfly": _butterfly,
    "mushroom": _mushroom,
    "boat": _boat,
}


def _compose(rng: np.random.Generator, label: int) -> tuple[list[Part], drawing.Pose]:
    parts = list(CATEGORIES.values())[label](rng)
    return parts, drawing.random_pose(rng, parts, extent=(0.4, 0.88), tilt=0.4)


WORLD = World("synthetic_objects", tuple(CATEGORIES), _compose)
open_split, extent = WORLD.open_split, WORLD.extent
