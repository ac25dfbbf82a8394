"""What goes wrong on real machines: killed processes, full disks, damaged files, too little memory."""

import errno
import json
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import stop_server, tiny_recipe, wait_until
from wsolkit import methods
from wsolkit.errors import CheckpointError, DataError, TrainingError, WsolkitError
from wsolkit.system.atomic_files import atomic_file
from wsolkit.system.processes import process_context
from wsolkit.training import checkpoints, loop, run_store, warm_stages
from wsolkit.training.machine import Machine
from wsolkit.training.run_store import RunStore


@pytest.fixture(autouse=True, scope="module")
def own_server():
    """The processes of these tests are forked from a server that has imported what they need."""
    stop_server()
    yield
    stop_server()


def train(root, machine, *recipes) -> None:
    store = RunStore(root, machine)
    for recipe in recipes:
        store.get(recipe)


def begin(store: RunStore, *recipes) -> multiprocessing.Process:
    """A process of its own that trains; nothing is imported anew, so that it begins at once."""
    context = process_context(["tests.test_faults", "torch._dynamo"])
    process = context.Process(target=train, args=(store.root, store.machine, *recipes))
    process.start()
    return process


def files(folder: Path) -> dict[str, bytes]:
    """What the recipe decides, to the last bit."""
    names = (checkpoints.BEST, checkpoints.LAST, checkpoints.PREVIOUS, checkpoints.HISTORY)
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.slow
def test_a_run_killed_twenty_times_ends_in_the_very_same_bits(store, tmp_path):
    """Each kill comes at a random moment: while the data are drawn, in a step, while a checkpoint is written."""
    recipe = tiny_recipe(epochs=60, warm_epochs=3, lr_decay_epochs=(30,))
    chance, epochs = random.Random(5), []
    for _ in range(20):
        before = store.finished_epochs(recipe)
        process = begin(store, recipe)
        target = before + chance.randint(0, 2)
        wait_until(lambda target=target: store.finished_epochs(recipe) >= target)
        time.sleep(chance.uniform(0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        epochs.append(store.finished_epochs(recipe))
    assert len(set(epochs)) > 5, "the kills did not come at different epochs"
    assert epochs[-1] < 60
    resumed = store.get(recipe)
    whole = RunStore(tmp_path / "whole", store.machine).get(recipe)
    assert resumed.info()["epochs_trained"] == 60 - epochs[-1]
    assert files(resumed.folder) == files(whole.folder)


@pytest.mark.slow
def test_eight_processes_that_want_four_recipes_train_each_once(store):
    recipes = [tiny_recipe(seed=seed) for seed in range(4)]
    processes = [begin(store, *recipes[start % 4 :], *recipes[: start % 4]) for start in range(8)]
    for process in processes:
        process.join(240)
        assert process.exitcode == 0
    for recipe in recipes:
        assert store.find(recipe).info()["epochs_trained"] == recipe.epochs


@pytest.mark.slow
def test_who_waits_takes_over_when_the_trainer_dies(store):
    recipe = tiny_recipe(epochs=40)
    trainer = begin(store, recipe)
    wait_until(lambda: store.finished_epochs(recipe) >= 2)
    waiter = begin(store, recipe)
    time.sleep(0.5)
    assert waiter.is_alive()
    os.kill(trainer.pid, signal.SIGKILL)
    waiter.join(240)
    assert waiter.exitcode == 0
    assert 0 < store.find(recipe).info()["epochs_trained"] < 40


def test_a_waiter_can_be_stopped(store, tiny):
    from filelock import FileLock

    store.root.mkdir()
    with FileLock(store.root / f"{tiny.key}.lock"), pytest.raises(TrainingError, match="another process trains"):
        RunStore(store.root, store.machine).get(tiny, should_stop=lambda: True)


def interrupted(store, recipe, after: int) -> Path:
    """A run's folder after so many epochs."""
    with pytest.raises(loop.Stopped):
        store.get(recipe, should_stop=lambda: store.finished_epochs(recipe) >= after)
    return store.folder(recipe)


@pytest.mark.parametrize("damage", ["cut short", "altered", "emptied"])
def test_of_a_damaged_checkpoint_the_older_one_is_used(store, tmp_path, caplog, damage):
    recipe = tiny_recipe(epochs=5)
    folder = interrupted(store, recipe, 3)
    content = bytearray((folder / checkpoints.LAST).read_bytes())
    if damage == "altered":
        content[-1000] ^= 1  # a single bit of a weight
    kept = {"cut short": content[:-100], "altered": content, "emptied": b""}[damage]
    (folder / checkpoints.LAST).write_bytes(kept)
    with caplog.at_level(logging.WARNING, logger="wsolkit.training.checkpoints"):
        resumed = store.get(recipe)
    assert str(folder / checkpoints.LAST) in caplog.text
    assert "Going on from the epoch before" in caplog.text
    whole = RunStore(tmp_path / "whole", store.machine).get(recipe)
    assert files(resumed.folder) == files(whole.folder)


def test_two_damaged_checkpoints_are_an_error_and_stay(store):
    recipe = tiny_recipe(epochs=5)
    folder = interrupted(store, recipe, 3)
    for name in (checkpoints.LAST, checkpoints.PREVIOUS):
        (folder / name).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=checkpoints.PREVIOUS):
        store.get(recipe)
    assert (folder / checkpoints.LAST).read_bytes() == b"nothing"


def test_a_kill_between_two_renames_loses_one_epoch_at_most(store, tmp_path):
    recipe = tiny_recipe(epochs=5)
    folder = interrupted(store, recipe, 3)
    (folder / checkpoints.LAST).rename(folder / checkpoints.PREVIOUS)
    resumed = store.get(recipe)
    assert resumed.info()["epochs_trained"] == 2
    whole = RunStore(tmp_path / "whole", store.machine).get(recipe)
    assert (resumed.folder / checkpoints.BEST).read_bytes() == (whole.folder / checkpoints.BEST).read_bytes()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(store, small_disk, tmp_path):
    recipe = tiny_recipe(epochs=4)
    full = RunStore(small_disk / "runs", store.machine)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(2_000_000))
    with pytest.raises(WsolkitError, match=r"Cannot write .*safetensors: .* MB are free there"):
        full.get(recipe)
    assert not list(full.folder(recipe).glob(".*"))
    filler.unlink()
    smaller = RunStore(tmp_path / "runs", store.machine)
    whole = smaller.get(recipe)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert files(full.get(recipe).folder) == files(whole.folder)


