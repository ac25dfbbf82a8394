"""A ResNet of 0.4 million parameters for 64x64 images: the stand-in for ResNet50 on a laptop."""

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from wsolkit.models._base import GapClassifier, new_classifier

#: Channels of the stem and of the four layers.
WIDTHS = (16, 16, 32, 64, 96)


class MiniResNet(GapClassifier):
    """A stem, four layers of torchvision's basic blocks, GAP, linear: 64x64 images give an 8x8 map.

    As in ResNet50, the last layer keeps its size, and attentive dropout acts after its first block.
    """

    def __init__(self, num_classes: int):
        """Build with random weights and ``num_classes`` outputs."""
        super().__init__()
        stem, first, second, third, fourth = WIDTHS
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 3, 2, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU(inplace=True))
        self.layer1, self.layer2 = _block(stem, first, 1), _block(first, second, 2)
        self.layer3 = _block(second, third, 2)
        self.layer4 = nn.Sequential(_block(third, fourth, 1), _block(fourth, fourth, 1))
        self.classifier = new_classifier(fourth, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def before_drop_point(self, images: Tensor) -> Tensor:
        """(B, 3, 64, 64) to (B, 96, 8, 8)."""
        return self.layer4[0](self.layer3(self.layer2(self.layer1(self.stem(images)))))

    def after_pooling(self, pooled: Tensor) -> Tensor:
        """(B, 96, 8, 8) to (B, 96, 8, 8)."""
        return self.layer4[1:](pooled)

    def stages(self) -> tuple[nn.Module, ...]:
        """Layers 2, 3 and 4."""
        return self.layer2, self.layer3, self.layer4[-1]

    def former_part(self) -> nn.Module:
        """All convolutions: they are pretrained, the classifier is new."""
        return nn.ModuleList([self.stem, self.layer1, self.layer2, self.layer3, self.layer4])


def _block(inputs: int, outputs: int, stride: int) -> BasicBlock:
    project = None
    if stride != 1 or inputs != outputs:
        project = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    return BasicBlock(inputs, outputs, stride, project)


def build(num_classes: int) -> MiniResNet:
    """The small ResNet with random weights."""
    return MiniResNet(num_classes)
