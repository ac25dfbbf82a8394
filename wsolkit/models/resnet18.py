"""ResNet18 with a larger last feature map, for laptops."""

import torchvision
from torchvision.models import ResNet18_Weights

from wsolkit.models._resnet import GapResNet


class ResNet18(GapResNet):
    """A 224x224 image gives a 14x14 map of 512 channels."""

    imagenet_weights = ResNet18_Weights.IMAGENET1K_V1

    def __init__(self, num_classes: int, strides: tuple[int, int] = (2, 1)):
        """Build with random weights; arguments as for `GapResNet`."""
        super().__init__(torchvision.models.resnet18(weights=None), num_classes, strides, "conv1")


def build(num_classes: int) -> ResNet18:
    """ResNet18 with random weights."""
    return ResNet18(num_classes)
