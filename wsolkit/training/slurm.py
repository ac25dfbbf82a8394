"""Many runs on a Slurm cluster: one array task for each missing run, through submitit.

All state is in the run store and in Slurm's queue, so any later call, from any machine that sees both, carries on: a
finished or queued run is not submitted again. A task trains one recipe by its key. If it is killed, times out or is
requeued, it continues from its last epoch, and two tasks of one recipe share its lock.
"""

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, fields
from pathlib import Path
from threading import Thread
from typing import Any

from filelock import FileLock
from pydantic import NonNegativeInt, PositiveInt

from wsolkit.errors import TrainingError, WsolkitError
from wsolkit.system.atomic_files import writable_folder, write_file
from wsolkit.system.plugins import parse_options
from wsolkit.system.progress import log_lines
from wsolkit.training.machine import Machine
from wsolkit.training.recipes import Recipe
from wsolkit.training.run_store import RunStore, Submitted

#: Folder of the run store with the tasks' logs and records of what was submitted.
FOLDER = "slurm"

POLL_SECONDS = 10

#: Times that a task may reach its time limit; each time it continues where it stopped.
REQUEUES = 1000

#: States of tasks that do not come back by themselves; Slurm requeues those of a failed node.
ENDED = frozenset({"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "DEADLINE", "OUT_OF_MEMORY", "BOOT_FAIL"})


@dataclass(frozen=True)
class SlurmCluster:
    """Trains the runs of a batch on Slurm; see `wsolkit.reproduce.runner.reproduce`.

    Attributes:
        partition: name of the partition; None takes the cluster's default.
        minutes: time limit of a task; a run that takes longer is requeued and continues.
        gpus: GPUs of a task; with 0 it runs on the CPU.
        cpus: cores of a task.
        memory_gb: memory of a task; None takes the partition's default.
        at_once: tasks of one array that may run at the same time.
        more: further options of ``sbatch``, e.g. ``{"account": "vision"}``.
        wait: whether the batch waits for the runs; if not, a later call collects them.
    """

    partition: str | None = None
    minutes: PositiveInt = 24 * 60
    gpus: NonNegativeInt = 1
    cpus: PositiveInt = 8
    memory_gb: PositiveInt | None = None
    at_once: PositiveInt = 64
    more: Mapping[str, str] = field(default_factory=dict)
    wait: bool = True

    @classmethod
    def from_settings(cls, partition: str | None, settings: Mapping[str, Any], wait: bool = True) -> "SlurmCluster":
        """A cluster from the shell's settings; names that are no attribute are options of ``sbatch``.

        Raises:
            RecipeError: for a value of the wrong type or out of range.
        """
        own = {each.name for each in fields(cls)} - {"partition", "more", "wait"}
        given = {name: value for name, value in settings.items() if name in own}
        more = {name: str(value) for name, value in settings.items() if name not in own}
        return parse_options(cls, {"partition": partition, **given, "more": more, "wait": wait}, "--slurm")

    def train(self, store: RunStore, recipes: Sequence[Recipe]) -> dict[Recipe, Future]:
        """Submit what is missing; futures of all runs.

        One fails if its task leaves the queue without finishing the run, or at once if the runs are not waited for.
        """
        tasks = submit(store, recipes, self) if recipes else {}
        futures: dict[Recipe, Future] = {recipe: Future() for recipe in tasks}
        if self.wait:
            Thread(target=_follow, args=(store, tasks, futures), daemon=True).start()
            return futures
        for future in futures.values():
            future.set_exception(
                Submitted(f"{len(tasks)} runs are on Slurm; run the same command again when they are finished.")
            )
        return futures


@dataclass(frozen=True)
class TrainTask:
    """What an array task runs; submitit pickles it, and calls `checkpoint` before Slurm ends it."""

    root: Path
    machine: Machine
    recipe: Recipe

    def __call__(self) -> None:
        """Train the recipe, or continue it. The task's log gets a line an epoch."""
        log_lines()
        RunStore(self.root, self.machine).get(self.recipe)

    def checkpoint(self) -> Any:
        """Queue the same task again: the run's own checkpoints show where to continue."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(store: RunStore, recipes: Sequence[Recipe], cluster: SlurmCluster) -> dict[Recipe, str]:
    """Submit every recipe that is not queued yet; runs that pretrain others run before those.

    Args:
        store: the store, on a file system that all nodes share.
        recipes: from `RunStore.missing`.
        cluster: what each task asks for.

    Returns:
        By recipe, the Slurm task that trains it, e.g. ``"1234_5"``, submitted now or before.

    Raises:
        WsolkitError: if submitit or Slurm is missing, or Slurm refuses.
    """
    folder = writable_folder(store.root / FOLDER)
    with FileLock(folder / "submit.lock"):
        records = [json.loads(path.read_text()) for path in folder.glob("*.json")]
        alive = _alive() if records else set()
        queued = {key: task for record in records for key, task in record.items() if task in alive}
        known = {recipe: queued[recipe.key] for recipe in recipes if recipe.key in queued}
        left = [recipe for recipe in recipes if recipe not in known]
        while wave := [recipe for recipe in left if recipe.pretrained not in left]:
            before = [known[recipe.pretrained] for recipe in wave if recipe.pretrained in known]
            tasks = [TrainTask(store.root.resolve(), store.machine, recipe) for recipe in wave]
            submitted = dict(zip(wave, _submit_array(folder, tasks, cluster, before), strict=True))
            record = json.dumps({recipe.key: task for recipe, task in submitted.items()}, indent=2)
            write_file(folder / f"{submitted[wave[0]].split('_')[0]}.json", record)
            known |= submitted
            left = [recipe for recipe in left if recipe not in known]
        return known


def _submit_array(folder: Path, tasks: Sequence[TrainTask], cluster: SlurmCluster, before: Sequence[str]) -> list[str]:
    """Submit tasks that start when some others have ended; their names, in order."""
    more = dict(cluster.more)
    if before:
        # "afterany": if a pretraining failed, the first task that needs it tries again.
        more["dependency"] = ":".join(["afterany", *dict.fromkeys(before)])
    asked = {
        "name": "wsolkit",
        "timeout_min": cluster.minutes,
        "gpus_per_node": cluster.gpus or None,
        "cpus_per_task": cluster.cpus,
        "mem_gb": cluster.memory_gb,
        "slurm_partition": cluster.partition,
        "slurm_array_parallelism": cluster.at_once,
        "slurm_additional_parameters": more,
    }
    try:
        import submitit

        executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=REQUEUES)
        executor.update_parameters(**{name: value for name, value in asked.items() if value is not None})
        return [job.job_id for job in executor.submit_array(tasks)]
    except ImportError:
        raise WsolkitError("Slurm needs submitit: pip install submitit.") from None
    except (RuntimeError, subprocess.CalledProcessError) as error:
        last = str(error).strip().splitlines()[-1][:200]
        raise WsolkitError(
            f"Slurm did not take the tasks: {last}. Use a login node of the cluster; `wsolkit doctor` examines it."
        ) from error


def _follow(store: RunStore, tasks: Mapping[Recipe, str], futures: Mapping[Recipe, Future]) -> None:
    """Look at the store and the queue until every future is done."""
    gone: set[Recipe] = set()
    while waiting := [recipe for recipe, future in futures.items() if not future.done()]:
        try:
            alive = _alive()
        except WsolkitError:
            alive = set(tasks.values())  # a busy controller answers later
        left = {recipe for recipe in waiting if tasks[recipe] not in alive}
        for recipe in waiting:
            if run := store.find(recipe):
                futures[recipe].set_result(run)
            elif recipe in left & gone:  # shared file systems show a new file late: given up at the second look
                done, task = f"{store.finished_epochs(recipe)} of {recipe.epochs} epochs", tasks[recipe]
                log = store.root / FOLDER / f"{task}_0_log.err"
                futures[recipe].set_exception(
                    TrainingError(
                        f"Slurm task {task} ended, and run {recipe.key} is not finished ({done}). See {log}; the same "
                        "command submits it again."
                    )
                )
        gone = left
        time.sleep(POLL_SECONDS)


def _alive() -> set[str]:
    """All of the user's tasks that are waiting, running or being requeued."""
    command = ["squeue", "--noheader", "--array", "--me", "--states=all", "--format=%F_%K|%A|%T"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except FileNotFoundError:
        raise WsolkitError("No Slurm found: there is no squeue on this machine.") from None
    except subprocess.SubprocessError as error:
        raise WsolkitError(f"squeue failed: {error}") from error
    rows = (line.split("|") for line in result.stdout.split())
    return {name for task, job, state in rows if state not in ENDED for name in (task, job)}
