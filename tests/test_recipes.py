import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import tiny_recipe
from wsolkit.errors import RecipeError
from wsolkit.training import profiles
from wsolkit.training.machine import Machine
from wsolkit.training.recipes import Recipe, make_recipe
from wsolkit.training.run_store import RunStore


def test_json_there_and_back(tiny):
    nested = tiny.changed(pretrained=tiny.changed(seed=4))
    again = Recipe.from_json(nested.to_json())
    assert again == nested
    assert again.key == nested.key
    assert isinstance(again.pretrained, Recipe)


def test_defaults_of_options_are_filled_in(tiny):
    assert tiny.method_options["drop_threshold"] == 0.8
    explicit = tiny.changed(method_options={**tiny.method_options})
    assert explicit == tiny
    assert explicit.key == tiny.key


def test_any_change_changes_the_key(tiny):
    changes = [
        {"seed": 1},
        {"epochs": 4},
        {"method": "cam", "method_options": {}},
        {"method_options": {"lambda_sim": 0.6}},
        {"dataset_options": {**tiny.dataset_options, "test": 9}},
        {"pretrained": tiny},
        {"pretrained": "imagenet"},
        {"lr_decay_epochs": (2,)},
    ]
    keys = {tiny.key, *(tiny.changed(**change).key for change in changes)}
    assert len(keys) == 1 + len(changes)
    assert all(len(key) == 12 for key in keys)


def test_the_key_is_stable():
    """The key names run folders: a change here orphans everybody's runs, and must raise recipes.FORMAT."""
    assert tiny_recipe().key == "6f8fde7ae109"
    again = Recipe.from_json(json.dumps(json.loads(tiny_recipe().to_json()), sort_keys=True))
    assert again.key == tiny_recipe().key


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataset": "cub_birds"}, "Unknown dataset 'cub_birds'"),
        ({"backbone": "vgg"}, "Unknown backbone 'vgg'"),
        ({"method": "eils"}, "Unknown method 'eils'"),
        ({"epoch": 3}, "unknown name 'epoch'"),
        ({"epochs": "3"}, "epochs = '3': input should be a valid integer"),
        ({"epochs": 0}, "epochs = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"lr_former": float("nan")}, "lr_former = nan"),
        ({"epochs": 10**12}, "epochs = 1000000000000"),
        ({"crop_size": 65, "resize_size": 64}, "does not fit in resize_size = 64"),
        ({"epochs": 2, "warm_epochs": 3}, "warm_epochs = 3 is more than epochs = 2"),
        ({"pretrained": tiny_recipe(backbone="vgg16")}, "pretrained is a 'vgg16'; expected a 'mini_vgg'"),
        ({"snapshot_epochs": (4,)}, "snapshot_epochs = .4,. go beyond epochs = 3"),
        ({"select_by": "test"}, "select_by = 'test'"),
        ({"method_options": {"lambda": 1}}, "unknown name 'lambda'"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov needs a momentum"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(RecipeError, match=message):
        tiny_recipe(**fields)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"dataset": "synthetic_birds"}', '{"dataset": 3, "backbone": "mini_vgg"}']
)
def test_bad_json_is_one_line(text):
    with pytest.raises(RecipeError, match="Not a recipe") as caught:
        Recipe.from_json(text)
    assert "\n" not in str(caught.value)


def test_unknown_keys_in_json_are_rejected(tiny):
    content = json.loads(tiny.to_json()) | {"gpu": 3}
    with pytest.raises(RecipeError, match="unknown name 'gpu'"):
        Recipe.from_json(json.dumps(content))


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(RecipeError, match=r"missing\.json"):
        Recipe.from_file(tmp_path / "missing.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(RecipeError, match=r"bad\.json: Not a recipe"):
        Recipe.from_file(tmp_path / "bad.json")


def test_recipes_are_frozen_and_hashable(tiny):
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny.seed = 3
    assert len({tiny, tiny_recipe(), tiny_recipe(seed=9)}) == 2


def test_the_step_schedule():
    recipe = make_recipe(dataset="synthetic_birds", backbone="vgg16", lr_former=1.0, lr_latter=2.0)
    assert recipe.learning_rates(1) == (1.0, 2.0)
    assert recipe.learning_rates(40) == (1.0, 2.0)
    assert recipe.learning_rates(41) == pytest.approx((0.2, 0.4))
    assert recipe.learning_rates(61) == pytest.approx((0.04, 0.08))


def test_a_user_changes_fields_and_what_hangs_on_them_follows():
    changes = {"epochs": 5, "warm_epochs": 2, "snapshot_epochs": (1, 5), "lr_decay_epochs": (2, 4)}
    made = tiny_recipe(method="bridging", **changes)
    short = made.altered({"epochs": 2, "method_options.lambda_sim": 7})
    assert (short.epochs, short.warm_epochs, short.snapshot_epochs, short.lr_decay_epochs) == (2, 1, (1,), (2,))
    assert short.method_options == made.method_options | {"lambda_sim": 7.0}
    assert made.altered({"epochs": 2, "warm_epochs": 2}).warm_epochs == 2
    assert made.altered({"method": "cam"}).method_options == {}
    assert made.altered({}) == made
    both = made.altered({"method_options.lambda_sim": 7, "method_options": {"lambda_drop": 1}})
    assert (both.method_options["lambda_sim"], both.method_options["lambda_drop"]) == (7, 1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochz": 1}, r"unknown name 'epochz' \(did you mean 'epochs'\?\)\.$"),
        ({"zzz": 1}, "unknown name 'zzz'. Known: dataset, backbone"),
        ({"epochs.x": 1}, "epochs has no options"),
        ({"lambda_sim": 1}, "lambda_sim is an option of the method. Give method_options.lambda_sim=1"),
        ({"method_options.lambda_simm": 1}, "did you mean 'lambda_sim'"),
        ({"pretrained": {"dataset": "cub", "backbone": "mini_vgg", "epochs": -3}}, "pretrained.epochs = -3"),
    ],
)
def test_a_wrong_change_says_where(settings, said):
    made = make_recipe(dataset="synthetic_birds", backbone="mini_vgg", method="bridging")
    with pytest.raises(RecipeError, match=said) as caught:
        made.altered(settings)
    assert "literal" not in str(caught.value)


STORED = Path(__file__).parent / "stored_run"
"""A run of the profile demo, its weights left out, as the kit wrote it before its modules were moved."""


def test_a_run_stored_by_an_earlier_version_is_found(tmp_path):
    stored = Recipe.from_file(STORED / "recipe.json")
    assert stored.key == json.loads((STORED / "run.json").read_text())["recipe"]
    ours = profiles.get("demo").recipe().changed(select_by="max_box_acc_v2")  # demo kept the best epoch then
    assert ours == stored
    shutil.copytree(STORED, tmp_path / stored.key)
    store = RunStore(tmp_path, Machine(device="cpu"))
    run = store.find(ours)
    assert run is not None
    assert store.machine.fingerprints(stored) == run.info()["data"]
    assert store.missing([stored]) == []
