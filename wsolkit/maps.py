"""Norm map, similarity map and CAM (paper, Sec. 3), and score maps: the only home of these formulas.

Axes: B images, C channels, K classes, H and W cells of the feature map. Functions are pure: inputs are not modified,
outputs keep device and dtype unless it says otherwise.
"""

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
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
        (B, H, W), >= 0, also of features whose squares would leave the range of their type. The gradient is 0 where the
        feature vector is 0.
    """
    vectors, scale = _in_range(features)
    return torch.linalg.vector_norm(vectors, dim=1) / scale[:, 0]


def similarity_map(features: Tensor, weight: Tensor) -> Tensor:
    """The similarity map of every class: cosine between feature vector and class weight (paper, Sec. 3, S of Eq. 3).

    Args:
        features: (B, C, H, W), any float dtype.
        weight: (K, C), weight of the linear classifier.

    Returns:
        (B, K, H, W) in [-1, 1]. A zero feature vector or a zero weight has similarity 0.
    """
    vectors, rows = _in_range(full_precision(features))[0], _in_range(full_precision(weight))[0]
    norms = torch.linalg.vector_norm(vectors, dim=1)[:, None] * rows.norm(dim=1)[None, :, None, None]
    return _cosine(F.conv2d(vectors, rows[:, :, None, None]), norms, features)


def target_similarity(features: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """The similarity map of one class for each image, without computing the others (paper, Eq. 2).

    Args:
        features: (B, C, H, W), any float dtype.
        weight: (K, C), weight of the linear classifier.
        target: (B,) integer class indices.

    Returns:
        (B, H, W) in [-1, 1]. A zero feature vector or a zero weight has similarity 0.

    Raises:
        ValueError: if ``target`` is not one class index for each image. On a GPU its range is left to PyTorch, since
            reading it would wait for the device.
    """
    rows = _in_range(full_precision(_rows(features, weight, target)))[0]
    vectors = _in_range(full_precision(features))[0]
    norms = torch.linalg.vector_norm(vectors, dim=1) * rows.norm(dim=1)[:, None, None]
    return _cosine(torch.einsum("bchw,bc->bhw", vectors, rows), norms, features)


def cam(features: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """The class activation map: dot product of each feature vector with one class weight (paper, Eq. 1).

    Its mean over the cells plus the class's bias is the class's logit (paper, Eq. 4); it equals weight norm x norm
    map x similarity map (paper, Eq. 3). No ReLU, no scaling.

    Args:
        features: (B, C, H, W), any float dtype.
        weight: (K, C), weight of the linear classifier.
        target: (B,) integer class indices.

    Returns:
        (B, H, W), any sign. Exactly constant where the features are the same at every cell.

    Raises:
        ValueError: if ``target`` is not one class index for each image; see `target_similarity`.
    """
    return _levelled(torch.einsum("bchw,bc->bhw", features, _rows(features, weight, target)), features)


def min_max(maps: Tensor, *, check: bool = True) -> Tensor:
    """Scale each map linearly so that its lowest cell is 0 and its highest is 1 (paper, Eq. 5).

    Args:
        maps: (B, H, W), any float dtype and any range.
        check: refuse NaN and infinity. A training step leaves this out, since the check waits for the device.

    Returns:
        (B, H, W) in [0, 1]. A constant map becomes all zeros.

    Raises:
        ValueError: if ``maps`` is not three-dimensional, not of a float type, or has no cells.
        NotFiniteError: with ``check``, if it holds NaN or infinity.
    """
    _require_maps(maps, check)
    maps = _without_overflow(maps)
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
        ValueError: if ``maps`` is not three-dimensional, not of a float type, or has no cells.
        NotFiniteError: with ``check``, if it holds NaN or infinity.
    """
    _require_maps(maps, check)
    positive = maps.clamp(min=0)
    return _ratio(positive, positive.amax((1, 2), keepdim=True))


