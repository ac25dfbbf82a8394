"""ResNet50 with a larger last feature map, the paper's second backbone (Sec. 5.1, Appendix B)."""

from collections.abc import Mapping

import torchvision
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights

from wsolkit.models._base import GapClassifier, new_classifier


class ResNet50(GapClassifier):
    """torchvision's ResNet50 with other strides: a 224x224 image gives a 28x28 map of 2048 channels.

    Attentive dropout acts after the first block of layer 4. The former part is everything before layer 4.
    """

    imagenet_weights = ResNet50_Weights.IMAGENET1K_V1

    def __init__(self, num_classes: int, strides: tuple[int, int] = (1, 1)):
        """Build with random weights.

        Args:
            num_classes: outputs of the classifier.
            strides: of layers 3 and 4. The paper sets layer 3 to 1; a map of 28x28 needs layer 4 at 1 too, as the WSOL
                benchmark has it. ``(2, 2)`` is torchvision's own network.
        """
        super().__init__()
        trunk = torchvision.models.resnet50(weights=None)
        trunk.fc = nn.Identity()
        for layer, stride in zip((trunk.layer3, trunk.layer4), strides, strict=True):
            layer[0].conv2.stride = layer[0].downsample[0].stride = (stride, stride)
        self.trunk = trunk
        self.classifier = new_classifier(2048, num_classes)

    def before_drop_point(self, images: Tensor) -> Tensor:
        """(B, 3, 224, 224) to (B, 2048, 28, 28)."""
        trunk = self.trunk
        stem = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(images))))
        return trunk.layer4[0](trunk.layer3(trunk.layer2(trunk.layer1(stem))))

    def after_pooling(self, pooled: Tensor) -> Tensor:
        """(B, 2048, 28, 28) to (B, 2048, 28, 28)."""
        return self.trunk.layer4[1:](pooled)

    def stages(self) -> tuple[nn.Module, ...]:
        """Layers 2, 3 and 4."""
        return self.trunk.layer2, self.trunk.layer3, self.trunk.layer4[-1]

    def former_part(self) -> nn.Module:
        """Everything before layer 4."""
        trunk = self.trunk
        return nn.ModuleList([trunk.conv1, trunk.bn1, trunk.layer1, trunk.layer2, trunk.layer3])

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Take a torchvision ResNet50 state dict; its classifier has no place here."""
        self.trunk.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith("fc.")})


def build(num_classes: int) -> ResNet50:
    """ResNet50 with random weights."""
    return ResNet50(num_classes)
