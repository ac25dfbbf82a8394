"""ResNet50 with a larger last feature map, the paper's second backbone (Sec. 5.1, Appendix B)."""

import torchvision
from torchvision.models import ResNet50_Weights

from wsolkit.models._resnet import GapResNet


class ResNet50(GapResNet):
    """A 224x224 image gives a 28x28 map of 2048 channels.

    The paper sets the stride of layer 3 to 1; a map of 28x28 needs layer 4 at 1 too, as the WSOL benchmark has it.
    """

    imagenet_weights = ResNet50_Weights.IMAGENET1K_V1

    def __init__(self, num_classes: int, strides: tuple[int, int] = (1, 1)):
        """Build with random weights; arguments as for `GapResNet`."""
        super().__init__(torchvision.models.resnet50(weights=None), num_classes, strides, "conv2")


def build(num_classes: int) -> ResNet50:
    """ResNet50 with random weights."""
    return ResNet50(num_classes)