def pas(maps: Tensor, percentile: float = 0.9, *, check: bool = True) -> Tensor:
    """As `min_max`, but a high percentile becomes 1, and so do all cells above it.

    PaS, "percentile as a standard": a few very high cells no longer decide where the threshold lies (Bae et al.,
    "Rethinking Class Activation Mapping for WSOL", ECCV 2020, which this paper's Tab. 4 and A1 list).

    Args:
        maps: (B, H, W), any float dtype and any range.
        percentile: the upper bound, as the share of cells below it, in [0, 1); between two cells, the higher one.
        check: refuse NaN and infinity.

    Returns:
        (B, H, W) in [0, 1]. A constant map becomes all zeros; where the percentile is the lowest value itself, all
        higher cells become 1.

    Raises:
        ValueError: for other maps, as in `min_max`, or if the percentile is not in [0, 1).
        NotFiniteError: with ``check``, if it holds NaN or infinity.
    """
    _require_maps(maps, check)
    maps = _without_overflow(maps)
    upper = _percentile(maps, percentile)
    low = maps.amin((1, 2), keepdim=True)
    return torch.where(upper > low, _ratio(maps - low, upper - low), (maps > low).to(maps.dtype)).clamp(max=1)


def ivr(maps: Tensor, percentile: float = 0.4, *, check: bool = True) -> Tensor:
    """As `min_max`, but a low percentile becomes 0, and so do all cells below it.

    IVR, "infimum of value range": a few very low cells no longer decide where the threshold lies (Kim et al.,
    "Normalization Matters in WSOL", ICCV 2021, which this paper's Tab. 4 and A1 list; the percentile is tuned on
    train-fullsup there).

    Args:
        maps: (B, H, W), any float dtype and any range.
        percentile: the lower bound, as the share of cells below it, in [0, 1); between two cells, the higher one.
        check: refuse NaN and infinity.

    Returns:
        (B, H, W) in [0, 1]. A map whose percentile is its highest value becomes all zeros.

    Raises:
        ValueError: for other maps, as in `min_max`, or if the percentile is not in [0, 1).
        NotFiniteError: with ``check``, if it holds NaN or infinity.
    """
    _require_maps(maps, check)
    maps = _without_overflow(maps)
    return max_normalise(maps - _percentile(maps, percentile), check=False)


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
        percentile: of ``"pas"`` and ``"ivr"``; None takes their default.

    Returns:
        (B, height, width) float64 on the CPU, in [0, 1]. A constant map becomes all zeros at every size, except a
        positive one under ``"max"``, which becomes all ones.

    Raises:
        ValueError: for other maps, as in `min_max`, a size without pixels, an unknown normalisation, or a percentile
            that it does not take.
        NotFiniteError: if a map holds NaN or infinity.
    """
    if normalisation not in _NORMALISATIONS:
        raise ValueError(f"Unknown normalisation {normalisation!r}; expected one of {', '.join(_NORMALISATIONS)}.")
    if percentile is not None and normalisation not in ("pas", "ivr"):
        raise ValueError(f"Normalisation {normalisation!r} takes no percentile; 'pas' and 'ivr' do.")
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, Integral) and side > 0 for side in sides):
        raise ValueError(f"Expected a size in pixels, or height and width, each at least 1; received {size!r}.")
    _require_maps(maps, check=False)
    raw = maps.detach().cpu().double()
    wide = F.interpolate(raw[:, None], (int(sides[0]), int(sides[1])), mode="bicubic", align_corners=False)[:, 0]
    options = {} if percentile is None else {"percentile": percentile}
    settled = _settled(wide, raw, normalisation in ("pas", "ivr"))
    return _NORMALISATIONS[normalisation](settled, **options)


_NORMALISATIONS: Mapping[str, Callable[..., Tensor]] = {
    "min_max": min_max,
    "max": max_normalise,
    "pas": pas,
    "ivr": ivr,
}


def require_share(name: str, value: float) -> None:
    """Refuse what is not a share in [0, 1].

    Raises:
        ValueError: naming the hyperparameter and its value.
    """
    if not (isinstance(value, Real) and 0 <= value <= 1):
        raise ValueError(f"{name} = {value!r}: expected a share in [0, 1].")


def _settled(wide: Tensor, raw: Tensor, percentiles: bool) -> Tensor:
    """Resized maps (B, h, w) without the noise of resizing, where a normalisation would stretch it to [0, 1].

    The weights of the interpolation do not add up to 1 exactly. So a constant map is decided before resizing; and for a
    normalisation by percentiles, cells that differ from the lowest or highest raw value by rounding only are that
    value. All other maps stay as the benchmark has them, to the last bit.
    """
    low, high = raw.amin((1, 2), keepdim=True), raw.amax((1, 2), keepdim=True)
    type_ = torch.finfo(raw.dtype)
    noise = 64 * type_.eps * raw.abs().amax((1, 2), keepdim=True).clamp(min=type_.tiny)
    for value in (low, high) if percentiles else ():
        wide = torch.where((wide - value).abs() <= noise, value, wide)
    level = wide[:, :1, :1]  # where resizing misses all cells that differ
    wide = torch.where((wide - level).abs().amax((1, 2), keepdim=True) <= noise, level, wide)
    return torch.where(low == high, high, wide)


def _percentile(maps: Tensor, share: float) -> Tensor:
    """The cell (B, 1, 1) of each map that this share of its cells is below."""
    if not 0 <= share < 1:
        raise ValueError(f"Expected a percentile as a share in [0, 1), received {share!r}.")
    cells = maps.flatten(1)
    count = cells.shape[1]
    # The product of the two is no exact number of cells, but k / n is the very float that was given for it.
    below = round(count * share)
    below -= below / count > share
    return cells.kthvalue(below + 1).values[:, None, None]


def _rows(features: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """The class weight (B, C) of each image."""
    target = torch.as_tensor(target, device=features.device)
    if features.ndim != 4 or weight.ndim != 2 or features.shape[1] != weight.shape[1]:
        received = f"{tuple(features.shape)} and {tuple(weight.shape)}"
        raise ValueError(f"Expected features (B, C, H, W) and class weights (K, C), received {received}.")
    if target.shape != features.shape[:1] or target.dtype == torch.bool or target.is_floating_point():
        received = f"{tuple(target.shape)} of {target.dtype}"
        raise ValueError(f"Expected one class index for each of {len(features)} images, received {received}.")
    # A GPU would have to be waited for, and tensors that are traced may have no values.
    known = type(target) is Tensor and target.device.type == "cpu" and target.numel()
    if known and not 0 <= target.min() <= target.max() < len(weight):
        raise ValueError(f"Expected class indices from 0 to {len(weight) - 1}, received {target.tolist()}.")
    return weight[target.long()]  # an index of type uint8 would be taken for a mask


def _in_range(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors along dimension 1 times a power of two that keeps their squares in range, and that power (1 mostly)."""
    largest = vectors.detach().abs().amax(1, keepdim=True)
    exponent = {torch.float16: 0, torch.float64: 600}.get(vectors.dtype, 100)
    limit = 2.0 ** (exponent // 2)
    scale = torch.ones_like(largest)
    scale = scale.masked_fill(largest > limit, 2.0**-exponent)
    scale = scale.masked_fill((largest > 0) & (largest < 1 / limit), 2.0**exponent)
    return vectors * scale, scale


def _cosine(dots: Tensor, norms: Tensor, features: Tensor) -> Tensor:
    """Their quotient in [-1, 1], of the features' type; rounding beyond that is cut off, and its gradient is kept."""
    quotient = _ratio(_levelled(dots, features), norms)
    return (quotient + (quotient.clamp(-1, 1) - quotient).detach()).to(features.dtype)


def _levelled(maps: Tensor, features: Tensor) -> Tensor:
    """Maps (B, ..., H, W), exactly constant where all cells have the same features; gradients are kept.

    A matrix product may round some cells differently from others, and `min_max` would stretch that to [0, 1].
    """
    same = (features.detach() == features.detach()[..., :1, :1]).all((1, 2, 3)).reshape(-1, *[1] * (maps.ndim - 1))
    value = maps.detach()
    return torch.where(same, maps - value + value[..., :1, :1], maps)


def full_precision(tensor: Tensor) -> Tensor:
    """A tensor of half precision as float32; any other as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _without_overflow(maps: Tensor) -> Tensor:
    """Maps (B, H, W), halved where the difference of two cells would exceed the largest number of their type."""
    span = maps.detach().amax((1, 2), keepdim=True) - maps.detach().amin((1, 2), keepdim=True)
    return maps * torch.ones_like(span).masked_fill(torch.isinf(span), 0.5)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Their quotient, and 0 with a finite gradient where the denominator is 0."""
    return numerator / torch.where(denominator == 0, torch.ones_like(denominator), denominator)


def _require_maps(maps: Tensor, check: bool) -> None:
    if maps.ndim != 3 or not maps.is_floating_point() or 0 in maps.shape[1:]:
        raise ValueError(f"Expected float maps of shape (B, H, W), received {tuple(maps.shape)} of {maps.dtype}.")
    if check and not torch.isfinite(maps).all():
        broken = (~torch.isfinite(maps)).flatten(1).any(1).nonzero().flatten().tolist()
        raise NotFiniteError(f"NaN or infinity in {len(broken)} of {len(maps)} maps (first: map {broken[0]}).")
