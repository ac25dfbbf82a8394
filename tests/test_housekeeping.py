import os
import re
import shutil
import time

import pytest

from tests.conftest import tiny_recipe
from wsolkit.cli import housekeeping
from wsolkit.errors import RecipeError
from wsolkit.training import checkpoints, loop, run_store, warm_stages
from wsolkit.training.machine import Machine
from wsolkit.training.run_store import RunStore


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store with a finished run and one that was stopped."""
    root = tmp_path_factory.mktemp("trained")
    store = RunStore(root / "runs", Machine(device="cpu", cache=root / "cache"))
    done, begun = tiny_recipe(snapshot_epochs=(2,)), tiny_recipe(seed=1)
    store.get(done)
    with pytest.raises(loop.Stopped):
        store.get(begun, should_stop=lambda: store.finished_epochs(begun) >= 1)
    return store.root, done, begun


@pytest.fixture
def two(store, trained):
    """The recipes of a finished and of a stopped run in this test's store, which the shell finds too."""
    root, *recipes = trained
    shutil.copytree(root, store.root)
    return recipes


def problems(store) -> dict[str, str]:
    return {folder.name: " ".join(housekeeping.problems(store, folder)) for folder in housekeeping.folders(store)}


def test_the_list_tells_what_is_done_and_what_is_of_another_version(store, two):
    done, begun = two
    table = housekeeping.listing(store).set_index("run")
    assert table.loc[[done.key, begun.key], "state"].tolist() == ["done", "begun"]
    assert table.loc[[done.key, begun.key], "epochs"].tolist() == ["3/3", "1/3"]
    expected = store.find(done).report().rate("gt_known_loc") * 100
    assert table.loc[done.key, "gt_known_loc"] == pytest.approx(expected, abs=0.005)
    assert table["gt_known_loc"].isna().tolist() == [key != done.key for key in table.index]
    assert problems(store) == {recipe.key: "" for recipe in two}
    store.folder(done).rename(store.root / "0123456789ab")
    assert housekeeping.listing(store).set_index("run").loc["0123456789ab", "state"] == "foreign"


CONTENTS = (b"", b"\xff\x00", b"[1]", b"{}", b"map,metric,value\ncam,x,y\n", None)


@pytest.mark.parametrize("name", ["test-rates.csv", run_store.DONE, checkpoints.HISTORY, run_store.RECIPE])
def test_no_damage_of_one_run_ends_a_command(store, two, wsolkit, name):
    path = store.folder(two[0]) / name
    for content in CONTENTS:
        path.unlink()
        path.mkdir() if content is None else path.write_bytes(content)
        for command in (["list"], ["show", two[0].key], ["compare", two[0].key, two[1].key], ["verify"]):
            code, out, errors = wsolkit("runs", *command)
            assert code in (0, 1, 2), errors
            assert command != ["list"] or two[1].key in out


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (checkpoints.BEST, "altered"),
        (checkpoints.snapshot(2), "altered"),
        ("test-rates.csv", "report cannot be read"),
        (run_store.DONE, "report cannot be read"),
        (run_store.RECIPE, "Not a recipe"),
    ],
)
def test_every_damage_is_found_and_named(store, two, name, problem):
    path = store.folder(two[0]) / name
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content if path.suffix == ".safetensors" else b"")
    found = problems(store)
    assert problem in found[two[0].key]
    assert not found[two[1].key]


def test_a_missing_checkpoint_and_a_changed_recipe_are_found(store, two):
    folder = store.folder(two[0])
    (folder / checkpoints.BEST).unlink()
    text = (folder / run_store.RECIPE).read_text()
    (folder / run_store.RECIPE).write_text(re.sub('"momentum": 0.9', '"momentum": 0.8', text))
    found = problems(store)[folder.name]
    assert "best.safetensors is missing" in found
    assert "has the key" in found


