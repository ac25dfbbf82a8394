import numpy as np
import pytest
import torch
import torch.nn.functional as F
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


class Small(nn.Module):
    """Convolution, global average pooling and a linear layer; parts of it can be replaced."""

    def __init__(self, end=lambda model, logits: logits, activation=F.relu, head=lambda: nn.Linear(8, 12), stride=8):
        super().__init__()
        torch.manual_seed(0)
        self.end, self.activation = end, activation
        self.before, self.conv = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 8, 3, stride, 1)
        self.dropout, self.fc, self.other = nn.Dropout(0.5), head(), nn.Linear(8, 12)

    def forward(self, images):
        self.pooled = self.dropout(self.activation(self.conv(self.before(images))).mean((2, 3)))
        return self.end(self, self.fc(self.pooled))


def require_identity(found) -> None:
    """The CAM is the product of its factors (paper, Eq. 3)."""
    product = found.weight_norm[:, None, None] * found.norm * found.similarity
    assert torch.allclose(product, found.cam, rtol=0, atol=1e-5 * found.cam.abs().max().item())


@pytest.mark.parametrize("name", GAP_AND_LINEAR)
def test_the_cam_is_the_product_of_its_factors_and_makes_the_logit(name, images):
    model = build(name)
    found = decompose(model, images, torch.tensor([3, 7]))
    require_identity(found)
    assert found.similarity.abs().max() <= 1
    assert found.norm.shape == found.cam.shape
    other = decompose(model, images, torch.tensor([5, 1]))
    with torch.no_grad():
        logits = model.eval()(images)
    logits = getattr(logits, "logits", logits)
    assert torch.allclose(found.logits, logits, atol=1e-5)
    difference = logits[[0, 1], [3, 7]] - logits[[0, 1], [5, 1]]
    # Means of CAMs are logits without what all images have in common: biases, of which new layers have small ones.
    constant = _constants(model, [3, 7]) - _constants(model, [5, 1])
    measured = found.cam.mean((1, 2)) - other.cam.mean((1, 2))
    scale = found.cam.abs().max().item()
    assert torch.allclose(measured + constant, difference, rtol=1e-3, atol=1e-5 * scale)


def _constants(model: nn.Module, classes: list[int]) -> torch.Tensor:
    """What the linear layer adds whatever the features: its bias, and that of a layer norm before it."""
    layers = list(model.modules())
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)][-1]
    last = layers[-3] if isinstance(layers[-3], nn.LayerNorm) else None
    shift = linear.weight @ last.bias if last is not None else 0
    return (linear.bias + shift)[classes].detach()


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


def test_the_layers_can_be_named(images):
    model = build("resnet18")
    found = decompose(model, images, features=model.layer4, classifier=model.fc)
    assert torch.equal(found.cam, decompose(model, images).cam)
    with pytest.raises(DecompositionError, match="not the mean of any feature map"):
        decompose(model, images, features=model.layer3)


@pytest.mark.parametrize(
    "model",
    [
        Small(activation=nn.Identity()),
        *(Small(activation=each) for each in (F.relu, F.relu_, F.gelu, F.silu, F.hardswish)),
        Small(head=lambda: nn.Linear(8, 12, bias=False)),
        Small(lambda model, logits: (model.other(model.pooled), logits)[1]),
        Small(lambda model, logits: {"logits": logits, "loss": 0}),
    ],
)
def test_heads_that_differ_in_detail_are_taken_in_training_mode_too(model, images):
    found = decompose(model.train(), images)
    require_identity(found)
    bias = 0 if model.fc.bias is None else model.fc.bias[found.target]
    assert torch.allclose(found.cam.mean((1, 2)) + bias, found.logits.amax(1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["resnet18", "small"])
def test_every_precision_is_taken(dtype, name, images):
    model = Small() if name == "small" else build(name)
    found = decompose(model.to(dtype), images.to(dtype))
    assert found.cam.dtype == (dtype if dtype == torch.float64 else torch.float32)
    require_identity(found)


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (lambda model, logits: -logits, "negated"),
        (lambda model, logits: logits.neg_(), "negated"),
        (lambda model, logits: 30 * logits, "scaled by 30"),
        (lambda model, logits: logits.mul_(0.25), "scaled by 0.25"),
        (lambda model, logits: logits.softmax(1), "softmax was applied"),
        (lambda model, logits: logits.log_softmax(1), "log-softmax was applied"),
        (lambda model, logits: logits.sigmoid(), "sigmoid was applied"),
        (lambda model, logits: logits / 2 + 0.3, "scaled by 0.5 and 0.3 is added"),
        (lambda model, logits: logits + model.other.bias, "something is added"),
        (lambda model, logits: logits + model.other(model.pooled), "2 linear layers are added"),
        (lambda model, logits: logits[:, :5], "5 values for each image, its linear layer 12"),
        (lambda model, logits: {"scores": logits, "loss": 0}, "returns a dict of scores, loss.* output="),
        (lambda model, logits: (logits, 0), "returns a tuple.* output="),
        (lambda model, logits: logits[..., None], r"received \(2, 12, 1\).* output="),
        (lambda model, logits: None, "returns a NoneType"),
    ],
)
def test_logits_that_the_maps_do_not_explain_are_refused_with_the_cause(end, cause, images):
    with pytest.raises(DecompositionError, match=cause):
        decompose(Small(end), images)


