import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import resnet18

from wsolkit import models, own_images, training
from wsolkit.errors import CheckpointError, DataError, RecipeError


@pytest.fixture
def pictures(tmp_path):
    """Two pictures of one name in two folders, 90x60."""
    rng = np.random.default_rng(0)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(rng.integers(0, 256, (60, 90, 3), np.uint8)).save(tmp_path / folder / "one.jpg")
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    return [tmp_path / "a", tmp_path / "b" / "one.jpg"]


def test_pictures_get_boxes_in_their_own_pixels(pictures, tmp_path):
    model = models.build("mini_vgg", 5)
    found = own_images.localize_files(model, pictures, tmp_path / "out", size=64)
    assert len(found) == 2
    for each in found:
        x0, y0, x1, y1 = each.box
        assert 0 <= x0 < x1 <= 90
        assert 0 <= y0 < y1 <= 60
        assert 0 <= each.target < 5
        assert 0 < each.probability <= 1
        assert Image.open(each.annotated).size[1] == 60
    assert found[0].annotated != found[1].annotated
    told = json.loads((tmp_path / "out" / own_images.RESULTS).read_text())
    assert [tuple(each["box"]) for each in told] == [each.box for each in found]


def test_a_class_can_be_asked_for_and_another_map(pictures, tmp_path):
    model = models.build("mini_vgg", 5)
    for kind in ("cam", "norm", "similarity"):
        (first, _) = own_images.localize_files(model, pictures, tmp_path / kind, 64, kind, 0.5, target=3)
        assert first.target == 3


def test_weights_of_a_run_and_of_torchvision_are_read(store, tiny, tmp_path):
    run = store.get(tiny)
    model = own_images.load_classifier("mini_vgg", run.folder / training.BEST)
    assert torch.equal(model.classifier.weight, run.model().classifier.weight)
    torch.save(resnet18(num_classes=7).state_dict(), tmp_path / "resnet18.pth")
    assert own_images.load_classifier("resnet18", tmp_path / "resnet18.pth").fc.out_features == 7


def test_resnet50_is_the_kits_or_torchvisions_whichever_fits(tmp_path):
    from torchvision.models import resnet50

    ours = models.build("resnet50", 3)
    save_file(ours.state_dict(), tmp_path / "ours.safetensors")
    assert isinstance(own_images.load_classifier("resnet50", tmp_path / "ours.safetensors"), type(ours))
    theirs = resnet50(num_classes=3)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    assert own_images.load_classifier("resnet50", tmp_path / "theirs.pth").fc.out_features == 3


def test_what_cannot_be_used_is_said(tmp_path, pictures):
    model = models.build("mini_vgg", 2)
    (tmp_path / "a" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"Cannot read .*broken\.png as a picture"):
        own_images.localize_files(model, pictures, tmp_path / "out", 64)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="No pictures in .*empty"):
        own_images.localize_files(model, [tmp_path / "empty"], tmp_path / "out", 64)
    with pytest.raises(RecipeError, match="Unknown model 'resnet51'"):
        own_images.load_classifier("resnet51", tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="x.pth does not exist"):
        own_images.load_classifier("resnet18", tmp_path / "x.pth")
    save_file(model.state_dict(), tmp_path / "mini.safetensors")
    with pytest.raises(CheckpointError, match="does not fit resnet18"):
        own_images.load_classifier("resnet18", tmp_path / "mini.safetensors")
    save_file({"bias": torch.zeros(2)}, tmp_path / "bias.safetensors")
    with pytest.raises(CheckpointError, match="no weights of a linear layer"):
        own_images.load_classifier("resnet18", tmp_path / "bias.safetensors")


def test_a_picture_that_is_a_bomb_is_refused(tmp_path, monkeypatch):
    Image.new("RGB", (100, 100)).save(tmp_path / "big.png")
    monkeypatch.setattr(own_images, "PIXELS", 9_999)
    with pytest.raises(DataError, match="100x100 pixels"):
        own_images.localize_files(models.build("mini_vgg", 2), [tmp_path / "big.png"], tmp_path / "out", 64)


def test_from_the_shell(wsolkit, pictures, tmp_path):
    save_file(models.build("mini_vgg", 4).state_dict(), tmp_path / "mini.safetensors")
    given = ("--model", "mini_vgg", "--size", 64, "--weights", tmp_path / "mini.safetensors", "--out", tmp_path / "out")
    code, out, errors = wsolkit("localize", *pictures, *given)
    assert code == 0, errors
    assert out.count("box (") == 2
    assert (tmp_path / "out" / "one.png").exists()
