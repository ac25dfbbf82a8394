"""Norm map, similarity map and CAM of any classifier that ends in global average pooling and a linear layer.

Nothing of the classifier is changed. One forward pass is watched to find the last feature map and the linear layer, and
the logits computed from them are compared with the classifier's own output. A layer norm between pooling and linear
layer (ConvNeXt) is folded into the weights: with its deviation held fixed it is linear, so that each image has its own
weight vectors.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolkit import maps
from wsolkit.errors import WsolkitError
from wsolkit.maps import full_precision
from wsolkit.metrics.boxes import cutoffs, largest_boxes, to_8bit

#: Largest difference between a classifier's logits and those computed from its maps, as a share of the largest logit.
TOLERANCE = 1e-3

#: Share of a map's maximum above which a cell is inside the box, unless another share is given.
THRESHOLD = 0.2

#: How maps are laid over grey pictures: the colour map, and its share of the mixture.
MAP_COLOURS, MAP_STRENGTH = "magma", 0.72

#: Activations that a ``forward`` may apply as a function, so that no module shows their result.
ACTIVATIONS: tuple[Callable[[Tensor], Tensor], ...] = (lambda values: values, F.relu, F.silu, F.gelu, F.hardswish)


class DecompositionError(WsolkitError):
    """A classifier whose head is not global average pooling and a linear layer, or images that it cannot take."""


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
        """Number and size of the images and maps, and the classes."""
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
            threshold: share of the map's maximum above which a cell is inside the box, in [0, 1).
            kind: as in `score_maps`.

        Raises:
            DecompositionError: for another threshold or kind.
        """
        if not 0 <= threshold < 1:
            raise DecompositionError(f"threshold = {threshold}: expected a share of the maximum, from 0 to below 1.")
        images = to_8bit(self.score_maps(kind).numpy())
        return np.stack([largest_boxes(image, cutoffs(image, np.array([threshold])))[0] for image in images])

    def overlay(self, images: np.ndarray, kind: str = "cam") -> np.ndarray:
        """Maps laid in colour over the pictures in grey, as in the kit's figures: (B, h, w, 3) uint8.

        Args:
            images: (B, h, w, 3), the pictures before normalisation, uint8 or float in [0, 1].
            kind: as in `score_maps`.

        Raises:
            DecompositionError: for pictures of another shape, type or range, or another kind.
        """
        from matplotlib import colormaps

        pictures, shape = np.asarray(images), (len(self.cam), *self.size, 3)
        largest = {"u": 255, "f": 1}.get(pictures.dtype.kind, -1)
        if pictures.shape != shape or not (pictures.min() >= 0 and pictures.max() <= largest):
            raise DecompositionError(
                f"images: expected the pictures before normalisation, {shape} of uint8 or floats in [0, 1]; received "
                f"{pictures.shape} of {pictures.dtype}" + (f" up to {pictures.max()}." if pictures.size else ".")
            )
        coloured = colormaps[MAP_COLOURS](self.score_maps(kind).float().numpy())[..., :3] * 255
        grey = pictures.mean(-1, keepdims=True, dtype=float) * (255 / largest)
        return ((1 - MAP_STRENGTH) * grey + MAP_STRENGTH * coloured).round().astype(np.uint8)


@torch.no_grad()
def decompose(
    model: nn.Module,
    images: Tensor,
    target: Tensor | int | None = None,
    features: nn.Module | None = None,
    classifier: nn.Linear | None = None,
    output: Callable[[Any], Tensor] | str | int | None = None,
) -> Decomposition:
    """Decompose a classifier's CAMs into norm map and similarity map.

    Args:
        model: any classifier ending in global average pooling and a linear layer, such as torchvision's ResNet,
            DenseNet, EfficientNet, MobileNetV2 or ConvNeXt, and timm's. It is evaluated in evaluation mode and left as
            it was.
        images: (B, 3, h, w), normalised as the model expects, on the model's device.
        target: (B,) class indices, or one for all images; None takes each image's most probable class.
        features: the layer whose output is the last feature map; None finds it.
        classifier: the linear layer; None finds it.
        output: where the logits are in what the model returns: a key or index, or a function of it. None takes a tensor
            as it is, and else ``.logits`` or ``["logits"]``.

    Returns:
        The maps in float32, or float64 where the model has that type.

    Raises:
        DecompositionError: if the model's logits are not those of global average pooling and a linear layer, or an
            argument does not fit; the message names the cause.
    """
    _require_runnable(model, images)
    with _evaluating(model):
        seen, returned = _watch(model, images)
    with torch.autocast(images.device.type, enabled=False):
        logits = _logits(returned, output)
        _require_finite(model, images, logits)
        layer, given = _linear(model, seen, logits, classifier)
        found, weight, constant = _head(seen, layer, given, features)
        _require_same(logits, torch.einsum("bc,bkc->bk", found.mean((2, 3)), weight) + constant, seen)
        chosen = _targets(logits, target)
        first = torch.arange(len(chosen), device=chosen.device)
        rows = weight[first, chosen]
        return Decomposition(
            norm=maps.norm_map(found),
            similarity=maps.target_similarity(found, rows, first),
            cam=maps.cam(found, rows, first),
            weight_norm=rows.norm(dim=1),
            target=chosen,
            logits=logits,
            size=(images.shape[2], images.shape[3]),
        )


