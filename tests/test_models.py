import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from tests.conftest import SHARED
from wsolkit import maps, models
from wsolkit.errors import CheckpointError, RecipeError
from wsolkit.models import mobilenet_v2, resnet18, resnet50
from wsolkit.system.folders import weights_root


@pytest.fixture(scope="module")
def reference() -> torchvision.models.VGG:
    return torchvision.models.vgg16(weights=None).eval()


@pytest.mark.parametrize(
    ("name", "size", "cells", "channels", "drop_cells"),
    [
        ("mini_vgg", 64, 8, 128, 16),
        ("mini_resnet", 64, 8, 96, 8),
        ("vgg16", 224, 14, 1024, 28),
        ("resnet50", 224, 28, 2048, 28),
        ("resnet18", 224, 14, 512, 14),
        ("mobilenet_v2", 144, 9, 1280, 9),
        ("mobilenet_v2", 224, 14, 1280, 14),
    ],
)
def test_shapes_and_the_drop_point(name, size, cells, channels, drop_cells):
    model = models.build(name, 5).eval()
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = model(images)
        again = model.after_drop_point(output.drop_point)
    assert output.logits.shape == (1, 5)
    assert output.features.shape == (1, channels, cells, cells)
    assert output.drop_point.shape[2:] == (drop_cells, drop_cells)
    assert (again == output.features).all()
    assert (output.features >= 0).all()


@pytest.mark.parametrize("name", models.names())
def test_every_backbone_obeys_the_identity_of_cam_and_logit(name):
    model = models.build(name, 4, seed=3).eval()
    with torch.no_grad():
        output = model(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
        target = torch.tensor([3, 1])
        cam = maps.cam(output.features, model.classifier.weight, target)
    mean = cam.mean((1, 2)) + model.classifier.bias[target]
    torch.testing.assert_close(mean, output.logits[range(2), target], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", models.names())
def test_every_parameter_is_in_exactly_one_group(name):
    model = models.build(name, 4)
    groups = model.parameter_groups(0.1, 0.2)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())
    assert [group["lr"] for group in groups] == [0.1, 0.2]
    assert id(model.classifier.weight) in {id(p) for p in groups[1]["params"]}


@pytest.mark.parametrize(("name", "thousands"), [("mini_vgg", 210), ("mini_resnet", 390)])
def test_the_small_networks_stay_small(name, thousands):
    count = sum(parameter.numel() for parameter in models.build(name, 10).parameters())
    assert count / 1000 == pytest.approx(thousands, rel=0.05)


def test_vgg16_features_equal_torchvisions(reference):
    model = models.build("vgg16", 3).eval()
    model.load_imagenet(reference.state_dict())
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        before_conv6 = model.features[23:](model.before_drop_point(images))
        expected = reference.features[:-1](images)
    assert (before_conv6 == expected).all()


@pytest.fixture(scope="module")
def residual() -> torchvision.models.ResNet:
    return torchvision.models.resnet50(weights=None).eval()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(resnet50.ResNet50, torchvision.models.resnet50), (resnet18.ResNet18, torchvision.models.resnet18)],
)
def test_a_resnets_logits_equal_torchvisions_where_the_strides_do(ours, theirs):
    model, theirs = ours(1000, strides=(2, 2)).eval(), theirs(weights=None).eval()
    model.load_imagenet(theirs.state_dict())
    model.classifier.load_state_dict(theirs.fc.state_dict())
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.allclose(model(images).logits, theirs(images), rtol=1e-5, atol=1e-6)


def test_the_papers_resnet50_takes_torchvisions_weights_and_keeps_its_map_large(residual, tmp_path):
    torch.save(residual.state_dict(), tmp_path / "resnet50.pth")
    model = models.build("resnet50", 3).eval()
    models.load_imagenet_weights(model, tmp_path / "resnet50.pth")
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        stem = residual.maxpool(residual.relu(residual.bn1(residual.conv1(images))))
        # Up to layer 2 the networks are one; a 1x1 convolution with stride sees every second cell of one without.
        whole = model.trunk.layer2(model.trunk.layer1(stem))
        assert torch.equal(whole, residual.layer2(residual.layer1(stem)))
        project, strided = model.trunk.layer3[0].downsample[0], residual.layer3[0].downsample[0]
        # Which kernel sums 512 channels, and in what order, depends on the stride.
        assert torch.allclose(project(whole)[:, :, ::2, ::2], strided(whole), rtol=1e-5, atol=1e-5)
        assert model(images).features.shape[2:] == whole.shape[2:]


