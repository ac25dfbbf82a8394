"""The batch: training runs, then notebooks through papermill, each as soon as what it needs is there."""

import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolkit.errors import NotInProfileError, WsolkitError
from wsolkit.reproduce import gallery, notebooks, pages, planning, up_to_date
from wsolkit.study.study import JOBS_VARIABLE, default_jobs, output_folder
from wsolkit.system import folders
from wsolkit.system.atomic_files import writable_folder
from wsolkit.system.processes import Ended, Task, cores, environment, run_tasks, worker_pool
from wsolkit.system.progress import WATCH_VARIABLE, last_line, progress
from wsolkit.training.engine import Precision
from wsolkit.training.machine import Machine
from wsolkit.training.recipes import Recipe
from wsolkit.training.run_store import RunStore, Submitted, training_task

if TYPE_CHECKING:
    from traitlets.config import Config

    from wsolkit.training.slurm import SlurmCluster

logger = logging.getLogger(__name__)

#: Name under which the project's own kernel is registered.
KERNEL = "wsolkit"

#: Running tasks whose state is shown at the same time.
SHOWN = 4


@dataclass(frozen=True)
class Outcome:
    """How one notebook ended.

    Attributes:
        notebook: its name.
        executed: the executed notebook; if it failed, up to the failing cell.
        seconds: wall time; 0 if it was not executed.
        failure: the failing cell and its error, or why it was not executed; None if all went well.
        skipped: what the profile lacks for it, or None.
        unchanged: whether it was left as it is, because it would come out the same.
        note: something else to know, such as why its runs could not be planned, or None.
    """

    notebook: str
    executed: Path
    seconds: float = 0.0
    failure: str | None = None
    skipped: str | None = None
    unchanged: bool = False
    note: str | None = None


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
    cluster: "SlurmCluster | None" = None,
    precision: Precision = "float32",
    compiled: bool = False,
    again: bool = False,
) -> list[Outcome]:
    """Execute notebooks; each leaves its copy, tables and figures under ``figures/<profile>/``.

    The runs that they want are trained first, each once, and a notebook is executed as soon as its own are there. One
    that cannot be planned trains what it wants by itself.

    Args:
        names: which notebooks; none means all but :data:`wsolkit.reproduce.notebooks.NAMED_ONLY`.
        profile: name of the profile; None means the notebooks' own default.
        parameters: further parameters, each checked against every notebook before anything runs.
        jobs: runs and notebooks at once; None means `wsolkit.study.study.default_jobs`.
        on_done: called with each outcome as it comes.
        cluster: where runs are trained; None trains them here.
        precision: the precision of their training.
        compiled: whether their steps are compiled.
        again: also execute notebooks whose code, parameters and runs are those they were executed with.

    Returns:
        One outcome for each notebook, in order. A failure does not keep the others from running, and a notebook whose
        data set the profile lacks is skipped.

    Raises:
        WsolkitError: if something is wrong before the first notebook runs, or if no run can be trained.
    """
    check_kernel()
    plan = planning.plan(names, profile, parameters)
    given = plan.parameters
    out = writable_folder(output_folder(given["profile"], given.get("out_root"), given.get("pretraining") or 0))
    data_root, device = given.get("data_root"), given.get("device") or "auto"
    where = Path(data_root) if data_root else None
    machine = Machine(where, device, folders.cache_or_off(), precision, compiled=compiled)
    store = RunStore(folders.runs_root(), machine)

    missing = {each.notebook: store.missing(each.recipes) for each in plan.notebooks}
    runs = list(dict.fromkeys(recipe for group in missing.values() for recipe in group))
    _require(runs, machine)
    elsewhere = cluster.train(store, runs) if cluster else {}

    outcomes: dict[Path, Outcome] = {}

    def report(notebook: Path, outcome: Outcome) -> None:
        outcomes[notebook] = outcome
        gallery.write(out, given["profile"], notebooks.find())
        on_done(outcome)

    slots = jobs or default_jobs(machine.torch_device())
    with worker_pool(slots) as (pool, wanted), tempfile.TemporaryDirectory() as watched:
        variables = notebooks.variables(given["profile"]) | {"OMP_NUM_THREADS": str(max(1, cores() // slots))}
        tasks: dict[Recipe | Path, Task] = {}
        for number, each in enumerate(plan.notebooks):
            name, executed = each.notebook.stem, out / each.notebook.name
            if each.parameters is None or each.skipped:
                report(each.notebook, Outcome(name, executed, failure=each.problem, skipped=each.skipped))
                continue
            needed = missing[each.notebook]
            if not (needed or again or each.problem) and up_to_date.holds(each.notebook, executed, each.parameters):
                report(each.notebook, Outcome(name, executed, unchanged=True))
                continue
            tasks |= {recipe: training_task(recipe, store, wanted) for recipe in needed if recipe not in tasks}
            # A kernel trains one run at a time, and leaves the other notebooks their cores, if there are others.
            alone = name in notebooks.LAST or len(plan.notebooks) == 1
            own = variables | {JOBS_VARIABLE: str(slots if alone else 1)}
            job = _Job(each.notebook, executed, each.parameters, own, Path(watched, str(number)), each.problem)
            tasks[each.notebook] = Task(each.notebook, _execute, (job, wanted), frozenset(needed))
        trained, begun = 0, set[Recipe]()
        with progress(title="runs and notebooks", total=len(tasks), unit="task") as bar:
            for ended, running in run_tasks(pool, list(tasks.values()), slots, elsewhere):
                for done in ended:
                    if isinstance(done.task.name, Path):
                        bar.clear()
                        report(done.task.name, done.value or _not_executed(done))
                        continue
                    trained += 1
                    how = f"failed ({done.error})" if done.error else "is there"
                    logger.info("run %d of %d %s: %s", trained, len(runs), how, _named(done.task.name, store))
                for recipe in {task.name for task in running if isinstance(task.name, Recipe)} - begun:
                    logger.info("run begins: %s", _named(recipe, store))
                    begun.add(recipe)
                bar.update(len(ended))
                bar.set_postfix_str(" | ".join(_state(task, store) for task in running[:SHOWN]))
    return [outcomes[each.notebook] for each in plan.notebooks]


def _require(recipes: Iterable[Recipe], machine: Machine) -> None:
    """Find out before anything begins if nothing can be trained; if some runs can, those are.

    Raises:
        WsolkitError: the device, weights or data that the first recipe lacks, if every recipe lacks something.
    """
    lacking = None
    for recipe in {(recipe.dataset, recipe.backbone): recipe for recipe in recipes}.values():
        try:
            machine.require(recipe)
            machine.source(recipe, "test")
            return
        except WsolkitError as error:
            lacking = lacking or error
    if lacking:
        raise lacking


@dataclass(frozen=True)
class _Job:
    """What a worker needs to execute a notebook.

    Attributes:
        notebook: its file.
        executed: where its executed copy goes.
        parameters: what it is given.
        variables: of its kernel's environment.
        bars: the file that its progress bars are written to; the kernel's sockets are named after it.
        problem: why its runs could not be planned, or None.
    """

    notebook: Path
    executed: Path
    parameters: Mapping[str, Any]
    variables: Mapping[str, str]
    bars: Path
    problem: str | None = None


def _not_executed(ended: Ended) -> Outcome:
    """A notebook whose runs could not be trained, or are still being trained elsewhere."""
    job, error = ended.task.arguments[0], ended.error
    if isinstance(error, Submitted):
        return Outcome(job.notebook.stem, job.executed, skipped=str(error))
    kind = "" if isinstance(error, WsolkitError) else f"{type(error).__name__}: "
    return Outcome(job.notebook.stem, job.executed, failure=f"a run that it needs: {kind}{error}")


def _named(recipe: Recipe, store: RunStore) -> str:
    done = f"{store.finished_epochs(recipe)} of {recipe.epochs} epochs"
    return f"{recipe.key}, {recipe.dataset}, {recipe.backbone}, {recipe.label}, seed {recipe.seed}, {done}"


def _state(task: Task, store: RunStore) -> str:
    if isinstance(task.name, Path):
        return f"{task.name.stem} {last_line(task.arguments[0].bars)}".strip()
    return f"{task.name.key} {store.finished_epochs(task.name)}/{task.name.epochs}"


def _execute(job: _Job, wanted: Path) -> Outcome:
    """Execute a notebook in this process; errors of any kind are its outcome."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    if not wanted.exists():
        return Outcome(job.notebook.stem, job.executed, failure="interrupted before it began")
    # After Ctrl-C asyncio would print the traceback of the interrupted cell, and nbclient that a kernel has died.
    for name in ("asyncio", "traitlets"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    start = time.monotonic()
    failure, skipped = None, None
    notes = [f"its runs could not be planned ({job.problem}), but it was executed"] if job.problem else []
    try:
        with environment({**job.variables, WATCH_VARIABLE: str(job.bars)}):
            made = papermill.execute_notebook(
                # papermill fills in what stands in braces.
                *(str(path).replace("{", "{{").replace("}", "}}") for path in (job.notebook, job.executed)),
                dict(job.parameters),
                kernel_name=KERNEL,
                language="python",
                progress_bar=False,
                cwd=str(job.notebook.parent),
                extra_arguments=["--IPKernelApp.log_level=50"],
                config=_connection(job.bars),
            )
        code = [cell for cell in made.cells if cell.cell_type == "code"]
        for number, cell in enumerate(code, 1):
            if any(output.get("ename") == "SystemExit" for output in cell.outputs):
                notes.append(f"cell {number} ended it; {len(code) - number} cells after that were not executed")
    except papermill.PapermillExecutionError as error:
        if error.ename == NotInProfileError.__name__:
            skipped = error.evalue
        else:
            failure = f"cell {error.exec_count}:\n{error.source}\n\n{error.ename}: {error.evalue}"
    except DeadKernelError:
        failure = (
            f"{_last_begun(job.executed)}The kernel died while this cell ran. Memory may have run out (fewer at once: "
            "--jobs 1; smaller batches; the system's log says so), or the cell ended its own process."
        )
    except Exception as error:  # a kernel that does not start, a full disk: the other notebooks still run
        failure = f"papermill: {type(error).__name__}: {error}"
    try:
        if job.executed.exists():
            pages.write_page(job.executed, gallery.PAGE)
            if not (failure or skipped or notes):
                up_to_date.note(job.notebook, job.executed, job.parameters)
    except Exception as error:  # output that no page can show, a full disk
        failure = failure or f"its page: {type(error).__name__}: {error}"
    seconds, note = time.monotonic() - start, "; ".join(notes) or None
    return Outcome(job.notebook.stem, job.executed, seconds, failure, skipped, note=note)


def _last_begun(executed: Path) -> str:
    """The last cell of a notebook that papermill started, with its number among the code cells."""
    cells = notebooks.code_cells(executed)
    begun = [number for number, cell in enumerate(cells) if cell.metadata["papermill"]["start_time"]]
    return f"cell {begun[-1] + 1}:\n{cells[begun[-1]].source}\n\n" if begun else ""


def _connection(bars: Path) -> "Config":
    """How to talk to a kernel: over socket files, because two kernels that start together may pick one port.

    The names of such files are limited; where these would be too long the kernel gets a port after all.
    """
    import zmq
    from traitlets.config import Config

    sockets = f"{bars}-kernel"
    if not zmq.has("ipc") or len(os.fsencode(f"{sockets}-5")) > zmq.IPC_PATH_MAX_LEN:
        return Config()
    return Config({"ConnectionFileMixin": {"transport": "ipc", "ip": sockets}})
