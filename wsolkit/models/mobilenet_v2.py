"""MobileNetV2 with a larger last feature map: a network with ImageNet weights that a laptop can train."""

from typing import Any

import torchvision
from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights

from wsolkit.models._base import WithTorchvisionFeatures, new_classifier

#: Index, in torchvision's ``features``, of the last block that halves the map; attentive dropout acts before it.
LAST_STRIDE = 14

#: Index, within that block, of the convolution that does.
DEPTHWISE = 1


class MobileNetV2(WithTorchvisionFeatures):
    """torchvision's MobileNetV2 without its last halving: a 224x224 image gives a 14x14 map of 1280 channels.

    The former part is torchvision's layers; the classifier is new. torchvision's dropout before the classifier is left
    out, since the paper's networks have none.
    """

    imagenet_weights = MobileNet_V2_Weights.IMAGENET1K_V1

    def __init__(self, num_classes: int, stride: int = 1):
        """Build with random weights.

        Args:
            num_classes: outputs of the classifier.
            stride: of the last block that halves the map; 2 is torchvision's own network.
        """
        super().__init__()
        self.features = torchvision.models.mobilenet_v2(weights=None).features
        last: Any = self.features[LAST_STRIDE]
        last.conv[DEPTHWISE][0].stride = (stride, stride)
        self.classifier = new_classifier(1280, num_classes)

    def before_drop_point(self, images: Tensor) -> Tensor:
        """(B, 3, 224, 224) to (B, 96, 14, 14)."""
        return self.features[:LAST_STRIDE](images)

    def after_pooling(self, pooled: Tensor) -> Tensor:
        """(B, 96, 14, 14) to (B, 1280, 14, 14)."""
        return self.features[LAST_STRIDE:](pooled)

    def stages(self) -> tuple[nn.Module, ...]:
        """The last blocks at strides 8 and 16, and the last block."""
        return self.features[6], self.features[LAST_STRIDE - 1], self.features[17]


def build(num_classes: int) -> MobileNetV2:
    """MobileNetV2 with random weights."""
    return MobileNetV2(num_classes)
