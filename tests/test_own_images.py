"""The user's own classifiers and pictures: weights in, boxes out, in Python and from the shell."""

import inspect
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import get_model, list_models, resnet18

from tests.conftest import SHARED
from wsolkit import datasets, decomposition, models
from wsolkit.cli import your_own
from wsolkit.decomposition import DecompositionError
from wsolkit.errors import CheckpointError, DataError, RecipeError
from wsolkit.localize import classifiers, localization
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


@pytest.fixture(scope="module")
def state():
    return resnet18(num_classes=7).state_dict()


@pytest.fixture
def mini(tmp_path):
    """Options of `wsolkit localize` for a small network of four classes."""
    save_file(models.build("mini_vgg", 4).state_dict(), tmp_path / "mini.safetensors")
    return ("--model", "mini_vgg", "--size", 64, "--weights", tmp_path / "mini.safetensors", "--out", tmp_path / "out")


def test_pictures_get_boxes_in_their_own_pixels(pictures, tmp_path):
    found = localization.localize_files(models.build("mini_vgg", 5), pictures, tmp_path / "out", size=64).found
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
    assert localization.box_in_picture(np.array([0, 0, 223, 223]), 224, (480, 400)) == (0, 0, 479, 399)
    assert localization.box_in_picture(np.array([0, 100, 100, 223]), 224, (224, 224)) == (0, 100, 100, 223)


