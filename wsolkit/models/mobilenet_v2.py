"""MobileNetV2 with a larger last feature map: a network with ImageNet weights that a laptop can train."""

from collections.abc import Mapping

import torchvision
from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights

from wsolkit.models._base import GapClassifier, new_classifier, without_prefix

#: Index, in torchvision's ``features``, of the last block that halves the map; attentive dropout acts before it.
LAST_STRIDE = 14

#: Index, within that block, of the convolution that does.
DEPTHWISE = 1


class MobileNetV2(GapClassifier):
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
        self.features[LAST_STRIDE].conv[DEPTHWISE][0].stride = (stride, stride)
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

    def former_part(self) -> nn.Module:
        """The layers that torchvision has."""
        return self.features

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Take the features of a torchvision MobileNetV2 state dict; its classifier has no place here."""
        self.features.load_state_dict(without_prefix(state, "features."))


def build(num_classes: int) -> MobileNetV2:
    """MobileNetV2 with random weights."""
    return MobileNetV2(num_classes)
