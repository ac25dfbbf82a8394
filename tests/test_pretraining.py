import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests.conftest import tiny_recipe
from wsolkit import cli, models
from wsolkit.errors import CheckpointError
from wsolkit.training import loop, profiles
from wsolkit.training.pretraining import publish
from wsolkit.training.recipes import Recipe

BACKBONES = sorted(set(profiles.get("demo").backbones.values()))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_published_weights_are_whole_and_say_how_they_were_made(backbone):
    path = models.pretrained_file(models.build(backbone, 2), "synthetic_objects")
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert Recipe.from_json(json.dumps(record["recipe"])) == profiles.get("demo").pretraining_recipe(backbone)
    assert {"torch", "cpu", "cpu_capability", "commit", "libraries"} <= set(record["made"])
    assert record["rates on train-fullsup"]["fullsup_top1_cls"] > 0.9


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_run_starts_from_published_weights_with_a_classifier_of_its_seed(backbone):
    recipe = profiles.get("smoke").recipe().changed(backbone=backbone)
    first, second = (loop.initial_model(recipe.changed(seed=seed), 10, torch.device("cpu")) for seed in (0, 1))
    published = load_file(models.pretrained_file(first, "synthetic_objects"))
    for name, tensor in first.state_dict().items():
        if name in published:
            assert torch.equal(tensor, published[name])
            assert torch.equal(tensor, second.state_dict()[name])
        else:
            assert name.startswith("classifier.")
    assert not torch.equal(first.classifier.weight, second.classifier.weight)


def test_a_pretraining_is_published_and_read_again(store, tmp_path, monkeypatch):
    """The recipe of the published weights, at smoke size."""
    run = store.get(profiles.get("smoke").pretraining_recipe("mini_vgg"))
    path = publish(run, tmp_path / "weights")
    monkeypatch.setattr("wsolkit.models._weights.PUBLISHED", path.parent)
    model = models.build("mini_vgg", 3, seed=5)
    before = model.classifier.weight.clone()
    models.load_pretrained(model, "synthetic_objects")
    trained = run.model().state_dict()
    body = {name: each for name, each in model.state_dict().items() if not name.startswith("classifier.")}
    assert all(torch.equal(each, trained[name]) for name, each in body.items())
    assert torch.equal(model.classifier.weight, before)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="was altered"):
        models.load_pretrained(model, "synthetic_objects")


def test_weights_that_are_not_published_are_named(store):
    store.machine.require(tiny_recipe(pretrained="synthetic_objects"))
    said = "There are no published weights of 'resnet50' .* There are: mini_resnet-synthetic_objects"
    with pytest.raises(CheckpointError, match=said):
        store.get(tiny_recipe(backbone="resnet50", pretrained="synthetic_objects"))


def test_one_command_makes_them_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("WSOLKIT_RUNS", str(tmp_path / "runs"))
    given = ["pretrain", "mini_vgg", "--profile", "smoke", "--out", str(tmp_path / "weights")]
    done = CliRunner().invoke(cli.app, given)
    assert done.exit_code == 0, done.output
    made = [path.name for path in sorted((tmp_path / "weights").iterdir())]
    assert made == ["mini_vgg-synthetic_objects.json", "mini_vgg-synthetic_objects.safetensors"]
