"""The batch: notebooks through papermill, with strict parameters, progress, and the failing cell where one fails."""

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from wsolkit import gallery, paths
from wsolkit.errors import DataError, NotInProfileError, RecipeError, WsolkitError, unknown
from wsolkit.files import writable_folder
from wsolkit.plugins import explain
from wsolkit.processes import worker_pool
from wsolkit.progress import WATCH_VARIABLE, last_line, progress
from wsolkit.study import JOBS_VARIABLE, chosen_profile, default_jobs
from wsolkit.training import Place

KERNEL = "wsolkit"
"""Name under which the project's own kernel is registered."""

PARAMETER_TYPES: Mapping[str, type | UnionType] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list[int]": list[int],
    "list[float]": list[float],
    "list[str]": list[str],
}
"""Types that a parameter may have; ``None`` always means "the default of the profile"."""


@dataclass(frozen=True)
class Outcome:
    """How one notebook ended.

    Attributes:
        notebook: its name.
        executed: the executed notebook; where it failed, up to the failing cell.
        seconds: wall time.
        failure: the failing cell and its error, or None.
        skipped: what the profile lacks for it, or None.
    """

    notebook: str
    executed: Path
    seconds: float
    failure: str | None = None
    skipped: str | None = None


FIRST, LAST = ("00_tour", "table7_ablation"), ("claims",)
"""What a batch of all notebooks begins with, since it is read first, and ends with, since it needs the rest."""


def find(names: Sequence[str] = ()) -> list[Path]:
    """Notebooks by name, in that order; all of them if none is named, the quickest results first.

    Raises:
        RecipeError: for an unknown name.
        WsolkitError: if there are no notebooks.
    """
    known = {path.stem: path for path in sorted(paths.notebooks_root().glob("*.ipynb"), key=_order)}
    if not known:
        raise WsolkitError(f"No notebook found in {paths.notebooks_root()}. Set WSOLKIT_HOME to the project's folder.")
    for name in names:
        if name not in known:
            raise unknown("notebook", name, known)
    return [known[name] for name in names or known]


def _order(path: Path) -> tuple[int, str]:
    """What is read first, then tables, then figures, then what needs the rest."""
    name = path.stem
    if name in FIRST:
        return FIRST.index(name) - len(FIRST), name
    return 2 if name in LAST else 0 if name.startswith("table") else 1, name


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """``name=value`` texts to parameters; a value is read as JSON where it is JSON, else as text.

    Raises:
        RecipeError: for a text without ``=``.
    """
    parsed = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name.strip():
            raise RecipeError(f"--set {setting!r}: expected name=value, for example --set seeds=[0,1].")
        try:
            parsed[name.strip()] = json.loads(text)
        except ValueError:
            parsed[name.strip()] = text
    return parsed


