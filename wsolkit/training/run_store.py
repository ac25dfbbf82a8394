"""The run store: a recipe in, a finished run out, trained once, however often it is asked for.

A run's folder is named by its recipe's key and holds ``recipe.json``, ``history.csv``, the checkpoints, and, once it is
finished, the test report and ``run.json``. The kit never deletes or overwrites a finished run.

Recipes that begin alike share their warm stage: the first leaves a copy under ``warm-stages/``, the others continue
from it. Nothing else in a run shows how it began: weights and history are the same to the last bit.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock, Timeout

from wsolkit import models
from wsolkit.errors import DataError, WsolkitError, require_known
from wsolkit.system import plugins
from wsolkit.system.atomic_files import writable_folder, write_file
from wsolkit.system.processes import Task, cores, run_tasks, worker_pool
from wsolkit.system.progress import WATCH_VARIABLE, progress
from wsolkit.training import checkpoints, warm_stages
from wsolkit.training.engine import Engine
from wsolkit.training.evaluation import MAP_KINDS, Evaluation, evaluate
from wsolkit.training.loop import Stopped, train
from wsolkit.training.machine import Machine, cpu_threads
from wsolkit.training.recipes import Recipe

RECIPE, DONE = "recipe.json", "run.json"

#: Parts of the test report, as `wsolkit.training.evaluation.Evaluation` names them; each is ``test-<part>.csv``.
REPORT = ("rates", "images", "curves")


class Submitted(WsolkitError):
    """A run that is being trained elsewhere and is not waited for."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        recipe: what was trained.
        folder: where it is.
        judged: what `report` returns instead of the evaluation in the folder; see `RunStore.rejudged`.
    """

    recipe: Recipe
    folder: Path
    judged: Evaluation | None = field(default=None, compare=False, repr=False)

    def info(self) -> dict:
        """What produced the run: `Machine.provenance`, data, seconds, epochs and images/s of the last attempt."""
        return json.loads((self.folder / DONE).read_text())

    def made(self) -> dict[str, str | int]:
        """What a table's row says about the run behind its number: ``seed, recipe, version, commit``."""
        seed, key, info = self.recipe.seed, self.recipe.key, self.info()
        return {"seed": seed, "recipe": key, "version": info["wsolkit"], "commit": info["commit"]}

    def changed_code(self) -> list[str]:
        """Files of the recipe's method, backbone and data set that have changed since the run was trained."""
        before = self.info().get("code", {})
        return [name for name, value in _code(self.recipe).items() if before.get(name, value) != value]

    def history(self) -> pd.DataFrame:
        """One row an epoch: learning rates, loss terms, rates on train-fullsup."""
        return pd.read_csv(self.folder / checkpoints.HISTORY)

    def selected(self) -> pd.Series:
        """The row of `history` after whose epoch the weights were kept."""
        history = self.history()
        return history.loc[history[checkpoints.judged_by(self.recipe)].idxmax()]

    def report(self) -> Evaluation:
        """The evaluation of the selected weights on the test split."""
        if self.judged is not None:
            return self.judged
        return Evaluation(*(pd.read_csv(self.folder / f"test-{part}.csv") for part in REPORT))

    def model(self, epoch: int | None = None, device: torch.device | str = "cpu") -> models.GapClassifier:
        """The classifier in evaluation mode.

        Args:
            epoch: one of the recipe's snapshot epochs; None means the selected weights.
            device: where it goes.

        Raises:
            RecipeError: if the recipe keeps no snapshot of that epoch.
            CheckpointError: if the checkpoint is damaged or does not fit the recipe.
        """
        if epoch is not None:
            require_known("snapshot epoch", epoch, self.recipe.snapshot_epochs)
        path = self.folder / (checkpoints.BEST if epoch is None else checkpoints.snapshot(epoch))
        tensors, _ = checkpoints.load(path)
        model = self.recipe.network(len(tensors["classifier.bias"]))
        checkpoints.load_into(model, tensors, path)
        return model.eval().to(device)