#: A module, what it was given and what it returned.
_Call = tuple[nn.Module, Tensor, Tensor]


def _require_runnable(model: nn.Module, images: Tensor) -> None:
    if not isinstance(model, nn.Module):
        raise DecompositionError(f"model: expected a torch.nn.Module, received {type(model).__name__}.")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise DecompositionError("model: a part of it is a TorchScript module; give the torch.nn.Module it came from.")
    if lazy := [name for name, value in model.named_parameters() if isinstance(value, nn.UninitializedParameter)]:
        raise DecompositionError(f"{lazy[0]} has no values yet: run the lazy model once, or load its weights, first.")
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point() or not images.numel():
        received = f"{tuple(images.shape)} of {images.dtype}" if isinstance(images, Tensor) else type(images).__name__
        raise DecompositionError(
            "images: expected a tensor (B, 3, h, w) with B >= 1, of a float type, normalised as the model expects; "
            f"received {received}."
        )


def _watch(model: nn.Module, images: Tensor) -> tuple[list[_Call], Any]:
    """Run the model once: every call of one of its modules from one tensor to another, and what the model returns."""
    calls: list[_Call] = []

    def note(module: nn.Module, given: tuple, result: object) -> None:
        if given and isinstance(given[0], Tensor) and isinstance(result, Tensor):
            calls.append((module, given[0], result))

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        return calls, model(images)
    finally:
        for hook in hooks:
            hook.remove()


