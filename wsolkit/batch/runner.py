"""The batch: training runs, then notebooks through papermill, each as soon as what it needs is there."""

import itertools
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wsolkit.batch import gallery, notebooks, pages
from wsolkit.errors import NotInProfileError, WsolkitError
from wsolkit.study.study import JOBS_VARIABLE, default_jobs
from wsolkit.system import folders
from wsolkit.system.processes import Ended, Task, cores, environment, run_tasks, worker_pool
from wsolkit.system.progress import WATCH_VARIABLE, last_line, progress
from wsolkit.system.writing import writable_folder
from wsolkit.training.engine import Precision
from wsolkit.training.machine import Machine
from wsolkit.training.recipes import Recipe
from wsolkit.training.run_store import RunStore, Submitted, silence, training_task

if TYPE_CHECKING:
    from traitlets.config import Config

logger = logging.getLogger(__name__)

KERNEL = "wsolkit"
"""Name under which the project's own kernel is registered."""


SHOWN = 4
"""Running tasks whose state is shown at the same time."""


class Cluster(Protocol):
    """Where runs are trained, if not here."""

    def train(self, store: RunStore, recipes: Sequence[Recipe]) -> Mapping[Recipe, Future]:
        """See that recipes are trained; futures that end with their runs, or with `Submitted`."""


@dataclass(frozen=True)
class Outcome:
    """How one notebook ended.

    Attributes:
        notebook: its name.
        executed: the executed notebook; where it failed, up to the failing cell, or not there.
        seconds: wall time.
        failure: the failing cell and its error, or None.
        skipped: what the profile lacks for it, or None.
    """

    notebook: str
    executed: Path
    seconds: float
    failure: str | None = None
    skipped: str | None = None


def check_kernel() -> None:
    """Make sure that notebooks will run in this very environment.

    Raises:
        WsolkitError: if the project's kernel is not registered here, or belongs to another interpreter.
    """
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    remedy = f"Register it with: {sys.executable} -m ipykernel install --sys-prefix --name {KERNEL}"
    try:
        interpreter = KernelSpecManager().get_kernel_spec(KERNEL).argv[0]
    except NoSuchKernel:
        raise WsolkitError(f"No Jupyter kernel {KERNEL!r} is registered. {remedy}") from None
    # Virtual environments of one Python share the interpreter behind their links, so the links' folders are compared.
    if Path(interpreter).parent.resolve() != Path(sys.executable).parent.resolve():
        raise WsolkitError(f"The Jupyter kernel {KERNEL!r} runs {interpreter}, another environment. {remedy}")


def reproduce(
    names: Sequence[str] = (),
    profile: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    on_done: Callable[[Outcome], None] = lambda outcome: None,
    cluster: Cluster | None = None,
    precision: Precision = "float32",
) -> list[Outcome]:
    """Execute notebooks; each leaves its copy, tables and figures under ``figures/<profile>/``.

    The runs that they want are trained first, each once, and a notebook is executed as soon as its own are there. One
    that cannot be planned trains what it wants by itself.

    Args:
        names: which notebooks; none means all.
        profile: name of the profile; None means the notebooks' own default.
        parameters: further parameters, each checked against every notebook before anything runs.
        jobs: runs and notebooks at once; None means `wsolkit.study.study.default_jobs`.
        on_done: called with each outcome as it comes.
        cluster: where runs are trained; None trains them here.
        precision: in which they are trained.

    Returns:
        One outcome a notebook, in order; a failure does not keep the others from running, and a notebook whose data
        set the profile lacks is skipped.

    Raises:
        WsolkitError: if something is wrong before the first notebook runs; where nothing can be trained.
    """
    given = notebooks.complete(parameters or {}, profile)
    chosen = notebooks.find(names)
    for notebook in chosen:
        notebooks.check_parameters(notebook, given)
    check_kernel()
    out = writable_folder(Path(given.get("out_root") or folders.figures_root()) / given["profile"])
    store = RunStore(folders.runs_root(), _place(given, precision))
    slots = jobs or default_jobs(store.machine.torch_device())
    outcomes = {}
    missing = {notebook: store.missing(_planned(notebook, given)) for notebook in chosen}
    _require(itertools.chain(*missing.values()), store.machine)
    elsewhere = cluster.train(store, list(dict.fromkeys(itertools.chain(*missing.values())))) if cluster else {}
    with worker_pool(slots, silence) as (pool, wanted), tempfile.TemporaryDirectory() as watched:
        settings = _Settings(given, out, _variables(slots), Path(watched), wanted)
        tasks = list(_tasks(missing, store, settings))
        begun: set[Recipe] = set()
        trained, runs = 0, sum(isinstance(task.name, Recipe) for task in tasks)
        with progress(title="runs and notebooks", total=len(tasks), unit="task") as bar:
            for ended, running in run_tasks(pool, tasks, slots, elsewhere):
                for each in ended:
                    if isinstance(each.task.name, Recipe):
                        trained += 1
                        how = "is there" if each.error is None else f"failed ({each.error})"
                        logger.info("run %d of %d %s: %s", trained, runs, how, _named(each.task.name, store))
                    else:
                        bar.clear()
                        outcomes[each.task.name] = each.value or _not_executed(each)
                        gallery.write(out, given["profile"], notebooks.find())
                        on_done(outcomes[each.task.name])
                for task in running:
                    if isinstance(task.name, Recipe) and task.name not in begun:
                        begun.add(task.name)
                        logger.info("run begins: %s", _named(task.name, store))
                bar.update(len(ended))
                shown = [_state(task, store, settings) for task in running[:SHOWN]]
                bar.set_postfix_str(" | ".join(shown) + (" ..." if len(running) > SHOWN else ""))
    return [outcomes[notebook] for notebook in chosen]


