"""How the command behaves as a command: help, exit codes, errors, tables."""

import re
import subprocess
import sys

import pandas as pd
import pytest
from typer.main import get_command

from wsolkit import cli
from wsolkit.cli import doctor, output
from wsolkit.errors import RecipeError
from wsolkit.system import folders
from wsolkit.training.recipes import Recipe
from wsolkit.training.slurm import SlurmCluster

SCREEN = 40
"""Lines of a terminal window of usual size."""


def commands(group=None, path=()) -> dict[tuple[str, ...], object]:
    found = {}
    for name, command in (group or get_command(cli.app)).commands.items():
        found[*path, name] = command
        if hasattr(command, "commands"):
            found |= commands(command, (*path, name))
    return found


@pytest.mark.parametrize("path", [(), *commands()], ids=" ".join)
def test_every_help_fits_a_screen_and_carries_an_example(path, wsolkit, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = wsolkit(*path, "--help")
    assert code == 0
    assert len(out.splitlines()) <= SCREEN
    group = not path or hasattr(commands()[path], "commands")
    assert "Exit codes" in out if not path else group or "Example: wsolkit" in out


def test_errors_are_a_line_and_faults_two(wsolkit, monkeypatch):
    code, _, errors = wsolkit("runs", "show", "none")
    assert code == 2
    assert errors == "Error: 0 of 0 runs have a key beginning with 'none'. `wsolkit runs list` lists them.\n"

    def fault(data_root):
        raise KeyError("x")

    monkeypatch.setattr(doctor, "examine", fault)
    code, _, errors = wsolkit("doctor")
    assert code == 3
    first, second = errors.splitlines()
    assert re.fullmatch(r"Unexpected KeyError: 'x' \(wsolkit/cli/doctor\.py, line \d+\)", first)
    assert second.startswith("If that file is yours, fix it")


def test_debug_shows_the_traceback():
    command = [sys.executable, "-m", "wsolkit", "--debug", "runs", "show", "none"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "Traceback" in ended.stderr
    assert "RecipeError: 0 of 0 runs" in ended.stderr


def test_usage_errors_and_the_version(wsolkit):
    assert wsolkit("reproduce", "--no-such-option")[0] == 2
    assert wsolkit("--version")[:2] == (0, f"{cli.__version__}\n")


def test_tables_are_drawn_in_a_terminal_and_plain_in_a_log(capsys, monkeypatch):
    seeds = pd.array([1234567, None], dtype="Int64")
    frame = pd.DataFrame({"run": ["0123", "4567"], "images": [12345, 6], "seed": seeds, "gt_known_loc": [61.5, None]})
    output.show_table(frame)
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "run   images       seed  gt_known_loc",
        "0123  12,345  1,234,567          61.5",
        "4567       6",
    ]
    monkeypatch.setenv("FORCE_COLOR", "1")
    output.show_table(frame)
    drawn = capsys.readouterr().out
    assert "\x1b[1m" in drawn
    assert "gt_known_loc" in drawn
    assert "nan" not in drawn


def test_completion_knows_notebooks():
    from wsolkit.cli.options import notebook_names

    assert set(notebook_names("table")) == {path.stem for path in folders.notebooks_root().glob("table*.ipynb")}


def test_slurm_settings_are_checked_and_the_rest_is_for_sbatch():
    given = {"minutes": 60, "memory_gb": 32, "account": "vision", "nice": 5}
    expected = SlurmCluster("gpu", 60, memory_gb=32, more={"account": "vision", "nice": "5"})
    assert SlurmCluster.from_settings("gpu", given) == expected
    with pytest.raises(RecipeError, match="--slurm.*minutes"):
        SlurmCluster.from_settings(None, {"minutes": "long"})
    with pytest.raises(RecipeError, match="--slurm.*gpus"):
        SlurmCluster.from_settings(None, {"gpus": -1})


def test_a_recipe_can_be_made_shorter(wsolkit):
    code, text, _ = wsolkit("recipe", "--set", "epochs=4", "--set", "lr_decay_epochs=[3]", "--losses", "none")
    assert code == 0
    recipe = Recipe.from_json(text)
    assert (recipe.method, recipe.epochs, recipe.snapshot_epochs, recipe.lr_decay_epochs) == ("cam", 4, (3,), (3,))


def test_a_log_gets_a_line_an_epoch(tiny, tmp_path):
    (tmp_path / "recipe.json").write_text(tiny.to_json())
    command = [sys.executable, "-m", "wsolkit", "train", str(tmp_path / "recipe.json"), "--device", "cpu"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == str(tmp_path / "runs" / tiny.key)
    lines = [line for line in ended.stderr.splitlines() if f"{tiny.key} epoch" in line]
    assert len(lines) == tiny.epochs
    assert f"epoch 1 of {tiny.epochs}: loss_total" in lines[0]


def test_a_recipe_follows_the_paper_or_the_released_code(wsolkit):
    asked = ("recipe", "--profile", "paper", "--backbone", "ResNet50", "--source")
    ours, theirs = (Recipe.from_json(wsolkit(*asked, source)[1]) for source in ("paper", "released"))
    assert (ours.nesterov, theirs.nesterov) == (False, True)
    assert ours.latter_part != theirs.latter_part
    code, _, errors = wsolkit(*asked, "xyz")
    assert (code, errors) == (2, "Error: Unknown hyperparameter source 'xyz'. Known: authors, paper, released.\n")
    code, _, errors = wsolkit("recipe", "--profile", "demo", "--source", "released")
    assert code == 2
    assert "Profile 'demo' has its own hyperparameters" in errors