def check_parameters(notebook: Path, given: Mapping[str, Any]) -> None:
    """Compare parameters with those that a notebook declares.

    Raises:
        RecipeError: for a name that the notebook does not declare, or a value of another type.
    """
    import papermill

    declared = papermill.inspect_notebook(str(notebook))
    for name, value in given.items():
        if name not in declared:
            raise unknown(f"parameter of {notebook.stem}", name, declared)
        kind = declared[name]["inferred_type_name"]
        if kind not in PARAMETER_TYPES:
            raise RecipeError(f"{notebook.stem} declares {name}: {kind}; expected one of {', '.join(PARAMETER_TYPES)}.")
        try:
            TypeAdapter(PARAMETER_TYPES[kind] | None, config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError as error:
            reason = explain(error).split(":", 1)[-1].strip()
            raise RecipeError(f"Parameter {name} = {value!r} of {notebook.stem}: expected {kind} ({reason}).") from None


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
    parallel: int = 1,
    on_done: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Execute notebooks; each leaves its copy, tables and figures under ``figures/<profile>/``.

    Args:
        names: which notebooks; none means all.
        profile: name of the profile; None means the notebooks' own default.
        parameters: further parameters, each checked against every notebook before anything runs.
        parallel: notebooks executed at once.
        on_done: called with each outcome as it comes.

    Returns:
        One outcome a notebook, in order; a failure does not keep the others from running, and a notebook whose data
        set the profile lacks is skipped.

    Raises:
        WsolkitError: if something is wrong before the first notebook runs.
    """
    given = complete(parameters or {}, profile)
    notebooks = find(names)
    for notebook in notebooks:
        check_parameters(notebook, given)
    check_kernel()
    out = writable_folder(Path(given.get("out_root") or paths.figures_root()) / given["profile"])
    jobs = default_jobs(Place(device=given.get("device") or "auto").torch_device())
    environment = {"WSOLKIT_HOME": str(paths.home()), JOBS_VARIABLE: str(max(1, jobs // parallel))}
    with worker_pool(parallel) as (pool, wanted), tempfile.TemporaryDirectory() as watched:
        tasks = {}
        for notebook in notebooks:
            variables = {**environment, WATCH_VARIABLE: str(Path(watched) / notebook.stem)}
            task = pool.submit(_execute, notebook, out / notebook.name, given, variables, wanted)
            tasks[task] = notebook.stem

        def finished(outcome: Outcome) -> None:
            gallery.write(out, given["profile"], find())
            on_done(outcome)

        _follow(tasks, Path(watched), finished)
        return [task.result() for task in tasks]


def complete(parameters: Mapping[str, Any], profile: str | None) -> dict[str, Any]:
    """The parameters with the profile's name and with absolute paths, which mean the same in every process.

    Raises:
        RecipeError: for two profiles, or an unknown one.
        DataError: for a ``data_root`` that is not there.
    """
    named = parameters.get("profile")
    if profile and named and profile != named:
        raise RecipeError(f"Two profiles were given, {profile!r} and {named!r}; give one.")
    given = {**parameters, "profile": chosen_profile(profile or named).name}
    for name in ("data_root", "out_root"):
        if given.get(name) is not None:
            given[name] = str(Path(given[name]).expanduser().resolve())
    if given.get("data_root") and not Path(given["data_root"]).exists():
        raise DataError(f"data_root = {given['data_root']} does not exist. Give the folder or zip of the data.")
    return given


def _follow(tasks: Mapping[Future, str], watched: Path, on_done: Callable[[Outcome], None]) -> None:
    """Wait for all tasks, showing what each running notebook reports."""
    waiting = set(tasks)
    with progress(title="notebooks", total=len(tasks), unit="notebook") as bar:
        while waiting:
            finished, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
            for task in finished:
                bar.clear()
                on_done(task.result())
            bar.update(len(finished))
            states = [f"{tasks[task]}: {line}" for task in waiting if (line := last_line(watched / tasks[task]))]
            bar.set_postfix_str(" | ".join(states))


def _execute(notebook: Path, executed: Path, parameters: dict, variables: Mapping[str, str], wanted: Path) -> Outcome:
    import papermill

    if not wanted.exists():
        return Outcome(notebook.stem, executed, 0.0, "interrupted before it began")
    os.environ.update(variables)
    # After Ctrl-C, asyncio would print the traceback of the cell that was interrupted.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    start = time.monotonic()
    failure, skipped = None, None
    try:
        papermill.execute_notebook(
            str(notebook),
            str(executed),
            parameters,
            kernel_name=KERNEL,
            progress_bar=False,
            cwd=str(notebook.parent),
            extra_arguments=["--IPKernelApp.log_level=40"],
        )
    except papermill.PapermillExecutionError as error:
        if error.ename == NotInProfileError.__name__:
            skipped = error.evalue
        else:
            failure = f"cell {error.exec_count}:\n{error.source}\n\n{error.ename}: {error.evalue}"
    except Exception as error:  # a kernel that dies, a full disk: the other notebooks still run
        failure = f"the kernel: {type(error).__name__}: {error}"
    return Outcome(notebook.stem, executed, time.monotonic() - start, failure, skipped)
