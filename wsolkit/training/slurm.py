"""Many runs on a Slurm cluster: one array task for each run that is missing, through submitit.

All state is in the run store and in Slurm's queue, so that any later call, from any machine that sees both, picks up: a
run that is there, or that is queued, is not submitted again. A task trains one recipe by its key; one that was killed,
timed out or requeued goes on from its last epoch, and two tasks of one recipe share its lock.
"""

import json
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import NonNegativeInt, PositiveInt

from wsolkit.errors import TrainingError, WsolkitError
from wsolkit.system.progress import log_lines
from wsolkit.system.registry import parse_options
from wsolkit.system.writing import atomic_file, writable_folder
from wsolkit.training.loop import Machine
from wsolkit.training.recipes import Recipe
from wsolkit.training.run_store import RunStore, Submitted

FOLDER = "slurm"
"""Folder of the run store with what was submitted, and the tasks' logs."""

POLL_SECONDS = 10
REQUEUES = 1000
"""Times that a task may reach its time limit: each goes on where the one before stopped."""


@dataclass(frozen=True)
class Resources:
    """What one task asks Slurm for.

    Attributes:
        partition: name of the partition; None takes the cluster's default.
        minutes: time limit; a run that takes longer is requeued and goes on.
        gpus: GPUs; with 0 it runs on the CPU.
        cpus: cores.
        memory_gb: memory; None takes the partition's default.
        at_once: tasks of one array that may run at the same time.
        more: further options of ``sbatch``, e.g. ``{"account": "vision"}``.
    """

    partition: str | None = None
    minutes: PositiveInt = 24 * 60
    gpus: NonNegativeInt = 1
    cpus: PositiveInt = 8
    memory_gb: PositiveInt | None = None
    at_once: PositiveInt = 64
    more: Mapping[str, str] = field(default_factory=dict)


def read_resources(partition: str | None, settings: Mapping[str, Any]) -> Resources:
    """Resources from the shell's settings; names that `Resources` does not have are options of ``sbatch``.

    Raises:
        RecipeError: for a value of the wrong type or out of range.
    """
    own = {each.name for each in fields(Resources)} - {"partition", "more"}
    given = {name: value for name, value in settings.items() if name in own}
    more = {name: str(value) for name, value in settings.items() if name not in own}
    return parse_options(Resources, {"partition": partition, **given, "more": more}, "--slurm")