class RunStore:
    """All runs below one folder."""

    def __init__(self, root: Path, machine: Machine):
        """Open a store; the folder is made with the first run.

        Args:
            root: the store's folder.
            machine: data, device and cache for the runs still to be trained.
        """
        self.root, self.machine = Path(root), machine
        self._fingerprints: dict[tuple[str, str], dict[str, str]] = {}

    @cached_property
    def engine(self) -> Engine:
        """How training steps are taken here; several processes that a launcher started train each run together."""
        return Engine(self.machine.torch_device(), self.machine.precision)

    def folder(self, recipe: Recipe) -> Path:
        """Where a recipe's run is, or would be."""
        return self.root / recipe.key

    def find(self, recipe: Recipe) -> Run | None:
        """The finished run of a recipe, or None."""
        folder = self.folder(recipe)
        return Run(recipe, folder) if (folder / DONE).exists() else None

    def finished_epochs(self, recipe: Recipe) -> int:
        """How many epochs of a recipe's run are done, no matter who trains it."""
        history = self.folder(recipe) / checkpoints.HISTORY
        return max(0, len(history.read_text().splitlines()) - 1) if history.exists() else 0

    def missing(self, recipes: Sequence[Recipe]) -> list[Recipe]:
        """Recipes without a finished run, each once, and before each the recipe that it is pretrained by."""
        found: dict[Recipe, None] = {}
        for recipe in recipes:
            if recipe not in found and not self.find(recipe):
                before = recipe.pretrained
                found |= dict.fromkeys([*(self.missing([before]) if isinstance(before, Recipe) else []), recipe])
        return list(found)

    def get(self, recipe: Recipe, should_stop: Callable[[], bool] = lambda: False) -> Run:
        """The finished run of a recipe, trained here and now if there is none yet.

        The run that it is pretrained by comes first. If another process is training the same recipe, this one waits
        for it, and takes over should the other die.

        Raises:
            WsolkitError: from training; if the store cannot be written; or if the run was made from other data than
                those found here. If device, data or weights are missing, nothing has been written.
        """
        if self.engine.agree(self.find(recipe) is not None):
            return self._checked(Run(recipe, self.folder(recipe)))
        self.machine.require(recipe)
        self._data_of(recipe)
        before = recipe.pretrained
        initial = self.get(before, should_stop).model().state_dict() if isinstance(before, Recipe) else None
        writable_folder(self.folder(recipe))
        with self._lock(recipe, should_stop) if self.engine.main else nullcontext():
            if self.engine.agree(self.find(recipe) is None):
                self._train(recipe, initial, should_stop)
        self.engine.wait()
        return self._checked(Run(recipe, self.folder(recipe)))

    def rejudged(self, run: Run, map_kind: str) -> Run:
        """A run whose report has a kind of map, by its name in `wsolkit.training.evaluation.EVERY_KIND`."""
        if map_kind in MAP_KINDS:
            return run
        model, test = run.model(device=self.machine.torch_device()), self.machine.open(run.recipe, "test")
        return replace(run, judged=evaluate(model, test, run.recipe.threshold_step, (map_kind,), threads=cores()))

    def get_all(self, recipes: Sequence[Recipe], jobs: int = 1) -> list[Run]:
        """The finished runs of several recipes, in their order; missing ones are trained first.

        Args:
            recipes: what is wanted; the same recipe may occur twice.
            jobs: runs trained at once, each in a process of its own.

        Raises:
            WsolkitError: from the first run that fails. Finished runs stay, and the others continue from their last
                epoch at the next call.
        """
        missing = self.missing(recipes)
        if jobs > 1 and len(missing) > 1:
            self._train_in_processes(missing, jobs)
        else:
            for recipe in progress(missing, "runs", unit="run") if missing else ():
                self.get(recipe)
        return [self.get(recipe) for recipe in recipes]

    def _lock(self, recipe: Recipe, should_stop: Callable[[], bool]) -> AbstractContextManager:
        """The lock of a recipe, acquired; while another process holds it, that one's progress is shown.

        The system lifts the lock of a process that dies, so there are no stale locks.
        """
        lock = FileLock(self.root / f"{recipe.key}.lock")
        with suppress(Timeout):
            return lock.acquire(timeout=0)
        with progress(title=f"waiting for {recipe.key}", total=recipe.epochs, unit="epoch") as bar:
            while not should_stop():
                with suppress(Timeout):
                    return lock.acquire(timeout=1)
                bar.update(self.finished_epochs(recipe) - bar.n)
        raise Stopped(f"Stopped while another process trains {recipe.key}.")

    def _checked(self, run: Run) -> Run:
        """The run, if it was made from the data found here: the recipe names the data set, not its content."""
        try:
            here = self._data_of(run.recipe)
        except DataError:
            return run  # a finished run can be looked at on a machine without its data
        before = run.info()["data"]
        if here != before:
            changed = ", ".join(split for split in here if here[split] != before.get(split))
            raise DataError(
                f"Run {run.recipe.key} was trained on other {run.recipe.dataset} data than are found here ({changed}). "
                "Give the data root it was trained on, or use another store for these data (WSOLKIT_RUNS)."
            )
        return run

    def _data_of(self, recipe: Recipe) -> dict[str, str]:
        """Fingerprints of a recipe's data, read once for all recipes that share a data set."""
        data = recipe.dataset, json.dumps(recipe.dataset_options)
        if data not in self._fingerprints:
            self._fingerprints[data] = self.machine.fingerprints(recipe)
        return self._fingerprints[data]

    def _train(self, recipe: Recipe, initial: dict | None, should_stop: Callable[[], bool]) -> None:
        """Train a run, and write its report and what produced it; of several processes, the main one writes."""
        folder, data, engine = self.folder(recipe), self._data_of(recipe), self.engine
        stage = warm_stages.folder_of(self.root, recipe, data, self.machine.precision)
        if engine.main:
            write_file(folder / RECIPE, recipe.to_json())
            warm_stages.begin(folder, recipe, stage)
        engine.wait()  # the others must begin after the same epoch
        start, epochs = time.monotonic(), recipe.epochs - self.finished_epochs(recipe)

        def leave(epoch: int) -> None:
            warm_stages.leave(folder, recipe, stage, epoch)

        model = train(recipe, folder, self.machine, initial, should_stop, leave, engine)
        seconds = time.monotonic() - start
        if not engine.main:
            return
        # On a CPU the other cores train other runs.
        threads = recipe.cpu_threads if engine.device.type == "cpu" else cores()
        with cpu_threads(recipe.cpu_threads):
            test = self.machine.open(recipe, "test")
            report = evaluate(model, test, recipe.threshold_step, tuple(MAP_KINDS), threads=threads)
            made = self.machine.provenance()
        for part in REPORT:
            write_file(folder / f"test-{part}.csv", getattr(report, part).to_csv(index=False))
        info = made | {
            "recipe": recipe.key,
            "processes": engine.world,
            "data": data,
            "code": _code(recipe),
            "seconds": round(seconds, 1),
            "epochs_trained": epochs,
            # Includes the evaluation on train-fullsup after each epoch.
            "images_per_second": round(epochs * len(self.machine.source(recipe, "train-weaksup")) / seconds, 1),
        }
        write_file(folder / DONE, json.dumps(info, indent=2))

    def _train_in_processes(self, recipes: list[Recipe], jobs: int) -> None:
        total = sum(recipe.epochs for recipe in recipes)
        with (
            worker_pool(min(jobs, len(recipes)), [__name__]) as (pool, wanted),
            progress(title=f"{len(recipes)} runs, {jobs} at once", total=total, unit="epoch") as bar,
        ):
            for ended, _ in run_tasks(pool, [training_task(each, self, wanted) for each in recipes], jobs):
                bar.update(sum(map(self.finished_epochs, recipes)) - bar.n)
                for each in ended:
                    if each.error:
                        raise each.error


def _code(recipe: Recipe) -> dict[str, str]:
    """Hashes of the files that a recipe names: its method, backbone and data set."""
    named = recipe.components
    modules = named.method.module, named.backbone.module, named.data.module
    return {"/".join(each.__name__.split(".")[1:]) + ".py": plugins.file_hash(each) for each in modules}


def training_task(recipe: Recipe, store: RunStore, wanted: Path) -> Task:
    """The task of training a recipe; ``wanted`` is the folder of its `wsolkit.system.processes.worker_pool`."""
    before = frozenset([recipe.pretrained] if isinstance(recipe.pretrained, Recipe) else [])
    slots = recipe.cpu_threads if store.machine.torch_device().type == "cpu" else 1
    return Task(recipe, _work, (store.root, store.machine, recipe.to_json(), wanted), before, slots)


def _work(root: Path, machine: Machine, recipe: str, wanted: Path) -> None:
    os.environ[WATCH_VARIABLE] = os.devnull  # no bars: progress is read from the store
    RunStore(root, machine).get(Recipe.from_json(recipe), should_stop=lambda: not wanted.exists())
