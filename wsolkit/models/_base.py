"""What every backbone is: a classifier with global average pooling, split at the drop point."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from wsolkit.errors import RecipeError

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum


@dataclass(frozen=True)
class Output:
    """What one forward pass gives.

    Attributes:
        logits: (B, K).
        features: (B, C, H, W), the last feature map, before global average pooling.
        drop_point: (B, C', H', W'), where attentive dropout acts.
    """

    logits: Tensor
    features: Tensor
    drop_point: Tensor


class GapClassifier(nn.Module, ABC):
    """Convolutional network, global average pooling, one linear layer.

    A subclass sets ``classifier`` and defines `before_drop_point`, `after_pooling` and `former_part`, and `pooling`
    where one follows the drop point. One that can start from torchvision's ImageNet weights sets ``imagenet_weights``
    and defines `load_imagenet`; one in whose depths methods may act defines `stages`.

    Attributes:
        classifier: the linear layer.
        extra: a method's own layers, if it has any.
        predict: in evaluation, from what `forward` gave and labels (B,) to logits (B, K) and score maps (B, H, W), if
            the method has a way of its own; None for the logits of `forward` and the CAM.
    """

    classifier: nn.Linear
    extra: nn.Module
    predict: Callable[[Output, Tensor], tuple[Tensor, Tensor]] | None = None
    imagenet_weights: "WeightsEnum | None" = None
    load_imagenet: Callable[[Mapping[str, Tensor]], None]

    @abstractmethod
    def before_drop_point(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to the feature map on which attentive dropout acts."""

    def pooling(self, drop_point: Tensor) -> Tensor:
        """The pooling that follows the drop point; the identity where none does."""
        return drop_point

    @abstractmethod
    def after_pooling(self, pooled: Tensor) -> Tensor:
        """The pooled feature map to the last feature map (B, C, H, W)."""

    @abstractmethod
    def former_part(self) -> nn.Module:
        """The layers that learn at the lower of the two learning rates (paper, Appendix B)."""

    def stages(self) -> tuple[nn.Module, ...]:
        """The modules whose outputs end the last three stages, from shallow to deep.

        Raises:
            RecipeError: if the backbone does not name them.
        """
        raise RecipeError(f"{type(self).__name__} does not define stages(), which this method acts on.")

    @contextmanager
    def watched(self, act: Callable[[int, Tensor], Tensor | None], which: Sequence[int] = (0, 1, 2)) -> Iterator[None]:
        """Look at what the `stages` give while the network runs inside the block, or replace it.

        Args:
            act: is given the number of a stage and its feature map (B, C, H, W); what it returns takes the map's place,
                unless that is None.
            which: numbers of the stages.
        """
        stages = self.stages()
        hooks = [
            stages[number].register_forward_hook(lambda _module, _given, found, number=number: act(number, found))
            for number in which
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def gap(self, features: Tensor) -> Tensor:
        """Global average pooling: (B, C, H, W) to (B, C)."""
        return features.mean((2, 3))

    def after_drop_point(self, drop_point: Tensor) -> Tensor:
        """The feature map of the drop point, erased or not, to the last feature map (B, C, H, W)."""
        return self.after_pooling(self.pooling(drop_point))

    def forward(self, images: Tensor) -> Output:
        """Images (B, 3, H, W), normalised, to logits, features and the drop point."""
        drop_point = self.before_drop_point(images)
        features = self.after_drop_point(drop_point)
        return Output(self.classifier(self.gap(features)), features, drop_point)

    def parameter_groups(
        self, lr_former: float, lr_latter: float, latter_part: Literal["last_layers", "classifier"] = "last_layers"
    ) -> list[dict]:
        """Optimizer groups: the former part, and everything else, each with its learning rate.

        Args:
            lr_former: of the former part.
            lr_latter: of the latter part.
            latter_part: all but `former_part` (paper, Appendix B), or the classifier alone (released for ResNet50).
        """
        classifier = {id(parameter) for parameter in self.classifier.parameters()}
        every = [parameter for parameter in self.parameters() if id(parameter) not in classifier]
        former = every if latter_part == "classifier" else list(self.former_part().parameters())
        ids = {id(parameter) for parameter in former}
        latter = [parameter for parameter in self.parameters() if id(parameter) not in ids]
        return [{"params": former, "lr": lr_former}, {"params": latter, "lr": lr_latter}]


class WithTorchvisionFeatures(GapClassifier):
    """A backbone whose former part is what torchvision's network of the same kind has as its ``features``."""

    features: nn.Sequential

    def former_part(self) -> nn.Module:
        """The layers that torchvision has."""
        return self.features

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Take the features of a state dict of torchvision's; its classifier has no place here."""
        self.features.load_state_dict(without_prefix(state, "features."))


def new_classifier(channels: int, num_classes: int) -> nn.Linear:
    """The linear classifier, with the small initial weights of torchvision's VGG.

    Large random weights would decide, by chance, which features a short training takes up.
    """
    classifier = nn.Linear(channels, num_classes)
    nn.init.normal_(classifier.weight, 0, 0.01)
    nn.init.zeros_(classifier.bias)
    return classifier


def without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name starts with ``prefix``, named without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Keep batch normalisation's running statistics as they are, for a second pass with erased features.

    They describe the images that evaluation will see, and those are never erased.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    tracked = [layer.track_running_stats for layer in layers]
    try:
        for layer in layers:
            layer.track_running_stats = False
        yield
    finally:
        for layer, before in zip(layers, tracked, strict=True):
            layer.track_running_stats = before
