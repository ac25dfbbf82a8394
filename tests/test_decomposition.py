import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models as zoo

from wsolkit import decompose, models
from wsolkit.decomposition import DecompositionError

GAP_AND_LINEAR = {
    "resnet18": zoo.resnet18,
    "densenet121": zoo.densenet121,
    "efficientnet_b0": zoo.efficientnet_b0,
    "convnext_tiny": zoo.convnext_tiny,
    "mobilenet_v2": zoo.mobilenet_v2,
    "regnet_y_400mf": zoo.regnet_y_400mf,
    "mini_vgg": models.build,
}


@pytest.fixture
def images():
    return torch.randn(2, 3, 96, 80, generator=torch.Generator().manual_seed(0))


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return models.build(name, 12) if name == "mini_vgg" else GAP_AND_LINEAR[name](num_classes=12)


@pytest.mark.parametrize("name", GAP_AND_LINEAR)
def test_the_cam_is_the_product_of_its_factors_and_makes_the_logit(name, images):
    model = build(name)
    found = decompose(model, images, torch.tensor([3, 7]))
    product = found.weight_norm[:, None, None] * found.norm * found.similarity
    scale = found.cam.abs().max().item()
    assert torch.allclose(product, found.cam, rtol=0, atol=1e-5 * scale)
    assert found.similarity.abs().max() <= 1 + 1e-5
    assert found.norm.shape == found.cam.shape
    assert found.norm.shape[1] > 1
    other = decompose(model, images, torch.tensor([5, 1]))
    with torch.no_grad():
        logits = model.eval()(images)
    logits = getattr(logits, "logits", logits)
    assert torch.allclose(found.logits, logits, atol=1e-5)
    difference = logits[[0, 1], [3, 7]] - logits[[0, 1], [5, 1]]
    # Means of CAMs are logits without what all images have in common: biases, of which new layers have small ones.
    constant = _constants(model, [3, 7]) - _constants(model, [5, 1])
    measured = found.cam.mean((1, 2)) - other.cam.mean((1, 2))
    assert torch.allclose(measured + constant, difference, rtol=1e-3, atol=1e-5 * scale)


def _constants(model: nn.Module, classes: list[int]) -> torch.Tensor:
    """What the linear layer adds whatever the features: its bias, and that of a layer norm before it."""
    layers = list(model.modules())
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)][-1]
    last = layers[-3] if isinstance(layers[-3], nn.LayerNorm) else None
    shift = linear.weight @ last.bias if last is not None else 0
    return (linear.bias + shift)[classes].detach()


def test_the_most_probable_class_is_taken_if_none_is_named(images):
    found = decompose(build("resnet18"), images)
    assert torch.equal(found.target, found.logits.argmax(1))


def test_the_model_is_left_as_it_was(images):
    model = build("resnet18").train()
    model.layer1.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    decompose(model, images)
    assert model.training
    assert not model.layer1.training
    assert model.layer2[0].training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_layers_can_be_told(images):
    model = build("resnet18")
    found = decompose(model, images, features=model.layer4, classifier=model.fc)
    assert torch.equal(found.cam, decompose(model, images).cam)
    with pytest.raises(DecompositionError, match="not the mean of any feature map"):
        decompose(model, images, features=model.layer3)


@pytest.mark.parametrize(
    "build_other", [zoo.mobilenet_v3_small, zoo.vgg11, zoo.alexnet], ids=lambda each: each.__name__
)
def test_another_head_is_an_error_that_says_so(images, build_other):
    with pytest.raises(DecompositionError, match="The head is not global average pooling and a linear layer"):
        decompose(build_other(num_classes=12), images)


def test_no_linear_layer_at_the_end_is_an_error(images):
    with pytest.raises(DecompositionError, match="does not end in a linear layer"):
        decompose(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), images)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (torch.tensor([1]), r"expected 2 class indices, or one; received \(1,\)"),
        (torch.tensor([1.0, 2.0]), "received .* of torch.float32"),
        (torch.tensor([1, 12]), "12 classes, from 0 to 11; received 12"),
        (torch.tensor([-1, 1]), "from 0 to 11; received -1"),
        (99, "received 99"),
    ],
)
def test_classes_that_are_not_there_are_refused(images, target, said):
    with pytest.raises(DecompositionError, match=said):
        decompose(build("resnet18"), images, target)
    with pytest.raises(DecompositionError, match=r"expected \(B, 3, h, w\)"):
        decompose(build("resnet18"), images[0])


def test_one_class_for_all_images_pixels_that_were_not_normalised_and_what_there_is(images):
    found = decompose(build("resnet18"), images, 3)
    assert found.target.tolist() == [3, 3]
    assert repr(found) == "Decomposition(2 images of 96x80, maps of 3x3, target=[3, 3])"
    with pytest.raises(DecompositionError, match="threshold = 2: expected a share"):
        found.boxes(threshold=2)
    with pytest.raises(DecompositionError, match="of a float type, normalised .* received .* of torch.uint8"):
        decompose(build("resnet18"), images.to(torch.uint8))


def test_score_maps_boxes_and_overlays_have_the_size_of_the_images(images):
    found = decompose(build("resnet18"), images)
    for kind in ("cam", "norm", "similarity"):
        scores = found.score_maps(kind)
        assert scores.shape == (2, 96, 80)
        assert 0 <= scores.min() <= scores.max() <= 1
    boxes = found.boxes(0.5)
    assert boxes.shape == (2, 4)
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes >= 0).all()
    assert (boxes[:, 2:] <= [80, 96]).all()
    pictures = np.full((2, 96, 80, 3), (200, 50, 20), np.uint8)
    assert found.overlay(pictures).dtype == np.uint8
    black = found.overlay(np.zeros_like(pictures))
    peak = np.unravel_index(int(found.score_maps()[0].argmax()), black.shape[1:3])
    assert black[0][peak].sum() == black[0].sum(-1).max()
    grey = found.overlay(pictures).astype(int) - black
    assert np.abs(grey - grey.mean(-1, keepdims=True)).max() <= 1  # of the picture only its brightness is left
    with pytest.raises(DecompositionError, match="Unknown map 'cams'"):
        found.score_maps("cams")


def test_a_model_of_timm_is_taken_too(images):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    model = timm.create_model("resnet18", num_classes=12)
    found = decompose(model, images)
    product = found.weight_norm[:, None, None] * found.norm * found.similarity
    assert torch.allclose(product, found.cam, rtol=0, atol=1e-5 * found.cam.abs().max().item())