def _place(parameters: Mapping[str, Any], precision: Precision) -> Machine:
    data_root = parameters.get("data_root")
    device = parameters.get("device") or "auto"
    return Machine(Path(data_root) if data_root else None, device, folders.cache_or_off(), precision)


def _require(recipes: Iterable[Recipe], machine: Machine) -> None:
    """Find out before anything begins that nothing could be trained; where some could, those are.

    Raises:
        WsolkitError: naming the device, weights or data that the first recipe lacks, where every one lacks some.
    """
    failures = []
    needed = {(recipe.dataset, recipe.backbone): recipe for recipe in recipes}
    for recipe in needed.values():
        try:
            machine.require(recipe)
            machine.source(recipe, "test")
        except WsolkitError as error:
            failures.append(error)
    if failures and len(failures) == len(needed):
        raise failures[0]


@dataclass(frozen=True)
class _Settings:
    """What executing any notebook of a batch needs.

    Attributes:
        parameters: of the notebooks.
        out: folder of executed notebooks, tables and figures.
        variables: of the kernels' environment.
        watched: folder of the files that bars are written to, and of the kernels' sockets.
        wanted: folder that is there as long as the batch is.
    """

    parameters: Mapping[str, Any]
    out: Path
    variables: Mapping[str, str]
    watched: Path
    wanted: Path

    def bars(self, notebook: Path) -> Path:
        return self.watched / notebook.stem

    def sockets(self, notebook: Path) -> Path:
        return self.watched / f"{notebook.stem}-kernel"


def _tasks(missing: Mapping[Path, Sequence[Recipe]], store: RunStore, settings: _Settings) -> Iterator[Task]:
    """Before each notebook the runs that it misses, unless an earlier one has asked for them."""
    known: set[Recipe] = set()
    for notebook, recipes in missing.items():
        yield from (training_task(recipe, store, settings.wanted) for recipe in recipes if recipe not in known)
        known.update(recipes)
        yield Task(notebook, _execute, (notebook, settings.out / notebook.name, settings), frozenset(recipes))


def _variables(slots: int) -> dict[str, str]:
    """Environment of a notebook's kernel: it trains nothing beside others, and leaves them their cores."""
    threads = str(max(1, cores() // slots))
    return {"WSOLKIT_HOME": str(folders.home()), JOBS_VARIABLE: "1", "OMP_NUM_THREADS": threads}


def _planned(notebook: Path, parameters: Mapping[str, Any]) -> list[Recipe]:
    """What a notebook will ask for; nothing where that cannot be told, since executing it shows why."""
    try:
        return notebooks.recipes_of(notebook, parameters)
    except Exception:
        return []


def _not_executed(ended: Ended) -> Outcome:
    """A notebook whose runs could not be trained, or are still being trained elsewhere."""
    notebook, executed = ended.task.arguments[:2]
    if isinstance(ended.error, Submitted):
        return Outcome(notebook.stem, executed, 0.0, skipped=str(ended.error))
    kind = "" if isinstance(ended.error, WsolkitError) else f"{type(ended.error).__name__}: "
    return Outcome(notebook.stem, executed, 0.0, f"a run that it needs: {kind}{ended.error}")


def _named(recipe: Recipe, store: RunStore) -> str:
    done = f"{store.finished_epochs(recipe)} of {recipe.epochs} epochs"
    return f"{recipe.key}, {recipe.dataset}, {recipe.backbone}, {recipe.label}, seed {recipe.seed}, {done}"


def _state(task: Task, store: RunStore, settings: _Settings) -> str:
    if isinstance(task.name, Path):
        return f"{task.name.stem} {last_line(settings.bars(task.name))}".strip()
    return f"{task.name.key} {store.finished_epochs(task.name)}/{task.name.epochs}"


def _connection(sockets: Path) -> "Config":
    """How to talk to a kernel: over files, since two that begin together may pick one port; where those can be."""
    import zmq
    from traitlets.config import Config

    if not zmq.has("ipc") or len(f"{sockets}-5") > zmq.IPC_PATH_MAX_LEN:
        return Config()
    return Config({"ConnectionFileMixin": {"transport": "ipc", "ip": str(sockets)}})


def _execute(notebook: Path, executed: Path, settings: _Settings) -> Outcome:
    import papermill

    if not settings.wanted.exists():
        return Outcome(notebook.stem, executed, 0.0, "interrupted before it began")
    # After Ctrl-C, asyncio would print the traceback of the cell that was interrupted.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    start = time.monotonic()
    failure, skipped = None, None
    try:
        with environment({**settings.variables, WATCH_VARIABLE: str(settings.bars(notebook))}):
            papermill.execute_notebook(
                str(notebook),
                str(executed),
                dict(settings.parameters),
                kernel_name=KERNEL,
                progress_bar=False,
                cwd=str(notebook.parent),
                extra_arguments=["--IPKernelApp.log_level=50"],
                config=_connection(settings.sockets(notebook)),
            )
    except papermill.PapermillExecutionError as error:
        if error.ename == NotInProfileError.__name__:
            skipped = error.evalue
        else:
            failure = f"cell {error.exec_count}:\n{error.source}\n\n{error.ename}: {error.evalue}"
    except Exception as error:  # a kernel that dies, a full disk: the other notebooks still run
        failure = f"the kernel: {type(error).__name__}: {error}"
    try:
        if executed.exists():
            pages.write_page(executed, gallery.PAGE)
    except Exception as error:  # a formula that no browser can show, a full disk
        failure = failure or f"its page: {type(error).__name__}: {error}"
    return Outcome(notebook.stem, executed, time.monotonic() - start, failure, skipped)
