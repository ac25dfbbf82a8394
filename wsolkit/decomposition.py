"""Norm map, similarity map and CAM of any classifier that ends in global average pooling and a linear layer.

Nothing of the classifier is changed: the last feature map and the linear layer are found by watching one forward pass,
and every finding is checked by computing the logits from it. Where a layer norm stands between pooling and linear layer
(ConvNeXt), it is folded into the weights: with its deviation held fixed it is linear, one weight vector for each image.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from wsolkit import maps
from wsolkit.errors import WsolkitError
from wsolkit.metrics.boxes import cutoffs, largest_boxes, to_8bit

TOLERANCE = 1e-3
"""Largest difference between a classifier's logits and those computed from its maps, as a share of the largest."""


class DecompositionError(WsolkitError):
    """A classifier whose head is not global average pooling and a linear layer, or images that it cannot take."""


THRESHOLD = 0.2
"""Share of a map's maximum above which a cell is inside the box, unless another is asked for."""

MAP_COLOURS, MAP_STRENGTH = "magma", 0.72
"""How maps are laid over greyed pictures: colours, and how much of them."""


@dataclass(frozen=True, repr=False)
class Decomposition:
    """The factors of one class's CAM for each image (paper, Eq. 3).

    ``cam`` equals ``weight_norm[:, None, None] * norm * similarity``.

    Attributes:
        norm: (B, H, W), norm map F.
        similarity: (B, H, W) in [-1, 1], similarity map S.
        cam: (B, H, W).
        weight_norm: (B,), norm of the class's weight vector.
        target: (B,) class indices.
        logits: (B, K), of the classifier itself.
        size: height and width of the images in pixels.
    """

    norm: Tensor
    similarity: Tensor
    cam: Tensor
    weight_norm: Tensor
    target: Tensor
    logits: Tensor
    size: tuple[int, int]

    def __repr__(self) -> str:
        """What there is, without the numbers."""
        images, height, width = self.cam.shape
        pixels = f"{self.size[0]}x{self.size[1]}"
        return f"Decomposition({images} images of {pixels}, maps of {height}x{width}, target={self.target.tolist()})"

    def score_maps(self, kind: str = "cam") -> Tensor:
        """Maps of one kind, ``"cam"``, ``"norm"`` or ``"similarity"``, at the size of the images: (B, h, w) in [0, 1].

        Raises:
            DecompositionError: for another kind.
        """
        if kind not in ("cam", "norm", "similarity"):
            raise DecompositionError(f"Unknown map {kind!r}. Known: cam, norm, similarity.")
        normalisation: maps.Normalisation = "max" if kind == "similarity" else "min_max"
        return maps.score_map(getattr(self, kind), self.size, normalisation)

    def boxes(self, threshold: float = THRESHOLD, kind: str = "cam") -> np.ndarray:
        """The box of the largest contour of each map: (B, 4) int64, ``x0, y0, x1, y1`` in pixels.

        Args:
            threshold: share of the map's maximum, in [0, 1).
            kind: as in `score_maps`.

        Raises:
            DecompositionError: for another threshold or kind.
        """
        if not 0 <= threshold < 1:
            raise DecompositionError(f"threshold = {threshold}: expected a share of the maximum, from 0 to below 1.")
        images = [to_8bit(score.numpy()) for score in self.score_maps(kind).float().cpu()]
        found = [largest_boxes(image, cutoffs(image, np.array([threshold])))[0] for image in images]
        return np.stack(found)

    def overlay(self, images: np.ndarray, kind: str = "cam") -> np.ndarray:
        """Maps laid over the greyed pictures in colour, as in the kit's figures: (B, h, w, 3) uint8.

        Args:
            images: (B, h, w, 3) uint8, the pictures before normalisation.
            kind: as in `score_maps`.
        """
        from matplotlib import colormaps

        coloured = colormaps[MAP_COLOURS](self.score_maps(kind).float().cpu().numpy())[..., :3] * 255
        grey = images.mean(-1, keepdims=True)
        return ((1 - MAP_STRENGTH) * grey + MAP_STRENGTH * coloured).round().astype(np.uint8)


