"""Vector shapes, noise backgrounds and the renderer behind the synthetic data sets.

An object is a list of :class:`Part` in its own coordinates (about -1 to 1, y downwards), painted in order.
A :class:`Pose` places it in the unit square. Nothing here depends on the size of the picture until `render`
paints it, so the same scene can be painted at any size.
"""

from dataclasses import dataclass

import cv2
import numpy as np

#: Pictures are painted this many times larger on each side and averaged down, for smooth edges.
SUPERSAMPLING = 4

_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Part:
    """A filled polygon: (n, 2) points in object coordinates and an RGB colour in [0, 1]."""

    points: np.ndarray
    colour: np.ndarray


@dataclass(frozen=True)
class Pose:
    """Where an object is: centre and scale as fractions of the picture, angle in radians, mirrored or not."""

    centre: tuple[float, float]
    scale: float
    angle: float
    mirrored: bool

    def place(self, points: np.ndarray) -> np.ndarray:
        """Object coordinates (n, 2) to fractions of the picture (n, 2)."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        flipped = points * [-1, 1] if self.mirrored else points
        return flipped @ np.array([[cos, sin], [-sin, cos]]) * self.scale + self.centre


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0, points: int = 28) -> np.ndarray:
    """Points (n, 2) of an ellipse, its axes turned by ``angle`` radians."""
    turn = np.linspace(0, 2 * np.pi, points, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([rx * np.cos(turn), ry * np.sin(turn)], 1) @ np.array([[cos, sin], [-sin, cos]]) + [x, y]


def blob(*corners: tuple[float, float], per_corner: int = 7) -> np.ndarray:
    """Points (n, 2) of a smooth closed curve through ``corners`` (a periodic Catmull-Rom spline)."""
    p1 = np.array(corners, float)[:, None]
    p0, p2, p3 = (np.roll(p1, shift, 0) for shift in (1, -1, -2))
    t = np.linspace(0, 1, per_corner, endpoint=False)[None, :, None]
    curve = 2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * (p1 - p2) + p3 - p0) * t**3
    return (curve / 2).reshape(-1, 2)


def polygon(*corners: tuple[float, float]) -> np.ndarray:
    """Points (n, 2) of a polygon with sharp corners."""
    return np.array(corners, float)


def random_pose(rng: np.random.Generator, parts: list[Part], extent: tuple[float, float], tilt: float) -> Pose:
    """A pose in which the whole object is inside the picture.

    Args:
        rng: source of randomness.
        parts: the object.
        extent: smallest and largest longer side of the object, as a fraction of the picture.
        tilt: largest angle in radians to either side.
    """
    corners = np.concatenate([part.points for part in parts])
    unplaced = Pose((0.0, 0.0), 1.0, rng.uniform(-tilt, tilt), bool(rng.random() < 0.5))
    turned = unplaced.place(corners)
    low, high = turned.min(0), turned.max(0)
    scale = rng.uniform(*extent) / (high - low).max()
    room = 1 - (high - low) * scale
    x, y = rng.uniform(0.02, 0.98, 2) * room - low * scale
    return Pose((float(x), float(y)), float(scale), unplaced.angle, unplaced.mirrored)


def jitter(rng: np.random.Generator, colour: tuple[float, float, float] | np.ndarray, amount: float) -> np.ndarray:
    """A colour near ``colour``: each channel moved by up to ``amount``, within [0, 1]."""
    return np.clip(np.asarray(colour) + rng.uniform(-amount, amount, 3), 0, 1)


def hue(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> np.ndarray:
    """A random colour (RGB in [0, 1]) of any hue, with saturation and value in the given ranges."""
    turn = (rng.random() * 6 + np.array([0, 4, 2])) % 6
    pure = np.clip(np.abs(turn - 3) - 1, 0, 1)
    return rng.uniform(*value) * (1 - rng.uniform(*saturation) * (1 - pure))


def render(
    rng: np.random.Generator, parts: list[Part], pose: Pose, size: int, distractors: int = 6
) -> tuple[np.ndarray, np.ndarray]:
    """Paint an object in front of a noise background with leaves, lit from above.

    Args:
        rng: source of randomness for background, leaves and light.
        parts: the object, painted in order.
        pose: where it is.
        size: side of the picture in pixels.
        distractors: largest number of leaves.

    Returns:
        The picture (S, S, 3) uint8 RGB, and the mask of the object (S, S) uint8, 1 inside and 0 outside.
    """
    canvas = _background(rng, size)
    for _ in range(rng.integers(2, distractors + 1)):
        _leaf(rng, canvas)
    picture = cv2.resize(canvas, (size * SUPERSAMPLING,) * 2, interpolation=cv2.INTER_LINEAR)
    mask = np.zeros(picture.shape[:2], np.uint8)
    for part in parts:
        placed = pose.place(part.points)
        _fill(picture, placed, part.colour * 255)
        _fill(mask, placed, (255,))
    picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    mask = (cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA) > 127).astype(np.uint8)
    return _light(rng, picture, mask), mask


def box_of(mask: np.ndarray) -> np.ndarray:
    """The bounding box (1, 4) int64 of a mask, with the benchmark's ends: ``x + w`` and ``y + h``, inside the image."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    right, bottom = min(columns[-1] + 1, mask.shape[1] - 1), min(rows[-1] + 1, mask.shape[0] - 1)
    return np.array([[columns[0], rows[0], right, bottom]], np.int64)


