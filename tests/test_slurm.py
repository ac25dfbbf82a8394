"""Runs on Slurm. The tests marked ``slurm`` need a real one: ``tests/slurm/up.sh`` starts it on one machine."""

import os
import pickle
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import tiny_recipe, wait_until
from wsolkit.errors import TrainingError, WsolkitError
from wsolkit.reproduce import runner
from wsolkit.training import checkpoints, slurm
from wsolkit.training.run_store import RunStore
from wsolkit.training.slurm import SlurmCluster

CPU_ONLY = SlurmCluster(gpus=0, cpus=1, minutes=20)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.05 if "SLURM_CONF" not in os.environ else 1)


def there_is_slurm() -> bool:
    if "SLURM_CONF" not in os.environ:
        return False
    try:
        return subprocess.run(["sinfo"], capture_output=True, check=False, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


needs_slurm = pytest.mark.skipif(not there_is_slurm(), reason="no Slurm here; tests/slurm/up.sh starts one")


def long_recipe(seed: int, **changes):
    """A run of some seconds."""
    sizes = {"train_weaksup": 240, "train_fullsup": 8, "test": 8}
    return tiny_recipe(seed=seed, epochs=30, warm_epochs=1, lr_decay_epochs=(), dataset_options=sizes, **changes)


def queue(node: str) -> list[str]:
    """Number and array task of what runs on a node."""
    command = ["squeue", "--noheader", "--nodelist", node, "--states=R", "--format=%A %F_%K"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def kill_node(name: str) -> str:
    """End a node as a power cut would, its daemon and all that runs on it at once; the array task that it ran."""
    job, task = queue(name)
    folder = Path(os.environ["SLURM_CONF"]).parent
    doomed = [int((folder / f"slurmd-{name}.pid").read_text())]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if f"slurmstepd: [{job}.".encode() in told[0] or f"SLURM_JOB_ID={job}\0".encode() in told[1]:
            doomed.append(int(process.name))
    for process in doomed:
        os.kill(process, signal.SIGKILL)
    return task


@pytest.mark.slurm
@needs_slurm
def test_a_node_dies_in_the_middle_of_a_sweep_and_every_run_ends_once(store, tmp_path):
    before = tiny_recipe(seed=9, method="cam", method_options={}, dataset="synthetic_objects")
    recipes = [long_recipe(seed, pretrained=before) for seed in range(3)]
    wanted = store.missing(recipes)
    assert wanted == [before, *recipes]
    tasks = slurm.submit(store, wanted, CPU_ONLY)
    assert slurm.submit(store, wanted, CPU_ONLY) == tasks
    futures = CPU_ONLY.train(store, wanted)
    wait_until(lambda: sum(0 < store.finished_epochs(recipe) < 25 for recipe in recipes) >= 2, 180)
    task = kill_node("node1")
    (lost,) = [recipe for recipe, known in tasks.items() if known == task]
    assert store.find(lost) is None
    done = store.finished_epochs(lost)
    for future in futures.values():
        future.result(400)
    assert store.find(lost).info()["epochs_trained"] == lost.epochs - done
    assert store.find(before).info()["epochs_trained"] == before.epochs
    for recipe in set(recipes) - {lost}:
        assert store.find(recipe).info()["epochs_trained"] == recipe.epochs
    alone = RunStore(tmp_path / "alone", store.machine).get(lost)
    for name in (checkpoints.LAST, checkpoints.BEST, checkpoints.HISTORY):
        assert (alone.folder / name).read_bytes() == (store.folder(lost) / name).read_bytes()


@pytest.mark.slurm
@needs_slurm
def test_a_batch_on_slurm_can_be_left_and_taken_up_again(store, tmp_path, monkeypatch):
    """Without waiting, notebooks whose runs are on their way are skipped; the same call later executes them."""
    from tests.test_batch_and_cli import TRAINS, write_notebook

    write_notebook(tmp_path / "home" / "notebooks", "trains", TRAINS.replace("LOSSES", "()"))
    write_notebook(tmp_path / "home" / "notebooks", "good", "print(1)")
    monkeypatch.setenv("WSOLKIT_HOME", str(tmp_path / "home"))
    given = (["trains", "good"], "smoke", {"seeds": [0]}, 1, lambda outcome: None)
    left, plain = runner.reproduce(*given, replace(CPU_ONLY, wait=False))
    assert "2 runs are on Slurm" in left.skipped
    assert plain.skipped is None
    done, _ = runner.reproduce(*given, CPU_ONLY)
    assert (done.skipped, done.failure) == (None, None)
    assert len(list((store.root / slurm.FOLDER).glob("*.json"))) == 2


@pytest.mark.slurm
@needs_slurm
def test_a_task_that_reaches_its_time_limit_is_requeued_and_goes_on(store, tmp_path):
    """Slurm warns 90 s before the end, or up to a minute earlier: of three minutes, at most 90 s are left to the run.

    With two minutes it may warn while the task still imports PyTorch, and kills it then.
    """
    recipe = long_recipe(0).changed(epochs=150)
    futures = replace(CPU_ONLY, minutes=3).train(store, [recipe])
    futures[recipe].result(900)
    log = "".join(path.read_text() for path in (store.root / slurm.FOLDER).glob("*_0_log.*"))
    assert "requeue" in log.lower()
    assert store.find(recipe).info()["epochs_trained"] < recipe.epochs


@pytest.mark.slurm
@needs_slurm
def test_a_task_that_fails_names_its_log(store, tiny):
    broken = tiny.changed(lr_former=1000.0, lr_latter=1000.0, momentum=0.99)
    futures = CPU_ONLY.train(store, [broken])
    with pytest.raises(TrainingError, match=r"ended, and run .* is not finished .* See (.*_0_log\.err)") as failed:
        futures[broken].result(120)
    log = str(failed.value).split("See ")[1].split(";")[0]
    assert "no longer finite" in Path(log).read_text()


@pytest.fixture
def queue_of(monkeypatch):
    """A queue of given tasks, and a Slurm that takes everything."""
    alive, submitted = set(), []

    def take(folder, tasks, cluster, before):
        found = [f"{100 + len(submitted)}_{number}" for number in range(len(tasks))]
        submitted.append(([task.recipe for task in tasks], sorted(set(before))))
        alive.update(found)
        return found

    monkeypatch.setattr(slurm, "_submit_array", take)
    monkeypatch.setattr(slurm, "_alive", lambda: set(alive))
    return alive, submitted


def test_pretraining_goes_first_and_nothing_is_queued_twice(store, tiny, queue_of):
    alive, submitted = queue_of
    before = tiny.changed(method="cam", method_options={})
    recipes = [tiny.changed(seed=seed, pretrained=before) for seed in range(2)]
    tasks = slurm.submit(store, store.missing(recipes), CPU_ONLY)
    assert submitted == [([before], []), (recipes, ["100_0"])]
    assert slurm.submit(store, store.missing(recipes), CPU_ONLY) == tasks
    assert len(submitted) == 2
    alive.discard(tasks[recipes[1]])
    assert slurm.submit(store, store.missing(recipes), CPU_ONLY)[recipes[1]] == "102_0"
    assert submitted[2] == ([recipes[1]], ["100_0"])


def test_a_task_that_left_the_queue_without_a_run_is_an_error(store, tiny, queue_of):
    alive, _ = queue_of
    futures = CPU_ONLY.train(store, [tiny])
    time.sleep(0.3)
    assert not futures[tiny].done()
    alive.clear()
    with pytest.raises(TrainingError, match=r"Slurm task 100_0 ended, and run .* \(0 of 3 epochs\)"):
        futures[tiny].result(20)


def test_a_run_that_appears_ends_the_waiting(store, tiny, queue_of):
    futures = CPU_ONLY.train(store, [tiny])
    run = store.get(tiny)
    assert futures[tiny].result(20) == run


def test_without_slurm_the_error_says_so(store, tiny, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(WsolkitError, match="Slurm did not take the tasks.*srun"):
        slurm.submit(store, [tiny], CPU_ONLY)


def test_the_task_is_what_the_store_does_and_goes_on_when_requeued(store, tiny):
    task = pickle.loads(pickle.dumps(slurm.TrainTask(store.root, store.machine, tiny)))
    task()
    assert store.find(tiny)
    assert task.checkpoint().function is task


def test_tasks_ask_sbatch_for_what_the_cluster_says(store, tiny, tmp_path, monkeypatch):
    """A stand-in for sbatch keeps what it is given."""
    kept = tmp_path / "kept"
    for name, script in (("sbatch", f'cat "$1" > {kept}; echo Submitted batch job 7'), ("srun", "")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    cluster = SlurmCluster("gpu", 60, 2, 4, memory_gb=32, more={"account": "vision"})
    tasks = [slurm.TrainTask(store.root, store.machine, tiny.changed(seed=seed)) for seed in range(2)]
    assert slurm._submit_array(tmp_path, tasks, cluster, ["3_0", "3_0", "4_1"]) == ["7_0", "7_1"]
    asked = dict(re.findall(r"#SBATCH --([\w-]+)=(.*)", kept.read_text()))
    assert asked["array"] == "0-1%2"
    assert asked["dependency"] == "afterany:3_0:4_1"
    names = ("account", "partition", "time", "gpus-per-node", "cpus-per-task", "mem")
    assert [asked[name] for name in names] == ["vision", "gpu", "60", "2", "4", "32GB"]
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 'error: invalid account' >&2; exit 1\n")
    with pytest.raises(WsolkitError, match="Slurm did not take the tasks: .*invalid account"):
        slurm._submit_array(tmp_path, tasks, cluster, [])