def test_garbage_is_what_nothing_needs_and_runs_stay(store, two):
    done, begun = two
    old, new = (store.folder(begun) / f".x.{age}.partial" for age in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    found = {path: size for path, _, size in housekeeping.garbage(store)}
    resume = {store.folder(done) / name for name in (checkpoints.LAST, checkpoints.PREVIOUS)}
    stages = set((store.root / warm_stages.FOLDER).iterdir())
    assert len(stages) == 2
    assert set(found) == resume | stages | {old}
    assert found[old] == 4
    housekeeping.remove(found)
    assert housekeeping.garbage(store) == []
    assert new.exists()
    assert store.find(done).model() is not None
    assert store.get(begun).info()["epochs_trained"] == 2
    assert not problems(store)[done.key]


def test_a_run_is_found_by_the_beginning_of_its_key(store, two):
    assert housekeeping.folders(store, [two[0].key[:6]]) == [store.folder(two[0])]
    with pytest.raises(RecipeError, match="0 of 2 runs have a key beginning with 'zz'. `wsolkit runs list`"):
        housekeeping.folders(store, ["zz"])
    with pytest.raises(RecipeError, match="2 of 2 runs .*Give more of the key"):
        housekeeping.folders(store, [""])


def test_the_shell_lists_shows_verifies_and_asks_before_it_removes(store, two, wsolkit, monkeypatch):
    done, begun = two
    assert done.key in wsolkit("runs", "list")[1]
    shown = wsolkit("runs", "show", done.key[:8])[1]
    assert "gt_known_loc" in shown
    assert re.search(r"epochs_trained +3 *\n", shown)
    best = store.find(done).report().rate("best_threshold_0.5")
    assert re.search(rf"best_threshold_0.5 +{best:.2} *\n", shown)
    assert re.search(r"data.test +drawing", shown)
    assert re.search(r"epochs +1/3 *\n", wsolkit("runs", "show", begun.key)[1])
    assert wsolkit("runs", "verify")[:2] == (0, "2 runs read, 0 with problems\n")
    monkeypatch.setattr("typer.confirm", lambda question: False)
    code, out, _ = wsolkit("runs", "gc")
    assert (code, "removed" in out) == (0, False)
    assert (store.folder(done) / checkpoints.LAST).exists()
    assert "removed" in wsolkit("runs", "gc", "--yes")[1]
    assert not (store.folder(done) / checkpoints.LAST).exists()
    (store.folder(done) / checkpoints.BEST).write_bytes(b"")
    code, out, errors = wsolkit("runs", "verify", done.key)
    assert (code, out) == (1, "1 runs read, 1 with problems\n")
    assert "best.safetensors" in errors


def test_an_empty_store_is_no_error(tmp_path, wsolkit):
    assert wsolkit("runs", "list")[:2] == (0, "No runs yet.\n")
    assert wsolkit("runs", "verify")[0] == 0
    assert wsolkit("runs", "gc")[0] == 0
    assert not (tmp_path / "runs").exists()


def test_the_list_says_in_which_options_a_run_differs_from_most(store, two):
    done, _ = two
    for number in range(3):
        folder = store.root / f"run{number}"
        folder.mkdir()
        weight = 9.0 if number == 2 else 2.0
        changed = done.changed(seed=number + 10, method_options={"lambda_sim": weight})
        (folder / "recipe.json").write_text(changed.to_json())
    options = housekeeping.listing(store).set_index("run")["options"]
    assert options["run2"] == "lambda_sim=9.0"
    assert options["run0"] == options["run1"]
    assert housekeeping.listing(store)["seed"].dtype == "Int64"
    for number, weight in enumerate((0.3, 0.4)):  # of two that differ neither is the usual one
        (store.root / f"eil{number}").mkdir()
        changed = done.changed(method="eil", method_options={"lambda_erased": weight})
        (store.root / f"eil{number}" / "recipe.json").write_text(changed.to_json())
    options = housekeeping.listing(store).set_index("run")["options"]
    assert options[["eil0", "eil1"]].tolist() == ["lambda_erased=0.3", "lambda_erased=0.4"]


def test_the_list_names_methods_as_the_papers_rows_do(store, two):
    done, _ = two
    weights = ("lambda_drop", "lambda_sim", "lambda_norm")
    expected = {"vanilla": (0.0, 0.0, 0.0), "drop + sim": (1.0, 2.0, 0.0), "sim + norm": (0.0, 0.1, 0.2)}
    changed = {row: dict(zip(weights, values, strict=True)) for row, values in expected.items()}
    recipes = {row: done.changed(method="bridging", method_options=options) for row, options in changed.items()}
    recipes["eil + sim"] = done.changed(method="eil", method_options={"lambda_sim": 1.0})
    recipes["vanilla, for pretraining"] = first = done.changed(method="cam", method_options={})
    recipes["eil"] = done.changed(method="eil", method_options={}, pretrained=first)
    for row, recipe in recipes.items():
        (store.root / row).mkdir()
        (store.root / row / "recipe.json").write_text(recipe.to_json())
    methods = housekeeping.listing(store).set_index("run")["method"]
    assert methods[list(recipes)].to_dict() == {row: row for row in recipes}


def test_two_runs_side_by_side(store, two, wsolkit):
    done, begun = two
    parts = housekeeping.side_by_side(store, [store.folder(done), store.folder(begun)])
    fields, rates, _ = (part.set_index("field") for part in parts.values())
    assert fields.loc["seed"].to_dict() == {done.key: 0, begun.key: 1}
    assert "backbone" not in fields.index
    assert rates.loc["gt_known_loc", done.key] == round(store.find(done).report().rate("gt_known_loc") * 100, 2)
    assert rates.loc["gt_known_loc", begun.key] == ""
    assert "gt_known_loc" in wsolkit("runs", "compare", done.key[:8], begun.key[:8])[1]
