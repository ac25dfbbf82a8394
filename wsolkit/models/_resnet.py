"""torchvision's ResNets with a larger last feature map."""

from collections.abc import Mapping

from torch import Tensor, nn
from torchvision.models import ResNet

from wsolkit.models._base import GapClassifier, new_classifier


class GapResNet(GapClassifier):
    """A ResNet of torchvision with other strides; its state dict is torchvision's, under ``trunk``.

    Attentive dropout acts after the first block of layer 4. The former part is everything before layer 4.
    """

    def __init__(self, trunk: ResNet, num_classes: int, strides: tuple[int, int], strided: str):
        """Take over a network.

        Args:
            trunk: torchvision's; changed.
            num_classes: outputs of the classifier.
            strides: of layers 3 and 4; ``(2, 2)`` is torchvision's own network.
            strided: the convolution of a block that has its stride, ``"conv1"`` or ``"conv2"``.
        """
        super().__init__()
        channels, trunk.fc = trunk.fc.in_features, nn.Identity()
        for layer, stride in zip((trunk.layer3, trunk.layer4), strides, strict=True):
            getattr(layer[0], strided).stride = layer[0].downsample[0].stride = (stride, stride)
        self.trunk = trunk
        self.classifier = new_classifier(channels, num_classes)

    def before_drop_point(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, C, h, w)."""
        trunk = self.trunk
        stem = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(images))))
        return trunk.layer4[0](trunk.layer3(trunk.layer2(trunk.layer1(stem))))

    def after_pooling(self, pooled: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, h, w)."""
        return self.trunk.layer4[1:](pooled)

    def stages(self) -> tuple[nn.Module, ...]:
        """Layers 2, 3 and 4."""
        return self.trunk.layer2, self.trunk.layer3, self.trunk.layer4[-1]

    def former_part(self) -> nn.Module:
        """Everything before layer 4."""
        trunk = self.trunk
        return nn.ModuleList([trunk.conv1, trunk.bn1, trunk.layer1, trunk.layer2, trunk.layer3])

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Take a state dict of torchvision's; its classifier has no place here."""
        self.trunk.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith("fc.")})
