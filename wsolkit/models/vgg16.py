"""VGG16 with global average pooling, the paper's first backbone (Sec. 5.1, Appendix B)."""

from torch import Tensor, nn
from torchvision.models import VGG16_Weights
from torchvision.models.vgg import cfgs, make_layers

from wsolkit.models._base import WithTorchvisionFeatures, new_classifier

#: Index, in torchvision's ``features``, of the last pooling that stays; attentive dropout acts before it.
LAST_POOLING = 23


class Vgg16(WithTorchvisionFeatures):
    """The ``features`` of torchvision's VGG16 without their last pooling, conv6 (1024 channels), GAP, linear.

    A 224x224 image gives a 14x14 map. The former part is torchvision's layers; conv6 and the classifier are new.
    """

    imagenet_weights = VGG16_Weights.IMAGENET1K_V1

    def __init__(self, num_classes: int):
        """Build with random weights and ``num_classes`` outputs."""
        super().__init__()
        self.features = make_layers(cfgs["D"])[:-1]
        self.conv6 = nn.Conv2d(512, 1024, 3, padding=1)
        self.classifier = new_classifier(1024, num_classes)
        for convolution in [*self.features, self.conv6]:
            if isinstance(convolution, nn.Conv2d):
                nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
                if convolution.bias is not None:
                    nn.init.zeros_(convolution.bias)

    def before_drop_point(self, images: Tensor) -> Tensor:
        """(B, 3, 224, 224) to (B, 512, 28, 28)."""
        return self.features[:LAST_POOLING](images)

    def pooling(self, drop_point: Tensor) -> Tensor:
        """(B, 512, 28, 28) to (B, 512, 14, 14)."""
        return self.features[LAST_POOLING](drop_point)

    def after_pooling(self, pooled: Tensor) -> Tensor:
        """(B, 512, 14, 14) to (B, 1024, 14, 14)."""
        return self.conv6(self.features[LAST_POOLING + 1 :](pooled)).relu()

    def stages(self) -> tuple[nn.Module, ...]:
        """Poolings 3 and 4 and conv5-3, where the methods' papers act."""
        return self.features[16], self.features[LAST_POOLING], self.features[-1]


def build(num_classes: int) -> Vgg16:
    """VGG16 with random weights."""
    return Vgg16(num_classes)