def test_a_read_only_folder_is_said_before_anything_is_trained(store, tiny, small_disk):
    there = RunStore(small_disk / "runs", store.machine)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(WsolkitError, match="Cannot write to .*Read-only file system"):
        there.get(tiny)
    subprocess.run(["mount", "-o", "remount,rw,size=64m", str(small_disk)], check=True)
    assert there.get(tiny).info()["epochs_trained"] == 3


def write_half(path: Path, number: int) -> None:
    with atomic_file(path) as new:
        new.write_text("half")
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_what_cannot_be_written_leaves_the_old_file(tmp_path, number):
    (tmp_path / "file").write_text("old")
    with pytest.raises(WsolkitError, match="Cannot write .*file: .*MB are free"):
        write_half(tmp_path / "file", number)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "file"):
        raise FileNotFoundError(errno.ENOENT, "an image")


def test_out_of_memory_names_the_batch_and_what_to_try(store, tiny, monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(methods.Method, "step", full)
    with pytest.raises(TrainingError, match=r"Out of memory on cpu: epoch 1, step 1, 8 images .* --parts 2"):
        store.get(tiny)


def test_data_that_vanish_before_the_last_evaluation(store, tiny, monkeypatch):
    """Training goes on, since its images lie in the cache; only the test split is still to be read."""
    source = Machine.source

    def gone(machine, recipe, split):
        if split == "test" and checkpoints.begun(store.folder(recipe)):
            raise DataError("The folder of the images is not there any more.")
        return source(machine, recipe, split)

    monkeypatch.setattr(Machine, "source", gone)
    with pytest.raises(DataError, match="not there any more"):
        store.get(tiny)
    assert store.find(tiny) is None
    monkeypatch.undo()
    assert store.get(tiny).info()["epochs_trained"] == 0


def test_an_image_that_cannot_be_read_is_named_and_nothing_half_read_is_taken_for_whole(store, tiny, monkeypatch):
    from wsolkit.datasets import synthetic_birds

    source = synthetic_birds.open_split

    class Broken:
        def __init__(self, *given):
            self.whole = source(*given)

        def __getattr__(self, name):
            return getattr(self.whole, name)

        def __len__(self):
            return len(self.whole)

        def __getitem__(self, index):
            if index == 5:
                raise DataError("Cannot decode bird-5.jpg: truncated.")
            return self.whole[index]

    monkeypatch.setattr(synthetic_birds, "open_split", Broken)
    with pytest.raises(DataError, match=r"bird-5\.jpg"):
        store.get(tiny)
    begun = [path.name for path in store.machine.cache.iterdir() if path.is_dir()]
    assert all(name.startswith(".") for name in begun)
    monkeypatch.undo()
    assert store.get(tiny).info()["epochs_trained"] == 3


def die(*arguments) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_is_an_error_and_the_runs_go_on(store, tiny, monkeypatch):
    other = tiny.changed(seed=1)
    with monkeypatch.context() as patch:
        patch.setattr(run_store, "_work", die)
        with pytest.raises(WsolkitError, match="A worker process died"):
            store.get_all([tiny, other], jobs=2)
    assert len(store.get_all([tiny, other], jobs=2)) == 2


def test_an_altered_header_is_noticed(store, tiny):
    path = store.get(tiny).folder / checkpoints.BEST
    content = path.read_bytes()
    assert json.dumps(tiny.key).encode()[1:-1] in content
    path.write_bytes(content.replace(tiny.key.encode(), b"0" * len(tiny.key), 1))
    with pytest.raises(CheckpointError, match="altered"):
        store.find(tiny).model()


def test_a_damaged_warm_stage_costs_only_time(store, tiny):
    store.get(tiny)
    (stage,) = (store.root / warm_stages.FOLDER).iterdir()
    path = stage / checkpoints.BEST
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.unlink()
    path.write_bytes(content)
    assert store.get(tiny.changed(method_options={"lambda_sim": 2.0})).info()["epochs_trained"] == 3
