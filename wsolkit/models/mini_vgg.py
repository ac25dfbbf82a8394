"""A VGG of 0.2 million parameters for 64x64 images: the stand-in for VGG16 on a laptop."""

from itertools import pairwise

from torch import Tensor, nn

from wsolkit.models._base import GapClassifier, new_classifier

#: Channels of the convolutions; the first has stride 2, since most of the work is at full resolution.
CHANNELS = (16, 24, 48, 64, 96, 128)

#: Convolutions that a pooling follows; attentive dropout acts before the last of them, as in VGG16.
POOLED_AFTER = (1, 3)


class MiniVgg(GapClassifier):
    """Six 3x3 convolutions with batch norm, two poolings, GAP, linear: 64x64 images give an 8x8 map."""

    def __init__(self, num_classes: int):
        """Build with random weights and ``num_classes`` outputs."""
        super().__init__()
        blocks = [_block(*widths, stride=2 if i == 0 else 1) for i, widths in enumerate(pairwise((3, *CHANNELS)))]
        pooled = [nn.Sequential(b, nn.MaxPool2d(2)) if i in POOLED_AFTER[:-1] else b for i, b in enumerate(blocks)]
        split = POOLED_AFTER[-1] + 1
        self.former = nn.Sequential(*pooled[:split])
        self.last_pooling = nn.MaxPool2d(2)
        self.latter = nn.Sequential(*pooled[split:])
        self.classifier = new_classifier(CHANNELS[-1], num_classes)

    def before_drop_point(self, images: Tensor) -> Tensor:
        """(B, 3, 64, 64) to (B, 64, 16, 16)."""
        return self.former(images)

    def pooling(self, drop_point: Tensor) -> Tensor:
        """(B, 64, 16, 16) to (B, 64, 8, 8)."""
        return self.last_pooling(drop_point)

    def after_pooling(self, pooled: Tensor) -> Tensor:
        """(B, 64, 8, 8) to (B, 128, 8, 8)."""
        return self.latter(pooled)

    def stages(self) -> tuple[nn.Module, ...]:
        """Both poolings and the convolution before the last."""
        return self.former[POOLED_AFTER[0]], self.last_pooling, self.latter[0]

    def former_part(self) -> nn.Module:
        """All convolutions: they are pretrained, the classifier is new."""
        return nn.ModuleList([self.former, self.latter])


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def build(num_classes: int) -> MiniVgg:
    """The small VGG with random weights."""
    return MiniVgg(num_classes)