def test_mobilenet_v2_logits_equal_torchvisions_where_the_strides_do():
    path = SHARED / "data" / "mobilenet_v2-b0353104.pth"
    if not path.exists():
        pytest.skip("needs torchvision's ImageNet weights of MobileNetV2 beside the clone")
    published = torchvision.models.mobilenet_v2(weights=None).eval()
    published.load_state_dict(models.read_state_dict(path))
    model = mobilenet_v2.MobileNetV2(1000, stride=2).eval()
    models.load_imagenet_weights(model, path)
    model.classifier.load_state_dict(published.classifier[1].state_dict())
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.allclose(model(images).logits, published(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "former"), [("resnet50", "trunk.layer4"), ("mini_resnet", "classifier")])
def test_the_latter_part_is_the_papers_or_the_classifier_alone(name, former):
    model = models.build(name, 4)
    last_layers = {id(p) for key, p in model.named_parameters() if key.startswith((former, "classifier"))}
    assert {id(p) for p in model.parameter_groups(0.1, 0.2)[1]["params"]} == last_layers
    groups = model.parameter_groups(0.1, 0.2, "classifier")
    assert {id(p) for p in groups[1]["params"]} == {id(p) for p in model.classifier.parameters()}
    assert len(groups[0]["params"]) + 2 == len(list(model.parameters()))