@pytest.mark.parametrize(("end", "output"), [
    (lambda model, logits: {"scores": logits}, "scores"),
    (lambda model, logits: (0, logits), 1),
    (lambda model, logits: [{"deep": logits}], lambda returned: returned[0]["deep"]),
    (lambda model, logits: (logits.softmax(1), logits), 1),
])  # fmt: skip
def test_the_logits_can_be_picked_from_what_the_model_returns(end, output, images):
    assert torch.equal(decompose(Small(end), images, output=output).cam, decompose(Small(), images).cam)


def broken_weights() -> nn.Module:
    model = Small()
    model.fc.weight.data[3, 2] = float("nan")
    return model


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (broken_weights, "So do fc.weight"),
        (lambda: Small(stride=200), "a single cell"),
        (lambda: Small(head=lambda: nn.LazyLinear(12)), "fc.weight has no values yet"),
        (lambda: Small(head=lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 12))), "not global average"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "not end in a linear layer"),
        (lambda: zoo.mobilenet_v3_small(num_classes=12), "not global average pooling and a linear layer"),
        (lambda: F.relu, "expected a torch.nn.Module, received function"),
    ],
)
def test_another_model_is_refused_with_the_cause(make, cause, images):
    with pytest.raises(DecompositionError, match=cause):
        decompose(make(), images)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda images: images[0], r"expected a tensor \(B, 3, h, w\).* received \(3, 96, 80\)"),
        (lambda images: images[:0], r"B >= 1.* received \(0, "),
        (lambda images: images.to(torch.uint8), "of torch.uint8"),
        (lambda images: images.numpy(), "received ndarray"),
        (lambda images: images / 0, "So do the images"),
    ],
)
def test_other_images_are_refused_with_the_cause(change, cause, images):
    with pytest.raises(DecompositionError, match=cause):
        decompose(Small(), change(images))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (torch.tensor([1]), r"expected 2 class indices, or one; received \(1,\)"),
        (torch.tensor([1.0, 2.0]), "received .* of torch.float32"),
        (torch.tensor([True, False]), "received .* of torch.bool"),
        ("cat", "received 'cat'"),
        (torch.tensor([1, 12]), "12 classes, from 0 to 11; received 12"),
        (torch.tensor([-1, 1]), "from 0 to 11; received -1"),
        (99, "received 99"),
    ],
)
def test_other_targets_are_refused(images, target, said):
    with pytest.raises(DecompositionError, match=said):
        decompose(Small(), images, target)


def test_targets_of_every_integer_type_mean_the_same(images):
    expected = decompose(Small(), images, torch.tensor([0, 3])).cam
    for target in (torch.tensor([0, 3], dtype=torch.uint8), np.array([0, 3], np.int16), [0, 3]):
        assert torch.equal(decompose(Small(), images, target).cam, expected)
    assert decompose(Small(), images, 3).target.tolist() == [3, 3]
    found = decompose(Small(), images)
    assert torch.equal(found.target, found.logits.argmax(1))


def test_maps_have_full_precision_under_autocast(images):
    model = Small()
    with torch.autocast("cpu", torch.bfloat16):
        found = decompose(model, images)
    assert {found.cam.dtype, found.norm.dtype, found.similarity.dtype, found.logits.dtype} == {torch.float32}
    require_identity(found)


def test_a_part_in_torchscript_is_refused_and_no_hook_stays(images):
    model = Small()
    model.conv = torch.jit.script(model.conv)
    with pytest.raises(DecompositionError, match="TorchScript"):
        decompose(model, images)
    assert not any(module._forward_hooks for module in (model, model.before, model.fc))


def test_score_maps_boxes_and_overlays_have_the_size_of_the_images(images):
    found = decompose(build("resnet18"), images, 3)
    assert repr(found) == "Decomposition(2 images of 96x80, maps of 3x3, target=[3, 3])"
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
    assert np.abs(found.overlay(pictures / 255).astype(int) - found.overlay(pictures)).max() <= 1
    for wrong in (pictures * 1.0, pictures.astype(int), pictures[:1], pictures.transpose(0, 3, 1, 2), pictures / -255):
        with pytest.raises(DecompositionError, match="images: expected the pictures before normalisation"):
            found.overlay(wrong)
    with pytest.raises(DecompositionError, match="Unknown map 'cams'"):
        found.score_maps("cams")
    with pytest.raises(DecompositionError, match="threshold = 2: expected a share"):
        found.boxes(threshold=2)


def test_a_model_of_timm_is_taken_too(images):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    require_identity(decompose(timm.create_model("resnet18", num_classes=12), images))
