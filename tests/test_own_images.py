import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import resnet18

from wsolkit import datasets, decomposition, models
from wsolkit.cli import own
from wsolkit.decomposition import DecompositionError
from wsolkit.errors import CheckpointError, DataError, RecipeError
from wsolkit.own import classifiers, localization
from wsolkit.own import pictures as picture_files
from wsolkit.training import checkpoints


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
    found = localization.localize_files(model, pictures, tmp_path / "out", size=64).found
    assert len(found) == 2
    for each in found:
        x0, y0, x1, y1 = each.box
        assert 0 <= x0 < x1 <= 90
        assert 0 <= y0 < y1 <= 60
        assert 0 <= each.target < 5
        assert 0 < each.probability <= 1
        assert each.picture_size == (90, 60)
        assert each.share == pytest.approx((x1 - x0 + 1) * (y1 - y0 + 1) / 5400, abs=1e-4)
        assert Image.open(each.annotated).size[1] > 60
    assert found[0].annotated != found[1].annotated
    told = json.loads((tmp_path / "out" / localization.RESULTS).read_text())
    assert [tuple(each["box"]) for each in told["pictures"]] == [each.box for each in found]
    assert told["settings"] == {"size": 64, "kind": "cam", "threshold": 0.2, "target": None}


def test_a_box_at_the_edges_of_the_models_image_is_at_those_of_the_picture():
    assert localization._in_picture(np.array([0, 0, 223, 223]), 224, (480, 400)) == (0, 0, 479, 399)
    assert localization._in_picture(np.array([0, 100, 100, 223]), 224, (224, 224)) == (0, 100, 100, 223)


def test_a_class_can_be_asked_for_and_another_map(pictures, tmp_path):
    model = models.build("mini_vgg", 5)
    for kind in ("cam", "norm", "similarity"):
        names = ["a", "b", "c", "puffin", "e"]
        done = localization.localize_files(model, pictures, tmp_path / kind, 64, kind, 0.5, target=3, names=names)
        assert [(each.target, each.name) for each in done.found] == [(3, "puffin")] * 2


def test_weights_of_a_run_and_of_torchvision_are_read(store, tiny, tmp_path):
    run = store.get(tiny)
    model = classifiers.load_classifier("mini_vgg", run.folder / checkpoints.BEST)
    assert torch.equal(model.classifier.weight, run.model().classifier.weight)
    torch.save(resnet18(num_classes=7).state_dict(), tmp_path / "resnet18.pth")
    assert classifiers.load_classifier("resnet18", tmp_path / "resnet18.pth").fc.out_features == 7


def test_resnet50_is_the_kits_or_torchvisions_whichever_fits(tmp_path):
    from torchvision.models import resnet50

    ours = models.build("resnet50", 3)
    save_file(ours.state_dict(), tmp_path / "ours.safetensors")
    assert isinstance(classifiers.load_classifier("resnet50", tmp_path / "ours.safetensors"), type(ours))
    theirs = resnet50(num_classes=3)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    assert classifiers.load_classifier("resnet50", tmp_path / "theirs.pth").fc.out_features == 3


def test_one_bad_picture_does_not_keep_the_others_from_being_done(pictures, tmp_path):
    for name in ("broken.png", "z_broken.png"):
        (tmp_path / "a" / name).write_bytes(b"no picture")
    model = models.build("mini_vgg", 2)
    done = localization.localize_files(model, [pictures[1], pictures[0]], tmp_path / "out", 64)
    assert len(done.found) == 2
    broken, last = done.unreadable
    assert "broken.png is not a picture" in broken
    assert json.loads((tmp_path / "out" / localization.RESULTS).read_text())["unreadable"] == [broken, last]
    (tmp_path / "a" / "z_broken.png").unlink()
    images, unreadable = localization.read_folder(tmp_path / "a", 32)
    assert images.shape == (1, 32, 32, 3)
    assert unreadable == (broken,)
    (tmp_path / "a" / "one.jpg").unlink()
    with pytest.raises(DataError, match="No picture in .*a can be read. .*broken.png is not a picture"):
        localization.read_folder(tmp_path / "a", 32)


def test_what_is_refused_leaves_nothing_behind(pictures, tmp_path):
    model, out = models.build("mini_vgg", 2), tmp_path / "out"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="No pictures in .*empty"):
        localization.localize_files(model, [tmp_path / "empty"], out, 64)
    with pytest.raises(DataError, match="gone.jpg does not exist"):
        localization.localize_files(model, [*pictures, tmp_path / "gone.jpg"], out, 64)
    with pytest.raises(DataError, match="3 names of classes were given, and the model has 2 classes"):
        localization.localize_files(model, pictures, out, 64, names="abc")
    with pytest.raises(DecompositionError, match="the model has 2 classes"):
        localization.localize_files(model, pictures, out, 64, target=9)
    assert not out.exists()