def test_boxes_of_a_picture_on_its_side_are_those_of_the_upright_one(pictures, tmp_path):
    upright = Image.open(pictures[1])
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.save(tmp_path / "upright.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "phone.png", exif=exif)
    both = [tmp_path / "upright.png", tmp_path / "phone.png"]
    first, second = localization.localize_files(models.build("mini_vgg", 5), both, tmp_path / "out", 64).found
    assert (first.box, first.picture_size, first.target) == (second.box, second.picture_size, second.target)


@pytest.mark.parametrize("kind", ["cam", "norm", "similarity"])
def test_a_class_can_be_asked_for_and_another_map(pictures, tmp_path, kind):
    names = ["a", "b", "c", "puffin", "e"]
    model = models.build("mini_vgg", 5)
    done = localization.localize_files(model, pictures, tmp_path / "out", 64, kind, 0.5, target=3, names=names)
    assert [(each.target, each.name) for each in done.found] == [(3, "puffin")] * 2


def test_one_bad_picture_does_not_keep_the_others_from_being_done(pictures, tmp_path):
    for name in ("broken.png", "z_broken.png"):
        (tmp_path / "a" / name).write_bytes(b"no picture")
    model = models.build("mini_vgg", 2)
    done = localization.localize_files(model, [pictures[1], pictures[0]], tmp_path / "out", 64)
    assert len(done.found) == 2
    broken, last = done.unreadable
    assert "broken.png is not a picture" in broken
    assert json.loads((tmp_path / "out" / localization.RESULTS).read_text())["unreadable"] == [broken, last]
    images, unreadable = localization.read_folder(tmp_path / "a", 32)
    assert (images.shape, unreadable) == ((1, 32, 32, 3), (broken, last))
    (tmp_path / "a" / "one.jpg").unlink()
    with pytest.raises(DataError, match="No picture in .*a can be read"):
        localization.read_folder(tmp_path / "a", 32)


def test_what_is_refused_leaves_nothing_behind(pictures, tmp_path):
    model, out = models.build("mini_vgg", 2), tmp_path / "out"
    for given, changes, error in (
        ([*pictures, tmp_path / "gone.jpg"], {}, DataError),
        (pictures, {"names": "abc"}, DataError),
        (pictures, {"target": 9}, DecompositionError),
        (pictures, {"size": 4}, DataError),
    ):
        with pytest.raises(error):
            localization.localize_files(model, given, out, **{"size": 64, **changes})
    assert not out.exists()


def test_results_beside_the_pictures_replace_none_of_them(tmp_path):
    Image.new("RGB", (50, 40), "red").save(tmp_path / "one.png")
    before = (tmp_path / "one.png").read_bytes()
    localization.localize_files(models.build("mini_vgg", 2), [tmp_path], tmp_path, 64)
    assert (tmp_path / "one.png").read_bytes() == before
    assert (tmp_path / "one-1.png").exists()


def test_only_what_an_earlier_call_wrote_is_written_over(pictures, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "one.png").write_bytes(b"the user's own")
    for _ in range(2):
        localization.localize_files(models.build("mini_vgg", 2), pictures, tmp_path / "out", 64)
    assert (tmp_path / "out" / "one.png").read_bytes() == b"the user's own"
    assert {file.name for file in (tmp_path / "out").glob("one-*")} == {"one-1.png", "one-2.png"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_pictures_have_the_precision_of_the_model(pictures, tmp_path, dtype):
    model = models.build("mini_vgg", 2).to(dtype)
    assert len(localization.localize_files(model, pictures, tmp_path / "out", 64).found) == 2


def test_a_run_says_what_its_weights_belong_to(store, tiny, tmp_path, monkeypatch):
    run = store.get(tiny)
    monkeypatch.setenv("WSOLKIT_RUNS", str(store.root))
    for weights in (run.folder, run.folder / checkpoints.BEST, run.recipe.key, run.recipe.key[:5]):
        opened = classifiers.open_classifier(Path(weights))
        assert (opened.name, opened.size) == (tiny.backbone, tiny.crop_size)
        assert torch.equal(opened.network.classifier.weight, run.model().classifier.weight)
    assert classifiers.open_classifier(run.folder, size=48).size == 48
    (tmp_path / "alone.safetensors").write_bytes((run.folder / checkpoints.BEST).read_bytes())
    with pytest.raises(CheckpointError, match=r"does not fit resnet50.*--model"):
        classifiers.open_classifier(tmp_path / "alone.safetensors")
    for wrong in ("zzz", "x" * 5000, tmp_path):
        with pytest.raises(CheckpointError, match="not the folder of a finished run"):
            classifiers.open_classifier(Path(wrong))


def test_resnet50_is_the_kits_or_torchvisions_whichever_fits(tmp_path):
    ours, theirs = models.build("resnet50", 3), get_model("resnet50", num_classes=3)
    save_file(ours.state_dict(), tmp_path / "ours.safetensors")
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    assert isinstance(classifiers.load_classifier("resnet50", tmp_path / "ours.safetensors"), type(ours))
    assert isinstance(classifiers.load_classifier("resnet50", tmp_path / "theirs.pth"), type(theirs))


@pytest.mark.parametrize(
    ("prefix", "entry"),
    [("", ""), ("module.", ""), ("_orig_mod.", "state_dict"), ("model.", "model"), ("", "model_state_dict")]
    + [("module.backbone._orig_mod.", "mine"), ("1.", "net"), ("", "mine")],
)
def test_weights_are_taken_from_checkpoints_and_from_under_prefixes(state, tmp_path, caplog, prefix, entry):
    named = {prefix + name: tensor for name, tensor in state.items()}
    optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
    content = {"epoch": 3, "optimizer": optimizer, entry: named, "best": 0.5} if entry else named
    torch.save(content, tmp_path / "x.pth")
    model = classifiers.load_classifier("resnet18", tmp_path / "x.pth")
    assert torch.equal(model.fc.weight, state["fc.weight"])
    assert not model.training
    assert all(repr(taken) in caplog.text for taken in (entry, prefix) if taken)


def test_an_averaged_model_and_tensors_beside_the_weights_are_taken(state, tmp_path, caplog):
    averaged = torch.optim.swa_utils.AveragedModel(resnet18(num_classes=7)).state_dict()
    torch.save({**averaged, "criterion.weight": torch.ones(7)}, tmp_path / "x.pth")
    assert classifiers.load_classifier("resnet18", tmp_path / "x.pth").fc.out_features == 7
    assert "2 tensors without it are left out" in caplog.text


def test_the_classes_are_counted_at_the_models_own_head(tmp_path):
    for name in ("convnext_tiny", "squeezenet1_0"):  # by name, the last linear weights are not the head's, or none
        save_file(get_model(name, num_classes=5).state_dict(), tmp_path / f"{name}.safetensors")
        assert classifiers.load_classifier(name, tmp_path / f"{name}.safetensors").eval()


def test_weights_that_do_not_fit_are_explained(state, tmp_path):
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "r18.pth")
    with pytest.raises(
        CheckpointError, match=r"does not fit resnet34: .*'module\.'.*\d+ .* missing.*Name the model that"
    ):
        classifiers.load_classifier("resnet34", tmp_path / "r18.pth")
    with pytest.raises(RecipeError, match=r"Unknown model 'resnet51'. Did you mean 'resnet50'\?$"):
        classifiers.load_classifier("resnet51", tmp_path / "x.pth")
    conv = state["conv1.weight"]
    for changed in (
        {"fc.weight": torch.zeros(0, 512)},
        {"fc.weight": torch.tensor(1.0)},
        {"conv1.weight": conv.to("meta")},
    ):
        torch.save({**state, **changed}, tmp_path / "odd.pth")
        with pytest.raises(CheckpointError, match=r"odd\.pth"):
            classifiers.load_classifier("resnet18", tmp_path / "odd.pth")


FAMILIES = {re.split(r"[\d_]", name)[0]: name for name in list_models(module=torchvision.models)}


@pytest.mark.parametrize("name", FAMILIES.values())
def test_weights_can_be_compared_with_the_largest_models_of_torchvision(tmp_path, name):
    save_file({"bias": torch.zeros(2)}, tmp_path / "bias.safetensors")
    with pytest.raises(CheckpointError, match=f"does not fit {name}"):
        classifiers.load_classifier(name, tmp_path / "bias.safetensors")


def test_imagenet_weights_come_with_the_names_of_their_classes(monkeypatch, tmp_path):
    monkeypatch.setenv("WSOLKIT_WEIGHTS", str(SHARED / "data"))
    if not (SHARED / "data" / "mobilenet_v2-b0353104.pth").exists():
        pytest.skip("needs torchvision's ImageNet weights of MobileNetV2 beside the clone")
    opened = classifiers.open_classifier(Path("imagenet"), "mobilenet_v2")
    assert (opened.size, len(opened.classes), opened.classes[207]) == (224, 1000, "golden retriever")
    with pytest.raises(CheckpointError, match="`wsolkit data get weights --name resnet18` downloads them"):
        classifiers.open_classifier(Path("imagenet"), "resnet18")
    with pytest.raises(RecipeError, match="mobilenet_v3_large"):
        classifiers.open_classifier(Path("imagenet"), "mobilenet_v3_larg")


def test_pictures_are_prepared_as_the_published_weights_expect(monkeypatch):
    """With random weights, which tell as much about it."""
    monkeypatch.setattr(models, "torchvision_file", lambda published: published)
    monkeypatch.setattr(classifiers, "load_classifier", lambda name, weights: get_model(name, weights=None))
    opened = classifiers.open_classifier(Path("imagenet"), "googlenet")
    assert (opened.network.transform_input, opened.size) == (True, 224)
    assert classifiers.open_classifier(Path("imagenet"), "efficientnet_b1").size == 240
    assert classifiers.open_classifier(Path("imagenet"), "efficientnet_b1", size=224).size == 224
    with pytest.raises(CheckpointError, match="efficientnet_v2_l expects images normalised unlike ImageNet's"):
        classifiers.open_classifier(Path("imagenet"), "efficientnet_v2_l")


def test_sample_pictures_are_those_of_the_data_set(wsolkit, tmp_path):
    code, out, errors = wsolkit("data", "sample", "synthetic_birds", "--out", tmp_path / "photos", "--count", 3)
    assert (code, out) == (0, f"3 pictures of synthetic_birds in {tmp_path / 'photos'}\n"), errors
    data = datasets.open_dataset("synthetic_birds", "test", classifiers.USUAL_SIZE)
    files = sorted((tmp_path / "photos").iterdir())
    assert [file.stem for file in files] == [data[number].image_id for number in (0, 500, 999)]
    assert np.array_equal(np.asarray(Image.open(files[-1])), data[999].image)


def test_from_the_shell(wsolkit, pictures, mini, tmp_path):
    code, out, errors = wsolkit("localize", *pictures, *mini)
    assert code == 0, errors
    assert out.count("box (") == 2
    assert (tmp_path / "out" / "one.png").exists()
    (tmp_path / "a" / "broken.png").write_bytes(b"no picture")
    code, out, errors = wsolkit("localize", *pictures, *mini)
    assert code == 1
    assert f"2 done with mini_vgg at 64 pixels, 1 unreadable; results in {tmp_path / 'out'}" in out
    assert "broken.png is not a picture" in errors
    code, out, _ = wsolkit("localize", tmp_path / "a" / "broken.png", *mini)
    assert (code, "0 done" in out, "nothing written" in out) == (1, True, True)
    code, _, errors = wsolkit("localize", *pictures, *mini, "--target", 5000)
    assert (code, errors) == (2, "Error: target: the model has 4 classes, from 0 to 3; received 5000.\n")
    code, _, errors = wsolkit("localize", tmp_path / "gone", *mini[:-3], tmp_path / "no_weights.pth")
    assert code == 2
    assert "gone does not exist. Name pictures" in errors


def test_odd_pictures_and_names_of_files_are_no_trouble_for_the_shell(wsolkit, mini, tmp_path):
    folder = tmp_path / "ünï çødé 図"
    folder.mkdir()
    for name, shape in (
        ("one.png", (1, 1)),
        ("long.png", (5000, 1)),
        ("w" * 200 + ".png", (9, 9)),
        ("tall.bmp", (1, 70)),
    ):
        Image.new("RGB", shape, "green").save(folder / name)
    Image.new("RGB", (8, 8)).save(os.fsencode(folder) + b"/latin\xe9.png")
    (tmp_path / "names.txt").write_text("\ufeffα\r\n図\r\nc\r\nd\r\n\r\n", encoding="utf-8", newline="")
    code, out, errors = wsolkit("localize", folder, *mini, "--classes", tmp_path / "names.txt", "--threshold", 0.99)
    assert (code, errors) == (0, "")
    assert "5 done" in out
    assert wsolkit("localize", folder, *mini, "--size", 16)[0] in (0, 2)


@pytest.mark.parametrize("option", ["--out", "--json"])
def test_where_nothing_can_be_written_is_refused_before_the_work(wsolkit, tmp_path, option):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    wrong = {"--out": ["file", "file/in/it"], "--json": ["folder", "file/x.json"]}[option]
    command = (
        ("localize", "x.jpg", "--weights", "w")
        if option == "--out"
        else ("evaluate", "--score-maps", "s", "--metadata", "m")
    )
    for name in ("", tmp_path / ("x" * 5000), *(tmp_path / each for each in wrong)):
        code, _, errors = wsolkit(*command, option, name)
        assert code == 2
        assert "cannot be written" in errors


def test_the_shells_usual_threshold_is_that_of_decompose():
    assert inspect.signature(your_own.localize).parameters["threshold"].default == decomposition.THRESHOLD