@dataclass(frozen=True)
class TrainTask:
    """What an array task runs; submitit pickles it, and asks for `checkpoint` before Slurm ends it."""

    root: Path
    machine: Machine
    recipe: str

    def __call__(self) -> str:
        """Train the recipe, or go on with it; its key. The task's log gets a line an epoch."""
        log_lines()
        return RunStore(self.root, self.machine).get(Recipe.from_json(self.recipe)).recipe.key

    def checkpoint(self):  # noqa: ANN201 - submitit is imported only where it is used
        """Queue the same task again: the run's own checkpoints say where it goes on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True)
class SlurmCluster:
    """Trains the runs of a batch on Slurm; see `wsolkit.batch.runner.reproduce`.

    Attributes:
        resources: of each task.
        wait: whether the batch waits for the runs; without, a later call picks them up.
    """

    resources: Resources
    wait: bool = True

    def train(self, store: RunStore, recipes: Sequence[Recipe]) -> dict[Recipe, Future]:
        """Submit what is missing; futures of all runs."""
        tasks = submit(store, recipes, self.resources) if recipes else {}
        if self.wait:
            return follow(store, tasks)
        futures: dict[Recipe, Future] = {recipe: Future() for recipe in tasks}
        message = f"{len(tasks)} runs are on Slurm; the same command goes on when they are there."
        for future in futures.values():
            future.set_exception(Submitted(message))
        return futures


def submit(store: RunStore, recipes: Sequence[Recipe], resources: Resources) -> dict[Recipe, str]:
    """Submit what has no run and is not queued; what others are pretrained by runs before them.

    Args:
        store: the store, on a file system that all nodes share.
        recipes: from `RunStore.missing`.
        resources: of each task.

    Returns:
        By recipe, the Slurm task that trains it, e.g. ``"1234_5"``, submitted now or before.

    Raises:
        WsolkitError: if submitit or Slurm is not there, or Slurm refuses.
    """
    folder = writable_folder(store.root / FOLDER)
    with FileLock(folder / "submit.lock"):
        queued = _queued(folder)
        known = {recipe: queued[recipe.key] for recipe in recipes if recipe.key in queued}
        for wave in _waves([recipe for recipe in recipes if recipe not in known]):
            before = [known[recipe.pretrained] for recipe in wave if recipe.pretrained in known]
            known |= _submit_array(store, folder, wave, resources, before)
        return known


def follow(store: RunStore, tasks: Mapping[Recipe, str], poll_seconds: float | None = None) -> dict[Recipe, Future]:
    """Futures of the runs of submitted tasks; they fail where a task has left the queue and there is no run.

    Args:
        store: the store.
        tasks: from `submit`.
        poll_seconds: time between two looks at the store and the queue; None means :data:`POLL_SECONDS`.
    """
    futures: dict[Recipe, Future] = {recipe: Future() for recipe in tasks}
    threading.Thread(target=_poll, args=(store, tasks, futures, poll_seconds or POLL_SECONDS), daemon=True).start()
    return futures


def _poll(store: RunStore, tasks: Mapping[Recipe, str], futures: Mapping[Recipe, Future], seconds: float) -> None:
    gone: set[Recipe] = set()
    while waiting := [recipe for recipe, future in futures.items() if not future.done()]:
        try:
            alive = _alive()
        except WsolkitError:
            alive = None  # a controller that is busy answers later
        for recipe in waiting:
            if run := store.find(recipe):
                futures[recipe].set_result(run)
            elif alive is not None and tasks[recipe] not in alive:
                # Shared file systems show a file late: a task is given up at the second look.
                if recipe in gone:
                    futures[recipe].set_exception(_ended_without_run(store, recipe, tasks[recipe]))
                gone.add(recipe)
        time.sleep(seconds)


def _ended_without_run(store: RunStore, recipe: Recipe, task: str) -> TrainingError:
    return TrainingError(
        f"Slurm task {task} ended, and run {recipe.key} is not finished ({store.finished_epochs(recipe)} of "
        f"{recipe.epochs} epochs). See {store.root / FOLDER / f'{task}_0_log.err'}; the same command submits it again."
    )


def _waves(recipes: Sequence[Recipe]) -> Iterable[list[Recipe]]:
    """Recipes in waves such that all that a wave is pretrained by lies in earlier ones."""
    left = list(recipes)
    while left:
        ready = [recipe for recipe in left if recipe.pretrained not in left]
        yield ready
        left = [recipe for recipe in left if recipe not in ready]


def _submit_array(
    store: RunStore, folder: Path, recipes: Sequence[Recipe], resources: Resources, before: Sequence[str]
) -> dict[Recipe, str]:
    try:
        import submitit

        executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=REQUEUES)
    except ImportError:
        raise WsolkitError("Slurm is reached through submitit: pip install 'wsolkit[cluster]'.") from None
    except RuntimeError as error:
        raise WsolkitError(f"There is no Slurm here: {error}. Call this on a login node of the cluster.") from error
    more = dict(resources.more)
    if before:
        # A failed pretraining does not block: the first task that needs it tries it again.
        more["dependency"] = ":".join(["afterany", *dict.fromkeys(before)])
    asked = {
        "name": "wsolkit",
        "timeout_min": resources.minutes,
        "gpus_per_node": resources.gpus or None,
        "cpus_per_task": resources.cpus,
        "mem_gb": resources.memory_gb,
        "slurm_partition": resources.partition,
        "slurm_array_parallelism": resources.at_once,
        "slurm_additional_parameters": more,
    }
    executor.update_parameters(**{name: value for name, value in asked.items() if value is not None})
    tasks = [TrainTask(store.root.resolve(), store.machine, recipe.to_json()) for recipe in recipes]
    try:
        with executor.batch():
            jobs = [executor.submit(task) for task in tasks]
    except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError) as error:
        last = str(error).strip().splitlines()[-1][:200]
        raise WsolkitError(f"sbatch took no task: {last}. `wsolkit doctor` looks at the cluster.") from error
    found = {recipe: job.job_id for recipe, job in zip(recipes, jobs, strict=True)}
    with atomic_file(folder / f"{jobs[0].job_id.split('_')[0]}.json") as partial:
        partial.write_text(json.dumps({recipe.key: task for recipe, task in found.items()}, indent=2))
    return found


def _queued(folder: Path) -> dict[str, str]:
    """By recipe key, the tasks in the queue that were submitted for this store."""
    records = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    if not records:
        return {}
    alive = _alive()
    return {key: task for record in records for key, task in record.items() if task in alive}


def _alive() -> set[str]:
    """All of the user's tasks that wait, run or are being requeued."""
    command = ["squeue", "--noheader", "--array", "--me", "--states=all", "--format=%F_%K|%A|%T"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except FileNotFoundError:
        raise WsolkitError("There is no Slurm here: squeue was not found.") from None
    except subprocess.SubprocessError as error:
        raise WsolkitError(f"squeue failed: {error}") from error
    found = set()
    for line in result.stdout.split():
        task, job, state = line.split("|")
        if state not in ENDED:
            found |= {task, job}
    return found


ENDED = frozenset({"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "DEADLINE", "OUT_OF_MEMORY", "BOOT_FAIL"})
"""States of tasks that do not come back by themselves; Slurm requeues those of a failed node."""