def _logits(returned: Any, output: Callable[[Any], Tensor] | str | int | None) -> Tensor:
    """The logits (B, K) in what a model returns."""
    hint = "Name the logits with output=: a key, an index or a function."
    if output is None and not isinstance(returned, Tensor):
        output = (lambda found: found.logits) if hasattr(returned, "logits") else "logits"
    try:
        logits = output(returned) if callable(output) else returned if output is None else returned[output]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        held = f" of {', '.join(map(str, returned))}" if isinstance(returned, Mapping) else ""
        raise DecompositionError(f"The model returns a {type(returned).__name__}{held}. {hint}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        received = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise DecompositionError(f"Expected logits (B, K) from the model, received {received}. {hint}")
    return full_precision(logits)


def _require_finite(model: nn.Module, images: Tensor, logits: Tensor) -> None:
    if torch.isfinite(logits).all():
        return
    broken = [name for name, value in model.state_dict().items() if not torch.isfinite(value).all()]
    if not torch.isfinite(images).all():
        broken.insert(0, "the images")
    cause = f" So do {', '.join(broken[:3])}." if broken else " Weights and images are finite: it overflows on the way."
    raise DecompositionError(f"The model's output holds NaN or infinity.{cause}")


def _linear(model: nn.Module, calls: list[_Call], logits: Tensor, classifier: nn.Linear | None) -> tuple:
    """The linear layer and its input: the last one that returned the logits, else the last of their shape."""
    linear = [call for call in calls if isinstance(call[0], nn.Linear) and classifier in (None, call[0])]
    alike = [call for call in linear if call[2].shape == logits.shape]
    if alike:
        return ([call for call in alike if _close(full_precision(call[2]), logits, call[2].dtype)] or alike)[-1][:2]
    if linear and linear[-1][2].ndim == 2 and linear[-1][2].shape[1] > logits.shape[1]:
        raise DecompositionError(
            f"The model returns {logits.shape[1]} values for each image, its linear layer {linear[-1][2].shape[1]}: "
            "some were selected. Select rows of the layer's weights instead."
        )
    raise DecompositionError(
        f"{type(model).__name__} does not end in a linear layer: no nn.Linear gives its output. Name the layer "
        "with classifier=, or take a model that ends in global average pooling and a linear layer."
    )


def _head(calls: list[_Call], layer: nn.Linear, given: Tensor, features: nn.Module | None) -> tuple[Tensor, ...]:
    """The last feature map (B, C, H, W), and weights (B, K, C) and constants (K,) that make logits of its mean.

    Raises:
        DecompositionError: if the head begins with the mean of no feature map.
    """
    pooled, weight = full_precision(given), full_precision(layer.weight)
    constant = weight.new_zeros(len(weight)) if layer.bias is None else full_precision(layer.bias)
    starts = [(pooled, weight[None].expand(len(pooled), -1, -1), constant)]
    for norm, before, _ in calls:
        if isinstance(norm, nn.LayerNorm) and _flat(before).shape == pooled.shape:
            starts.append(
                (_flat(full_precision(before)), *_folded(norm, _flat(full_precision(before)), weight, constant))
            )
    found = [result for module, _, result in calls if result.ndim == 4 and features in (None, module)]
    single = False
    for start, weights, constants in starts:
        alike = [each for each in reversed(found) if each.shape[:2] == start.shape]
        for candidate, activation in product(alike, ACTIVATIONS):
            values = activation(full_precision(candidate))
            if _close(values.mean((2, 3)), start, candidate.dtype):
                if values[0, 0].numel() > 1:
                    return values, weights, constants
                single = True
    if single:
        raise DecompositionError("The last feature map has a single cell, so there is no map; use larger images.")
    shapes = ", ".join(str(tuple(each.shape[1:])) for each in found[-3:])
    raise DecompositionError(
        "The head is not global average pooling and a linear layer: the linear layer's input is not the mean of any "
        f"feature map (the last ones were {shapes or 'none'}; the layer takes {layer.in_features} values). "
        "Layers between pooling and the linear layer, or another pooling, have no such decomposition. If the feature "
        "map is computed in forward without a module, pass it through an nn.Identity there."
    )


def _folded(norm: nn.LayerNorm, values: Tensor, weight: Tensor, constant: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (B, K, C) and constants (K,) before a layer norm that act as those given do after it."""
    deviation = (values.var(1, unbiased=False) + norm.eps).sqrt()
    scaled = weight if norm.weight is None else weight * full_precision(norm.weight)
    shifted = constant if norm.bias is None else constant + weight @ full_precision(norm.bias)
    return (scaled - scaled.mean(1, keepdim=True)) / deviation[:, None, None], shifted


def _require_same(logits: Tensor, computed: Tensor, calls: list[_Call]) -> None:
    """Refuse a model whose logits (B, K) are not those computed from its maps, with the likely cause."""
    kind = calls[-1][2].dtype
    if _close(computed, logits, kind):
        return
    columns = torch.stack([computed.flatten(), torch.ones_like(logits).flatten()], 1).double().cpu()
    factor, shift = torch.linalg.lstsq(columns, logits.double().cpu().reshape(-1, 1)).solution.flatten().tolist()
    scale = float((logits * computed).sum() / (computed * computed).sum().clamp(min=1e-30))
    linear = [result for module, _, result in calls if isinstance(module, nn.Linear) and result.shape == logits.shape]
    causes = [
        ("its output is negated", -computed),
        ("softmax was applied", computed.softmax(1)),
        ("log-softmax was applied", computed.log_softmax(1)),
        ("a sigmoid was applied", computed.sigmoid()),
        (f"its output is scaled by {scale:.4g}", scale * computed),
        (f"its output is scaled by {factor:.4g} and {shift:.4g} is added", factor * computed + shift),
        (f"{len(linear)} linear layers are added", sum(map(full_precision, linear), torch.zeros_like(computed))),
    ]
    named = [cause for cause, values in causes if _close(values, logits, kind)]
    off = float((logits - computed).abs().max())
    cause = named[0] if named else f"something is added to its output or changes it (by up to {off:.3g})"
    raise DecompositionError(
        f"The model's logits are not those of its linear layer: {cause}. Its CAMs would not explain them. Return the "
        "layer's output itself, or pick it with output=."
    )


def _targets(logits: Tensor, target: Tensor | int | None) -> Tensor:
    """A class index for each image."""
    if target is None:
        return logits.argmax(1)
    try:
        given = torch.as_tensor(target, device=logits.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DecompositionError(f"target: expected class indices, received {target!r}.") from error
    chosen = given.expand(len(logits)) if given.ndim == 0 else given
    if chosen.shape != logits.shape[:1] or given.is_floating_point() or given.dtype == torch.bool:
        received = f"{tuple(given.shape)} of {given.dtype}"
        raise DecompositionError(f"target: expected {len(logits)} class indices, or one; received {received}.")
    chosen = chosen.long()  # an index of type uint8 would be taken for a mask
    if (beyond := chosen[(chosen < 0) | (chosen >= logits.shape[1])]).numel():
        raise DecompositionError(
            f"target: the model has {logits.shape[1]} classes, from 0 to {logits.shape[1] - 1}; "
            f"received {int(beyond[0])}."
        )
    return chosen


def _flat(values: Tensor) -> Tensor:
    """(B, C), (B, C, 1, 1) or (B, 1, 1, C) as (B, C); anything else as it is."""
    return values.flatten(1) if values.ndim == 2 or values[0].numel() in values.shape[1:] else values


def _close(first: Tensor, second: Tensor, kind: torch.dtype) -> bool:
    """Whether both are equal, as far as rounding in a type lets one tell."""
    share = max(TOLERANCE, 8 * torch.finfo(kind).eps)
    return bool((first - second).abs().max() <= share * second.abs().max())


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and afterwards every part of it back into its own mode."""
    before = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in before.items():
            module.training = training
