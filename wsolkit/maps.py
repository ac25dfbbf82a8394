"""Norm map, similarity map and CAM (paper, Sec. 3), and score maps: the only home of these formulas.

Axes: B images, C channels, K classes, H and W cells of the feature map. Functions are pure: inputs are not modified,
outputs keep device and dtype unless it says otherwise.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


class NotFiniteError(ValueError):
    """A map holds NaN or infinity: the network that made it has diverged."""


Normalisation = Literal["min_max", "max", "pas", "ivr"]


def norm_map(features: Tensor) -> Tensor:
    """The norm map: L2 norm of the feature vector at each cell (paper, Sec. 3, the F of Eq. 3).

    Args:
        features: (B, C, H, W), any float dtype.

    Returns:
        (B, H, W), >= 0; its gradient is 0 where the feature vector is 0.
    """
    return torch.linalg.vector_norm(features, dim=1)


def similarity_map(features: Tensor, weight: Tensor) -> Tensor:
    """The similarity map of every class: cosine between feature vector and class weight (paper, Sec. 3, S of Eq. 3).

    Args:
        features: (B, C, H, W), any float dtype.
        weight: (K, C), weight of the linear classifier.

    Returns:
        (B, K, H, W) in [-1, 1]. A zero feature vector or a zero weight has similarity 0.
    """
    dots = F.conv2d(features, weight[:, :, None, None])
    return _ratio(dots, norm_map(features)[:, None] * weight.norm(dim=1)[None, :, None, None])


def target_similarity(features: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """The similarity map of one class an image, without computing the others (paper, Eq. 2).

    Args:
        features: (B, C, H, W), any float dtype.
        weight: (K, C), weight of the linear classifier.
        target: (B,) integer class indices.

    Returns:
        (B, H, W) in [-1, 1]. A zero feature vector or a zero weight has similarity 0.
    """
    return _ratio(cam(features, weight, target), norm_map(features) * weight[target].norm(dim=1)[:, None, None])


def cam(features: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """The class activation map: dot product of each feature vector with one class weight (paper, Eq. 1).

    Its mean over the cells plus the class's bias is the class's logit (paper, Eq. 4); it equals weight norm x norm
    map x similarity map (paper, Eq. 3). No ReLU, no scaling.

    Args:
        features: (B, C, H, W), any float dtype.
        weight: (K, C), weight of the linear classifier.
        target: (B,) integer class indices.

    Returns:
        (B, H, W), any sign.
    """
    return torch.einsum("bchw,bc->bhw", features, weight[target])


def min_max(maps: Tensor, *, check: bool = True) -> Tensor:
    """Scale each map linearly so that its lowest cell is 0 and its highest is 1 (paper, Eq. 5).

    Args:
        maps: (B, H, W), any float dtype and any range.
        check: refuse NaN and infinity; a training step leaves it out, since the check waits for the device.

    Returns:
        (B, H, W) in [0, 1]. A constant map becomes all zeros.

    Raises:
        ValueError: if ``maps`` is not three-dimensional.
        NotFiniteError: with ``check``, if it holds NaN or infinity.
    """
    _require_maps(maps, check)
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return _ratio(maps - low, high - low)


def max_normalise(maps: Tensor, *, check: bool = True) -> Tensor:
    """Cut negative cells to 0 and divide each map by its maximum, as the paper does for similarity maps (Sec. 5.3).

    Args:
        maps: (B, H, W), any float dtype and any range.
        check: refuse NaN and infinity.

    Returns:
        (B, H, W) in [0, 1]. A map without a positive cell becomes all zeros.

    Raises:
        ValueError: if ``maps`` is not three-dimensional.
        NotFiniteError: with ``check``, if it holds NaN or infinity.
    """
    _require_maps(maps, check)
    positive = maps.clamp(min=0)
    return _ratio(positive, positive.amax((1, 2), keepdim=True))


def pas(maps: Tensor, percentile: float = 0.9, *, check: bool = True) -> Tensor:
    """As `min_max`, but a high percentile is 1 already, and so is all above it.

    PaS, "percentile as a standard": a few very high cells no longer decide where the threshold lies (Bae et al.,
    "Rethinking Class Activation Mapping for WSOL", ECCV 2020, which this paper's Tab. 4 and A1 list).

    Args:
        maps: (B, H, W), any float dtype and any range.
        percentile: the upper bound, as the share of cells below it, in [0, 1); of two cells the higher one.
        check: refuse NaN and infinity.

    Returns:
        (B, H, W) in [0, 1]. A constant map becomes all zeros; where the percentile is the lowest value itself, all
        higher cells become 1.

    Raises:
        ValueError: if ``maps`` is not three-dimensional, or the percentile is not in [0, 1).
        NotFiniteError: with ``check``, if it holds NaN or infinity.
    """
    upper = _percentile(maps, percentile, check)
    low = maps.amin((1, 2), keepdim=True)
    return torch.where(upper > low, _ratio(maps - low, upper - low), (maps > low).to(maps.dtype)).clamp(max=1)


def ivr(maps: Tensor, percentile: float = 0.4, *, check: bool = True) -> Tensor:
    """As `min_max`, but a low percentile is 0 already, and so is all below it.

    IVR, "infimum of value range": a few very low cells no longer decide where the threshold lies (Kim et al.,
    "Normalization Matters in WSOL", ICCV 2021, which this paper's Tab. 4 and A1 list; the percentile is tuned on
    train-fullsup there).

    Args:
        maps: (B, H, W), any float dtype and any range.
        percentile: the lower bound, as the share of cells below it, in [0, 1); of two cells the higher one.
        check: refuse NaN and infinity.

    Returns:
        (B, H, W) in [0, 1]. A map whose percentile is its highest value becomes all zeros.

    Raises:
        ValueError: if ``maps`` is not three-dimensional, or the percentile is not in [0, 1).
        NotFiniteError: with ``check``, if it holds NaN or infinity.
    """
    return max_normalise(maps - _percentile(maps, percentile, check), check=False)


def score_map(
    maps: Tensor,
    size: int | tuple[int, int],
    normalisation: Normalisation = "min_max",
    percentile: float | None = None,
) -> Tensor:
    """Score maps: resized with bicubic interpolation, then normalised, in that order (the benchmark's protocol).

    Args:
        maps: (B, H, W), any float dtype: CAMs, norm maps or similarity maps.
        size: side of the evaluation image in pixels, or its height and width.
        normalisation: ``"min_max"`` (CAM, norm map), ``"max"`` (similarity map), ``"pas"`` or ``"ivr"``; see
            `min_max`, `max_normalise`, `pas` and `ivr`.
        percentile: of the last two; None takes their default.

    Returns:
        (B, height, width) float64 on the CPU, in [0, 1].

    Raises:
        ValueError: if ``maps`` is not three-dimensional, the normalisation is unknown, or it takes no percentile.
        NotFiniteError: if it holds NaN or infinity.
    """
    if normalisation not in _NORMALISATIONS:
        raise ValueError(f"Unknown normalisation {normalisation!r}; expected one of {', '.join(_NORMALISATIONS)}.")
    if percentile is not None and normalisation not in ("pas", "ivr"):
        raise ValueError(f"Normalisation {normalisation!r} takes no percentile; 'pas' and 'ivr' do.")
    _require_maps(maps, check=False)
    shape = (size, size) if isinstance(size, int) else size
    wide = F.interpolate(maps.detach().cpu().double()[:, None], shape, mode="bicubic", align_corners=False)[:, 0]
    options = {} if percentile is None else {"percentile": percentile}
    return _NORMALISATIONS[normalisation](wide, **options)


_NORMALISATIONS: Mapping[str, Callable[..., Tensor]] = {
    "min_max": min_max,
    "max": max_normalise,
    "pas": pas,
    "ivr": ivr,
}


def _percentile(maps: Tensor, share: float, check: bool) -> Tensor:
    """The cell (B, 1, 1) of each map that this share of its cells is below."""
    _require_maps(maps, check)
    if not 0 <= share < 1:
        raise ValueError(f"Expected a percentile as a share in [0, 1), received {share!r}.")
    cells = maps.flatten(1)
    return cells.kthvalue(int(cells.shape[1] * share) + 1).values[:, None, None]


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Their quotient, and 0 with a finite gradient where the denominator is 0."""
    return numerator / torch.where(denominator == 0, torch.ones_like(denominator), denominator)


def _require_maps(maps: Tensor, check: bool) -> None:
    if maps.ndim != 3:
        raise ValueError(f"Expected maps of shape (B, H, W), received {tuple(maps.shape)}.")
    if check and not torch.isfinite(maps).all():
        broken = (~torch.isfinite(maps)).flatten(1).any(1).nonzero().flatten().tolist()
        raise NotFiniteError(f"NaN or infinity in {len(broken)} of {len(maps)} maps (first: map {broken[0]}).")
