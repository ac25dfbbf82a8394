"""Shared fixtures: small recipes, and a store that no other test sees."""

import os
import sys
import time
from pathlib import Path

import pytest
import torch

from wsolkit import cli
from wsolkit.study.study import Study
from wsolkit.system.atomic_files import writable_folder
from wsolkit.training import profiles
from wsolkit.training.machine import Machine
from wsolkit.training.recipes import Recipe, make_recipe
from wsolkit.training.run_store import RunStore

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
"""Where real data lies on the machines that test the project; a user's machine has no such folder."""


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Keep every test away from the project's own runs, cache and figures."""
    for variable, name in (("WSOLKIT_RUNS", "runs"), ("WSOLKIT_CACHE", "cache"), ("WSOLKIT_OUT", "figures")):
        monkeypatch.setenv(variable, str(tmp_path / name))
    for variable in ("WSOLKIT_PROFILE", "WSOLKIT_HOME", "WSOLKIT_WEIGHTS", "WSOLKIT_JOBS"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def wsolkit(monkeypatch, capsys):
    """The shell's command in this process: its exit code, what it printed, and its errors."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["wsolkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(device="cpu", cache=tmp_path / "cache")


@pytest.fixture
def store(tmp_path, machine) -> RunStore:
    return RunStore(tmp_path / "runs", machine)


@pytest.fixture
def study(tmp_path, store) -> Study:
    """A notebook's study in smoke, with a store of its own."""
    return Study("notebook", profiles.get("smoke"), (0, 1), store, writable_folder(tmp_path / "out"), 1)


@pytest.fixture
def tiny() -> Recipe:
    """A recipe that trains in about a second."""
    return tiny_recipe()


def wait_until(holds, seconds: float = 120) -> None:
    """Wait for other processes, and fail where it takes too long."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def stop_server() -> None:
    """End the process from which others are forked, so that the next call starts one as it is asked to."""
    if forkserver := sys.modules.get("multiprocessing.forkserver"):
        forkserver._forkserver._stop()


def tiny_recipe(**changes) -> Recipe:
    fields = {
        "dataset": "synthetic_birds",
        "backbone": "mini_vgg",
        "method": "bridging",
        "dataset_options": {"train_weaksup": 24, "train_fullsup": 8, "test": 8},
        "resize_size": 36,
        "crop_size": 32,
        "epochs": 3,
        "warm_epochs": 1,
        "batch_size": 8,
        "warm_batch_size": 8,
        "lr_former": 0.01,
        "lr_latter": 0.05,
        "lr_decay_epochs": (3,),
        "threshold_step": 0.05,
    }
    return make_recipe(**{**fields, **changes})


@pytest.fixture
def tiny_imagenet_zip() -> Path:
    path = SHARED / "data" / "tiny-imagenet-40.zip"
    if not path.is_file():
        pytest.skip("the photographs of Tiny ImageNet are not on this machine")
    return path


def pytest_report_header() -> str:
    return f"torch {torch.__version__}, {os.cpu_count()} cores"