def test_a_run_says_what_its_weights_belong_to(store, tiny, tmp_path, monkeypatch):
    run = store.get(tiny)
    monkeypatch.setenv("WSOLKIT_RUNS", str(store.root))
    for weights in (run.folder, run.folder / checkpoints.BEST, run.recipe.key, run.recipe.key[:5]):
        opened = classifiers.open_classifier(type(tmp_path)(weights))
        assert (opened.name, opened.size) == (tiny.backbone, tiny.crop_size)
        assert torch.equal(opened.network.classifier.weight, run.model().classifier.weight)
    assert classifiers.open_classifier(run.folder, size=48).size == 48
    (tmp_path / "alone.safetensors").write_bytes((run.folder / checkpoints.BEST).read_bytes())
    with pytest.raises(CheckpointError, match=r"does not fit resnet50.*resnet50 was assumed; --model"):
        classifiers.open_classifier(tmp_path / "alone.safetensors")
    with pytest.raises(CheckpointError, match="does not exist, and no run begins so either"):
        classifiers.open_classifier(type(tmp_path)("zzz"))
    with pytest.raises(CheckpointError, match="not the folder of a finished run"):
        classifiers.open_classifier(tmp_path)


def test_weights_that_cannot_be_used_are_said(tmp_path):
    with pytest.raises(RecipeError, match=r"Unknown model 'resnet51'. Did you mean 'resnet50'\?$"):
        classifiers.load_classifier("resnet51", tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="x.pth does not exist"):
        classifiers.load_classifier("resnet18", tmp_path / "x.pth")
    torch.save(resnet18(num_classes=7).state_dict(), tmp_path / "r18.pth")
    with pytest.raises(CheckpointError, match=r"does not fit resnet34. .* \d+ missing .*It fits resnet18\.$"):
        classifiers.load_classifier("resnet34", tmp_path / "r18.pth")
    torch.save(resnet18(num_classes=7), tmp_path / "whole.pth")
    with pytest.raises(CheckpointError, match=r"a whole model perhaps.*torch.save\(model.state_dict\(\), PATH\)"):
        classifiers.load_classifier("resnet18", tmp_path / "whole.pth")
    torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "wrapped.pth")
    with pytest.raises(CheckpointError, match="expected a state dict, found state_dict, epoch"):
        classifiers.load_classifier("resnet18", tmp_path / "wrapped.pth")
    save_file({"bias": torch.zeros(2)}, tmp_path / "bias.safetensors")
    with pytest.raises(CheckpointError, match="no weights of a linear layer"):
        classifiers.load_classifier("resnet18", tmp_path / "bias.safetensors")


def test_sample_pictures_are_those_of_the_data_set(wsolkit, tmp_path):
    code, out, errors = wsolkit("data", "sample", "synthetic_birds", "--out", tmp_path / "photos", "--count", 3)
    assert (code, out) == (0, f"3 pictures of synthetic_birds in {tmp_path / 'photos'}\n"), errors
    data = datasets.open_dataset("synthetic_birds", "test", classifiers.USUAL_SIZE)
    files = pictures.find_pictures([tmp_path / "photos"])
    assert [file.stem for file in files] == [data[number].image_id for number in (0, 500, 999)]
    assert np.array_equal(np.asarray(Image.open(files[-1])), data[999].image)


def test_a_picture_that_is_a_bomb_is_refused(tmp_path, monkeypatch):
    Image.new("RGB", (100, 100)).save(tmp_path / "big.png")
    monkeypatch.setattr(picture_files, "PIXELS", 9_999)
    done = localization.localize_files(models.build("mini_vgg", 2), [tmp_path / "big.png"], tmp_path / "out", 64)
    assert not done.found
    assert "100x100 pixels" in done.unreadable[0]


def test_from_the_shell(wsolkit, pictures, tmp_path):
    save_file(models.build("mini_vgg", 4).state_dict(), tmp_path / "mini.safetensors")
    given = ("--model", "mini_vgg", "--size", 64, "--weights", tmp_path / "mini.safetensors", "--out", tmp_path / "out")
    code, out, errors = wsolkit("localize", *pictures, *given)
    assert code == 0, errors
    assert out.count("box (") == 2
    assert (tmp_path / "out" / "one.png").exists()
    (tmp_path / "a" / "broken.png").write_bytes(b"no picture")
    code, out, errors = wsolkit("localize", *pictures, *given)
    assert code == 1
    assert f"2 done with mini_vgg at 64 pixels, 1 unreadable; results in {tmp_path / 'out'}" in out
    assert "broken.png is not a picture" in errors
    code, _, errors = wsolkit("localize", *pictures, *given, "--target", 5000)
    assert code == 2
    assert errors == "Error: target: the model has 4 classes, from 0 to 3; received 5000.\n"
    code, _, errors = wsolkit("localize", tmp_path / "gone", *given[:-3], tmp_path / "no_weights.pth")
    assert code == 2
    assert "gone does not exist. Name pictures" in errors


def test_the_shells_usual_threshold_is_that_of_decompose():
    (option,) = own.localize.__annotations__["threshold"].__metadata__
    assert f"(default: {decomposition.THRESHOLD})" in option.help
