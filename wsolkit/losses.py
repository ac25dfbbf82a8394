"""The loss terms of the paper (Sec. 4), one pure function each.

Norm maps are given raw; the functions normalise them (Eq. 5). Each image's term is a mean over its own cells, and the
loss is the mean over the images. A region without cells contributes 0, with finite gradients. NaN or infinity in any
input makes the loss NaN or infinite. No function waits for the device.
"""

from typing import Literal, get_args

from torch import Tensor

from wsolkit.maps import min_max, require_share

ZeroSimilarity = Literal["neither", "background"]
Reduction = Literal["mean", "sum"]


def similarity_loss(norm_map: Tensor, similarity: Tensor, tau_fg: float, tau_bg: float) -> Tensor:
    """Raises similarity where the norm map is high and lowers it where it is low (paper, Eq. 6).

    Args:
        norm_map: (B, H, W), raw; no gradient flows into it.
        similarity: (B, H, W), of the target class.
        tau_fg: foreground is where the normalised norm map is above this, in [0, 1].
        tau_bg: background is where it is below this, in [0, 1].

    Returns:
        A scalar in [-2, 2]: mean similarity of the background minus that of the foreground.

    Raises:
        ValueError: if the shapes differ or are not (B, H, W), or a threshold is not in [0, 1].
    """
    require_share("tau_fg", tau_fg)
    require_share("tau_bg", tau_bg)
    _require_shapes(3, norm_map, similarity)
    level = min_max(norm_map.detach(), check=False)
    return _background_minus_foreground(similarity, level > tau_fg, level < tau_bg, level)


def norm_loss(norm_map: Tensor, similarity: Tensor, zero_similarity: ZeroSimilarity = "neither") -> Tensor:
    """Raises the normalised norm map where similarity is positive and lowers it where negative (paper, Eq. 7 and 8).

    Args:
        norm_map: (B, H, W), raw.
        similarity: (B, H, W), of the target class or, for fine-grained data, the maximum over classes; no gradient
            flows into it.
        zero_similarity: where cells of exactly zero similarity belong. Eq. 7 leaves them out (``"neither"``); the
            paper's words on fine-grained data, "non-positive", count them as ``"background"``.

    Returns:
        A scalar in [-1, 1]: mean normalised norm of the background minus that of the foreground.

    Raises:
        ValueError: if the shapes differ or are not (B, H, W), or ``zero_similarity`` is another word.
    """
    _require_word("zero_similarity", zero_similarity, get_args(ZeroSimilarity))
    _require_shapes(3, norm_map, similarity)
    mask = similarity.detach()
    background = mask <= 0 if zero_similarity == "background" else mask < 0
    return _background_minus_foreground(min_max(norm_map, check=False), mask > 0, background, mask)


def drop_loss(features: Tensor, erased: Tensor, reduction: Reduction = "mean") -> Tensor:
    """L1 distance between features with and without attentive dropout (paper, Eq. 9).

    Args:
        features: (B, C, H, W).
        erased: (B, C, H, W), from the same images with attentive dropout.
        reduction: ``"mean"`` over all entries, as in the released code and as the published weights presume, or
            ``"sum"`` over channels and cells with the mean over images, as Eq. 9 reads literally.

    Returns:
        A scalar >= 0.

    Raises:
        ValueError: if the shapes differ or are not (B, C, H, W), or ``reduction`` is another word.
    """
    _require_word("reduction", reduction, get_args(Reduction))
    _require_shapes(4, features, erased)
    distance = (features - erased).abs()
    return distance.mean() if reduction == "mean" else distance.flatten(1).sum(1).mean()


def _background_minus_foreground(values: Tensor, foreground: Tensor, background: Tensor, regions: Tensor) -> Tensor:
    difference = _region_mean(values, background) - _region_mean(values, foreground)
    # A comparison with NaN is false, so a NaN among the values that make the regions would go unnoticed.
    return (difference + (regions * 0).sum((1, 2))).mean()


def _region_mean(values: Tensor, region: Tensor) -> Tensor:
    """Mean (B,) of each image's values (B, H, W) inside its region, 0 where the region is empty."""
    inside = region.to(values.dtype)
    return (values * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)


def _require_shapes(dimensions: int, first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape or first.ndim != dimensions or not first.numel():
        expected = "(B, H, W)" if dimensions == 3 else "(B, C, H, W)"
        received = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"Expected two tensors of the same shape {expected}, received {received}.")


def _require_word(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} = {value!r}: expected one of {', '.join(known)}.")
