"""Kernels of another environment, and what a study checks before it begins."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wsolkit import methods
from wsolkit.errors import NotInProfileError, RecipeError, WsolkitError
from wsolkit.reproduce import notebooks, runner
from wsolkit.study import study
from wsolkit.training import profiles


@pytest.mark.parametrize("venv_of_the_same_python", [False, True])
def test_a_kernel_of_another_environment_is_refused(tmp_path, monkeypatch, venv_of_the_same_python):
    python = Path("/usr/bin/true")
    if venv_of_the_same_python:
        python = tmp_path / "other" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.symlink_to(Path(sys.executable).resolve())
    folder = tmp_path / "kernels" / "wsolkit"
    folder.mkdir(parents=True)
    spec = {"argv": [str(python), "-f", "{connection_file}"], "display_name": "other", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    with pytest.raises(WsolkitError, match="another environment. Register it with: .* -m ipykernel install"):
        runner.check_kernel()


def test_a_study_checks_its_parameters(tmp_path):
    with pytest.raises(RecipeError, match="no two alike"):
        study.open_study("x", "smoke", seeds=[1, 1])
    with pytest.raises(RecipeError, match="at least one"):
        study.open_study("x", "smoke", seeds=[])
    with pytest.raises(RecipeError, match="Unknown profile"):
        study.open_study("x", "smok")
    (tmp_path / "file").write_text("")
    with pytest.raises(WsolkitError, match="Cannot write to"):
        study.open_study("x", "smoke", out_root=tmp_path / "file")


def test_blocks_that_the_profile_lacks_are_left_out_with_a_line(request, capsys):
    own = request.getfixturevalue("study")
    photos = dataclasses.replace(own, profile=profiles.get("photos"))
    asked = [("CUB", "VGG16"), ("CUB", "ResNet50"), ("ImageNet-1K", "VGG16")]
    assert photos.available(asked) == [asked[0], asked[2]]
    assert capsys.readouterr().out == "Left out: Profile 'photos' has no ResNet50; these have: demo, paper, smoke.\n"
    assert own.available(asked) == asked
    assert capsys.readouterr().out == ""
    with pytest.raises(NotInProfileError, match="has no ResNet50"):
        photos.available(asked[1:2])


def test_the_rows_of_a_table_that_can_be_trained(request):
    own = request.getfixturevalue("study")  # in smoke, whose rivals are those on CUB with VGG16
    rows = own.rows("4", "CUB", "VGG16")
    assert list(rows) == ["CAM", "HaS", "SPG", "ADL", "CutMix", "HaS + PaS", "CALM", "ADL + IVR", "ours"]
    assert rows["HaS + PaS"] == rows["HaS"]  # judged by another normalisation
    assert list(own.rows("A1", "OpenImages", "VGG16", "all"))[3:5] == ["CAM+PaS", "ADL+IVR"]
    assert list(own.rows("4", "CUB", "VGG16", "none")) == ["CAM", "ours"]
    for backbone in ("VGG16", "ResNet50"):  # the paper prints no CAM for the second
        assert list(own.rows("3", "ImageNet-1K", backbone)) == ["CAM", "ours"]
    every = own.rows("3", "ImageNet-1K", "VGG16", "all")
    assert list(every) == ["CAM", "ACoL", "ADL", "CutMix", "I2C", "EIL", "MEIL", "Bae et al.", "ours"]
    assert [own.recipe(**experiment).method for experiment in every.values()] == [
        *("cam", "acol", "adl", "cutmix", "i2c", "eil", "meil", "tap", "bridging")
    ]
    with pytest.raises(RecipeError, match="methods = 'some': expected 'all', 'none'"):
        own.rows("1", "CUB", "VGG16", "some")


@pytest.mark.parametrize(
    ("gone", "row"), [("acol", "ACoL"), ("adl", "ADL"), ("cutmix", "CutMix"), ("eil", "EIL"), ("meil", "MEIL")]
)
def test_a_method_that_is_deleted_takes_only_its_own_row_along(request, monkeypatch, gone, row):
    own = request.getfixturevalue("study")
    every = own.rows("3", "ImageNet-1K", "VGG16", "all")
    left = tuple(name for name in methods.names() if name != gone)
    monkeypatch.setattr(methods, "names", lambda: left)
    assert own.rows("3", "ImageNet-1K", "VGG16", "all") == {name: each for name, each in every.items() if name != row}


def test_jobs_can_be_set_from_outside(monkeypatch):
    assert study.open_study("x").jobs >= 1
    assert study.default_jobs(torch.device("cuda")) == 1
    monkeypatch.setenv("WSOLKIT_JOBS", "3")
    assert study.open_study("x").jobs == 3
    assert study.open_study("x", jobs=2).jobs == 2
    monkeypatch.setenv("WSOLKIT_JOBS", "many")
    with pytest.raises(RecipeError, match="WSOLKIT_JOBS=many: expected"):
        study.open_study("x")


def test_the_default_profile_can_be_set_from_outside(monkeypatch):
    assert study.open_study("x").profile.name == "demo"
    monkeypatch.setenv("WSOLKIT_PROFILE", "smoke")
    assert study.open_study("x").profile.name == "smoke"
    assert study.open_study("x", "demo").profile.name == "demo"


def test_train_from_the_shell(tiny, tmp_path):
    (tmp_path / "recipe.json").write_text(tiny.to_json())
    command = [sys.executable, "-m", "wsolkit", "train", str(tmp_path / "recipe.json")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    folder = Path(result.stdout.strip())
    assert folder == tmp_path / "runs" / tiny.key
    assert json.loads((folder / "run.json").read_text())["recipe"] == tiny.key


@pytest.mark.parametrize("path", notebooks.find(), ids=lambda path: path.stem)
def test_every_notebook_takes_the_standard_parameters(path):
    standard = {"profile": "smoke", "seeds": [0], "device": "cpu", "data_root": "x", "out_root": "y"}
    notebooks.check_parameters(path, standard)
