"""What a score map and a true box must be: the same checks for arrays in memory and for files."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

Array = np.ndarray | Tensor


def as_array(values: ArrayLike | Tensor) -> np.ndarray:
    """An array, or a tensor of any type on any device, as an array; bfloat16, which NumPy lacks, as float32."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)


def map_fault(scores: np.ndarray, axes: str = "(height, width)") -> str:
    """What keeps a score map from being judged, in words that follow "a score map"; empty if it is sound.

    Args:
        scores: any array.
        axes: the axes it should have.
    """
    if scores.dtype.kind != "f":
        return f"of type {scores.dtype}, not float"
    if scores.ndim != axes.count(",") + 1 or 0 in scores.shape[-2:]:
        return f"of shape {scores.shape}, not {axes}"
    if not scores.size:
        return ""
    low, high = scores.min(), scores.max()  # both NaN if any score is
    if np.isnan(low):
        return "with NaN"
    return "" if low >= 0 and high <= 1 else "outside [0, 1]"


def checked_maps(score_maps: Array) -> np.ndarray:
    """Score maps (N, H, W) as an array.

    Raises:
        ValueError: if they are of another shape or type, or a score is outside [0, 1] or NaN.
    """
    maps = as_array(score_maps)
    if fault := map_fault(maps, "(N, H, W)"):
        bad = [number for number, each in enumerate(maps) if map_fault(each)] if maps.ndim == 3 else []
        which = f" ({len(bad)} of {len(maps)} maps, first: map {bad[0]})" if bad else ""
        raise ValueError(f"Expected float score maps (N, H, W) in [0, 1], received maps {fault}{which}.")
    return maps


def checked_boxes(boxes: Sequence[Array], shape: tuple[int, ...], names: Sequence[str] | None) -> list[np.ndarray]:
    """True boxes of each map as arrays (k, 4).

    Args:
        boxes: of N images.
        shape: of the maps: N, height and width.
        names: what an error calls the images; None numbers them.

    Raises:
        ValueError: naming the first image whose boxes are not integers ``x0, y0, x1, y1`` inside its map, its right and
            lower border included.
    """
    arrays = [as_array(each) for each in boxes]
    images, height, width = shape
    if len(arrays) != images:
        raise ValueError(f"Received {images} score maps and boxes of {len(arrays)} images.")
    called = names if names is not None else range(images)
    for name, array in zip(called, arrays, strict=True):
        if array.ndim != 2 or array.shape[1] != 4 or not len(array) or array.dtype.kind not in "iu":
            raise ValueError(
                f"Expected the true boxes of image {name} as a (k, 4) integer array with k >= 1, "
                f"received {array.dtype} {array.shape}."
            )
    if arrays:
        x0, y0, x1, y1 = np.concatenate(arrays).T
        good = (x0 >= 0) & (x0 <= x1) & (x1 <= width) & (y0 >= 0) & (y0 <= y1) & (y1 <= height)
        if not good.all():
            wrong = int(np.flatnonzero(~good)[0])
            name = np.repeat(np.array(called), [len(array) for array in arrays])[wrong]
            raise ValueError(
                f"The true box {', '.join(str(int(side[wrong])) for side in (x0, y0, x1, y1))} of image {name} is not "
                f"a box x0, y0, x1, y1 inside its map, which is {width} wide and {height} high; expected x0 <= x1 <= "
                f"{width} and y0 <= y1 <= {height}. Boxes x, y, width, height must be converted first."
            )
    return arrays