@torch.no_grad()
def decompose(
    model: nn.Module,
    images: Tensor,
    target: Tensor | int | None = None,
    features: nn.Module | None = None,
    classifier: nn.Linear | None = None,
) -> Decomposition:
    """Decompose a classifier's CAMs into norm map and similarity map.

    Args:
        model: any classifier ending in global average pooling and a linear layer, such as torchvision's ResNet,
            DenseNet, EfficientNet, MobileNetV2 or ConvNeXt, and timm's. Evaluated in evaluation mode; left as it was.
        images: (B, 3, h, w), normalised as the model expects, on the model's device.
        target: (B,) class indices, or one for all; None takes each image's most probable class.
        features: the layer that gives the last feature map; None finds it.
        classifier: the linear layer; None takes the last one that is called.

    Raises:
        DecompositionError: if the head is another, or nothing fits; it says what was found.
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise DecompositionError(
            "images: expected (B, 3, h, w) of a float type, normalised as the model expects; received "
            f"{tuple(images.shape)} of {images.dtype}."
        )
    with _evaluating(model):
        watched = _watch(model, images, features, classifier)
        maps_, weight = _head(watched)
        logits = watched.logits
    chosen = _targets(logits, target)
    rows = weight[torch.arange(len(chosen), device=chosen.device), chosen]
    first = torch.arange(len(rows), device=rows.device)
    return Decomposition(
        norm=maps.norm_map(maps_),
        similarity=maps.target_similarity(maps_, rows, first),
        cam=maps.cam(maps_, rows, first),
        weight_norm=rows.norm(dim=1),
        target=chosen,
        logits=logits,
        size=(images.shape[2], images.shape[3]),
    )


def _targets(logits: Tensor, target: Tensor | int | None) -> Tensor:
    """A class index for each image.

    Raises:
        DecompositionError: if the wrong number is given, or the model has no such class.
    """
    if target is None:
        return logits.argmax(1)
    given = torch.as_tensor(target, device=logits.device)
    chosen = given.expand(len(logits)) if given.ndim == 0 else given
    if chosen.shape != logits.shape[:1] or chosen.is_floating_point():
        received = f"{tuple(given.shape)} of {given.dtype}"
        raise DecompositionError(f"target: expected {len(logits)} class indices, or one; received {received}.")
    if (beyond := chosen[(chosen < 0) | (chosen >= logits.shape[1])]).numel():
        raise DecompositionError(
            f"target: the model has {logits.shape[1]} classes, from 0 to {logits.shape[1] - 1}; "
            f"received {int(beyond[0])}."
        )
    return chosen


@dataclass(frozen=True)
class _Watched:
    """What one forward pass showed."""

    logits: Tensor
    linear: nn.Linear
    pooled: Tensor
    norms: list[tuple[nn.LayerNorm, Tensor]]
    maps: list[Tensor]


def _watch(model: nn.Module, images: Tensor, features: nn.Module | None, classifier: nn.Linear | None) -> _Watched:
    """Run the model once, keeping every feature map, and what goes into linear layers and layer norms."""
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def note(module: nn.Module, given: tuple, result: object) -> None:
        if given and isinstance(given[0], Tensor) and isinstance(result, Tensor):
            calls.append((module, given[0], result))

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        output = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    logits = getattr(output, "logits", output)
    linear = [
        (module, given, result)
        for module, given, result in calls
        if isinstance(module, nn.Linear) and classifier in (None, module)
    ]
    if not isinstance(logits, Tensor) or logits.ndim != 2 or not linear or linear[-1][2].shape != logits.shape:
        raise DecompositionError(
            f"{type(model).__name__} does not end in a linear layer: no nn.Linear gives its output. Name the layer "
            "with classifier=, or take a model that ends in global average pooling and a linear layer."
        )
    layer, given, _ = linear[-1]
    norms = [(module, before) for module, before, _ in calls if isinstance(module, nn.LayerNorm)]
    found = [result for module, _, result in calls if result.ndim == 4 and features in (None, module)]
    return _Watched(logits, layer, given, norms, found)


def _head(watched: _Watched) -> tuple[Tensor, Tensor]:
    """The last feature map (B, C, H, W), and the weights (B, K, C) that make logits of its mean, up to constants.

    Raises:
        DecompositionError: if the mean of no feature map is what the head begins with.
    """
    weight = watched.linear.weight
    pooled, rows = watched.pooled, weight[None].expand(len(watched.pooled), -1, -1)
    after_norm = [(norm, given) for norm, given in watched.norms if _flat(given).shape == pooled.shape]
    for start, weights in [(pooled, rows), *((_flat(given), _folded(norm, given, rows)) for norm, given in after_norm)]:
        for found in reversed(watched.maps):
            if found.shape[1] == start.shape[1] and found[0, 0].numel() > 1 and _close(found.mean((2, 3)), start):
                return found, weights
    shapes = ", ".join(str(tuple(found.shape[1:])) for found in watched.maps[-3:])
    raise DecompositionError(
        "The head is not global average pooling and a linear layer: the linear layer's input is not the mean of any "
        f"feature map (the last ones were {shapes or 'none'}; the layer takes {watched.linear.in_features} values). "
        "Layers between pooling and the linear layer, or another pooling, have no such decomposition."
    )


def _folded(norm: nn.LayerNorm, given: Tensor, weight: Tensor) -> Tensor:
    """Weights before a layer norm that act as ``weight`` (B, K, C) does after it."""
    values = _flat(given)
    deviation = (values.var(1, unbiased=False) + norm.eps).sqrt()
    scaled = weight * (1 if norm.weight is None else norm.weight)
    return (scaled - scaled.mean(2, keepdim=True)) / deviation[:, None, None]


def _flat(values: Tensor) -> Tensor:
    """(B, C), (B, C, 1, 1) or (B, 1, 1, C) as (B, C); anything else as it is."""
    return values.flatten(1) if values.ndim == 2 or values[0].numel() in values.shape[1:] else values


def _close(first: Tensor, second: Tensor) -> bool:
    return bool((first - second).abs().max() <= TOLERANCE * second.abs().max().clamp(min=1e-12))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and every part of it back into its own mode."""
    before = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in before.items():
            module.training = training