@pytest.mark.parametrize("name", models.names())
def test_pooling_and_what_follows_make_up_the_latter_pass(name):
    model = models.build(name, 4, seed=3).eval()
    with torch.no_grad():
        output = model(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
        pooled = model.pooling(output.drop_point)
        assert torch.equal(model.after_pooling(pooled), output.features)


def test_building_is_seeded_and_leaves_the_global_state_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first, again, other = (models.build("mini_vgg", 3, seed).classifier.weight for seed in (5, 5, 6))
    assert torch.rand(1) == expected
    assert (first == again).all()
    assert (first != other).any()


def test_frozen_statistics_keep_running_means():
    model = models.build("mini_vgg", 3).train()
    images = torch.randn(4, 3, 32, 32)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with models.frozen_statistics(model):
        model(images)
    assert all((before[name] == buffer).all() for name, buffer in model.named_buffers())
    model(images)
    assert any((before[name] != buffer).any() for name, buffer in model.named_buffers())


def test_weights_load_by_name_from_a_folder_and_from_both_kinds_of_file(reference, tmp_path, monkeypatch):
    monkeypatch.setenv("WSOLKIT_WEIGHTS", str(tmp_path))
    model, state = models.build("vgg16", 3), reference.state_dict()
    with pytest.raises(CheckpointError, match=r"vgg16-397923af\.pth\.\n`wsolkit data get weights --name vgg16`"):
        models.load_imagenet_weights(model)
    kept = {name: tensor for name, tensor in state.items() if name.startswith("features.")}
    torch.save(kept, tmp_path / "vgg16-397923af.pth")
    with pytest.raises(CheckpointError, match="is not the file that torchvision publishes"):
        models.load_imagenet_weights(model)
    monkeypatch.setattr("wsolkit.models._weights.sha256", lambda path: "397923af" + 56 * "0")
    save_file(kept, tmp_path / "vgg16.safetensors")
    for file in (None, tmp_path / "vgg16.safetensors"):
        model = models.build("vgg16", 3)
        models.load_imagenet_weights(model, file)
        assert (model.features[0].weight == state["features.0.weight"]).all()


def test_weights_are_looked_for_where_torchvision_keeps_them(tmp_path, monkeypatch):
    monkeypatch.delenv("WSOLKIT_WEIGHTS", raising=False)
    for home in (None, tmp_path):
        if home:
            monkeypatch.setenv("TORCH_HOME", str(home))
        assert weights_root() == Path(torch.hub.get_dir()) / "checkpoints"


class Malicious:
    """Unpickling this would write a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_weights_that_hold_code_are_refused_and_not_run(tmp_path):
    torch.save({"features.0.weight": Malicious(tmp_path / "executed")}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=r"bad\.pth"):
        models.load_imagenet_weights(models.build("vgg16", 3), tmp_path / "bad.pth")
    assert not (tmp_path / "executed").exists()


def test_damaged_and_foreign_weights_are_named(reference, tmp_path):
    model = models.build("vgg16", 3)
    torch.save(reference.features[:5].state_dict(), tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match=r"part\.pth does not hold weights of Vgg16"):
        models.load_imagenet_weights(model, tmp_path / "part.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "part.pth").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cut short"):
        models.load_imagenet_weights(model, tmp_path / "cut.pth")
    with pytest.raises(CheckpointError, match="has no ImageNet weights"):
        models.load_imagenet_weights(models.build("mini_vgg", 3))


NOT_WEIGHTS = {
    "empty.pth": (b"", "empty"),
    "empty.safetensors": (b"", "empty"),
    "header.safetensors": (b'\x10\0\0\0\0\0\0\0{"a":1}xxxxxxxxx', "damaged"),
    "page.pth": (b"<html>Not found</html>", "a web page"),
    "pointer.pth": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    "keras.h5": (b"\x89HDF\r\n\x1a\n" + bytes(90), "HDF5"),
    "cut.pt": (b"PK\x03\x04" + bytes(90), "cut short"),
    "text.pth": (b"c" * 90, "not a file of weights"),
}


@pytest.mark.parametrize("name", NOT_WEIGHTS)
def test_what_is_no_file_of_weights_is_named_in_a_sentence(tmp_path, name):
    content, what = NOT_WEIGHTS[name]
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, what)


def refused(path: Path, what: str) -> None:
    with pytest.raises(CheckpointError, match=what) as error:
        models.read_state_dict(path)
    assert str(path) in str(error.value)
    assert "weights_only" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_archives_pipes_folders_and_whole_models_are_named(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    np.save(tmp_path / "x.npy", np.zeros(3))
    layer = torch.nn.Linear(2, 2)
    torch.jit.script(layer).save(tmp_path / "script.pt")
    os.mkfifo(tmp_path / "pipe.pth")
    torch.save(layer, tmp_path / "whole.pth")
    torch.save({"model": layer.state_dict(), "best": np.float64(1)}, tmp_path / "old.pth", **LEGACY)
    expected = {"x.npz": "NumPy", "x.npy": "NumPy", "script.pt": "TorchScript", "pipe.pth": "not a regular file"}
    whole = r"besides tensors .*torch.save\(model.state_dict\(\), PATH\)"
    for name, what in {
        **expected,
        "": "is a folder",
        "gone": "not exist",
        "whole.pth": whole,
        "old.pth": whole,
    }.items():
        refused(tmp_path / name, what)


LEGACY = {"_use_new_zipfile_serialization": False}


@pytest.mark.parametrize("options", [{}, LEGACY])
def test_a_checkpoint_in_either_format_gives_the_models_weights(tmp_path, options):
    weights = {"fc.weight": torch.ones(2, 2), "fc.bias": torch.zeros(2)}
    others = {"ema": {**weights, "more": torch.zeros(1)}, "optimizer": {"state": {0: {"step": torch.zeros(1)}}}}
    torch.save({**others, "epoch": 3, "model": {"state_dict": weights}}, tmp_path / "x.pth", **options)
    assert models.read_state_dict(tmp_path / "x.pth").keys() == weights.keys()
    endless: dict = {}
    endless["again"] = endless
    for content in (endless, [1], {}, {"state_dict": {}}, torch.zeros(3)):
        torch.save(content, tmp_path / "none.pth", **options)
        refused(tmp_path / "none.pth", "no tensors by name")


def test_an_unknown_backbone_is_named_with_the_nearest():
    known = "mini_resnet, mini_vgg, mobilenet_v2, resnet18, resnet50, vgg16"
    with pytest.raises(RecipeError, match=rf"Unknown backbone 'vgg61'\. Did you mean 'vgg16'\? Known: {known}"):
        models.build("vgg61", 3)
