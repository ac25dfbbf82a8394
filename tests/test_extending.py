"""The files that docs/extending.md shows are complete: each is put where it says, and trained with."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import wsolkit
from tests.conftest import tiny_recipe
from wsolkit import datasets, methods, models
from wsolkit.errors import DataError
from wsolkit.system import plugins
from wsolkit.training.machine import Machine
from wsolkit.training.recipes import Recipe
from wsolkit.training.run_store import RunStore

PAGE = Path(wsolkit.__file__).resolve().parent.parent / "docs" / "extending.md"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="needs a clone of the project")


@pytest.fixture(autouse=True)
def added(tmp_path, monkeypatch):
    """The page's files, each in a folder that its registry looks into."""
    text = PAGE.read_text()
    shown = re.findall(r"`wsolkit/(\w+)/(\w+)\.py`.*?```python\n(.*?)```", text, re.DOTALL)
    assert [(kind, name) for kind, name, _ in shown] == [
        ("methods", "smoothing"),
        ("models", "small_resnet18"),
        ("datasets", "boxes_csv"),
    ]
    for package, (kind, name, code) in zip((methods, models, datasets), shown, strict=True):
        folder = tmp_path / "added" / kind
        folder.mkdir(parents=True)
        (folder / f"{name}.py").write_text(code)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    plugins.names.cache_clear()
    yield
    plugins.names.cache_clear()


def test_a_method_is_one_file(store, wsolkit, tmp_path):
    code, text, _ = wsolkit("recipe", "--profile", "smoke", "--losses", "none", "--set", "method=smoothing")
    assert code == 0
    recipe = Recipe.from_json(text)
    assert (recipe.method, recipe.method_options) == ("smoothing", {"smoothing": 0.1})
    code, _, errors = wsolkit("recipe", "--set", "method=smoothing", "--set", 'method_options={"smooth": 1}')
    assert code == 2
    assert errors.startswith("Error: Options of method 'smoothing': unknown name 'smooth' (did you mean 'smoothing'?)")
    assert errors.endswith("It takes: smoothing.\n")
    run = store.get(tiny_recipe(method="smoothing", method_options={"smoothing": 0.5}))
    assert run.history()["loss_ce"].iloc[-1] > store.get(tiny_recipe(method="cam")).history()["loss_ce"].iloc[-1]


def test_a_file_that_is_not_complete_is_named(tmp_path, wsolkit):
    (tmp_path / "added" / "methods" / "half.py").write_text("Options = None")
    plugins.names.cache_clear()
    code, _, errors = wsolkit("recipe", "--set", "method=half")
    assert code == 2
    assert "half.py lacks step; docs/extending.md shows" in errors


def test_the_papers_terms_and_a_method_of_ones_own_exclude_each_other(wsolkit):
    code, _, errors = wsolkit("recipe", "--losses", "drop,sim", "--set", "method=smoothing")
    assert code == 2
    assert "--losses drop,sim" in errors


def test_a_backbone_is_one_file(store, wsolkit):
    given = ("recipe", "--profile", "smoke", "--set", "backbone=small_resnet18", "--set", "pretrained=null")
    code, text, _ = wsolkit(*given)
    assert code == 0
    assert Recipe.from_json(text).pretrained is None
    run = store.get(tiny_recipe(backbone="small_resnet18", epochs=1, lr_decay_epochs=()))
    assert run.model().classifier.in_features == 512


def test_a_data_set_is_one_file(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train-weaksup", 16), ("train-fullsup", 6), ("test", 6)):
        lines = []
        for number in range(count):
            file = f"{split}-{number}.png"
            Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(tmp_path / file)
            lines.append(f"{file},{'ab'[number % 2]},6,4,30,20")
        (tmp_path / f"{split}.csv").write_text("\n".join(lines))
    store = RunStore(tmp_path / "runs", Machine(data_root=tmp_path, device="cpu"))
    run = store.get(tiny_recipe(dataset="boxes_csv", dataset_options={}))
    assert run.report().rate("gt_known_loc") >= 0
    sample = datasets.open_dataset("boxes_csv", "test", 30, {}, tmp_path)[0]
    assert sample.boxes.tolist() == [[3, 3, 15, 15]]
    assert sample.image.shape == (30, 30, 3)
    (tmp_path / "test-0.png").unlink()
    with pytest.raises(DataError, match="test-0.png, which test.csv names"):
        datasets.open_dataset("boxes_csv", "test", 30, {}, tmp_path)[0]