def _noise(rng: np.random.Generator, size: int, cells: tuple[int, ...], fade: float) -> np.ndarray:
    """Noise (S, S) around 0: one octave for each number of cells, each weaker by ``fade``."""
    total = np.zeros((size, size), np.float32)
    for octave, count in enumerate(cells):
        grid = rng.standard_normal((count + 1, count + 1)).astype(np.float32)
        total += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) * fade**octave
    return total


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A blurred scene (S, S, 3) uint8: two colours mixed by slow noise, mottled by faster noise."""
    far, near = hue(rng, (0.1, 0.45), (0.45, 0.85)), hue(rng, (0.15, 0.5), (0.25, 0.65))
    mix = 1 / (1 + np.exp(-1.2 * _noise(rng, size, (2, 4, 8, 16), 0.7)))[..., None]
    mottle = 1 + 0.1 * _noise(rng, size, (6, 12, 24, 48), 0.8)[..., None]
    tint = 0.05 * np.stack([_noise(rng, size, (3, 6), 0.7) for _ in range(3)], -1)
    return (np.clip((far * mix + near * (1 - mix)) * mottle + tint, 0, 1) * 255).astype(np.uint8)


def _leaf(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """Paint one leaf, of any size and mostly green, onto the background."""
    x, y = rng.uniform(0, 1, 2)
    length, angle = rng.uniform(0.03, 0.09), rng.uniform(0, np.pi)
    green = np.array([rng.uniform(0.1, 0.5), rng.uniform(0.25, 0.6), rng.uniform(0.05, 0.3)])
    colour = green if rng.random() < 0.7 else hue(rng, (0.3, 0.8), (0.2, 0.7))
    _fill(canvas, ellipse(x, y, length, length * rng.uniform(0.35, 0.7), angle), colour * 255)


def _light(rng: np.random.Generator, picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Shade the object softly (brighter above, a little mottled) and the whole picture by one exposure."""
    size = picture.shape[0]
    fall = np.linspace(0.12, -0.16, size, dtype=np.float32)[:, None]
    shade = 1 + mask * (fall + 0.05 * _noise(rng, size, (8, 24), 0.8))
    lit = picture * (shade * rng.uniform(0.85, 1.12))[..., None] + rng.normal(0, 2.0, picture.shape)
    return np.clip(lit, 0, 255).astype(np.uint8)


def _fill(canvas: np.ndarray, points: np.ndarray, colour: np.ndarray | tuple) -> None:
    pixels = points * canvas.shape[0] - 0.5
    fixed = np.round(pixels * 2**_SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], [float(c) for c in colour], cv2.LINE_AA, _SUBPIXEL_BITS)
