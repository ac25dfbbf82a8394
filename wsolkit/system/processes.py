"""The cores there are, worker processes that end with their parent, and tasks that wait for one another."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

from wsolkit.errors import WsolkitError


@dataclass(frozen=True)
class Task:
    """A call for a worker process.

    Attributes:
        name: hashable, unique among the tasks at hand.
        call: a module-level function.
        arguments: its arguments.
        needs: names of tasks that must have ended well before; names of no task at hand are not waited for.
        slots: cores that it keeps busy.
    """

    name: Any
    call: Callable[..., Any]
    arguments: tuple
    needs: frozenset = frozenset()
    slots: int = 1


@dataclass(frozen=True)
class Ended:
    """How a task ended.

    Attributes:
        task: the task.
        value: what its call returned.
        error: what it raised, or what a task that it needs raised; it was not called then.
    """

    task: Task
    value: Any = None
    error: BaseException | None = None


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def worker_pool(workers: int, initializer: Callable[[], None] | None = None) -> Iterator[tuple[Executor, Path]]:
    """A pool of fresh processes, each of which ends at once when this process dies, however it dies.

    Args:
        workers: how many.
        initializer: called once in each, a module-level function; None for nothing.

    Yields:
        The pool, and a folder that exists as long as the work is wanted. Tasks look for it, before they begin and
        now and then: an error or Ctrl-C in this process removes it, and waits for the running tasks to notice.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=(initializer,)) as pool,
    ):
        wanted = Path(folder) / "wanted"
        wanted.mkdir()
        try:
            yield pool, wanted
        except BaseException:
            wanted.rmdir()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def run_tasks(
    pool: Executor, tasks: Sequence[Task], slots: int, elsewhere: Mapping[Any, Future] | None = None
) -> Iterator[tuple[list[Ended], list[Task]]]:
    """Run tasks as early as what they need and free slots allow; of those that could run, the first goes first.

    Args:
        pool: where they run.
        tasks: in the order of their importance; what a task needs may stand anywhere.
        slots: of the pool. A task that wants more than there are gets all.
        elsewhere: by name, tasks that need no slot here, since they are done already or run on other machines.

    Yields:
        About every second, the tasks that have ended since and those that are running.
    """
    there = elsewhere or {}
    waiting = [task for task in tasks if task.name not in there]
    done: dict[Any, Ended] = {}
    running = {there[task.name]: task for task in tasks if task.name in there}
    names = {task.name for task in tasks}
    while waiting or running:
        ended = []
        while failed := [Ended(task, error=error) for task in waiting if (error := _failed_need(task, done))]:
            ended += failed
            done |= {each.task.name: each for each in failed}
            waiting = [task for task in waiting if task.name not in done]
        for task in [task for task in waiting if all(need in done for need in task.needs & names)]:
            here = [other for other in running.values() if other.name not in there]
            free = slots - sum(min(other.slots, slots) for other in here)
            # What comes next is not overtaken: a task of many slots would wait for ever.
            if min(task.slots, slots) > free:
                break
            waiting.remove(task)
            running[_submitted(pool, task)] = task
        finished, _ = wait(running, timeout=0 if ended else 1, return_when=FIRST_COMPLETED)
        for future in finished:
            ended.append(_ended(running.pop(future), future))
            done[ended[-1].task.name] = ended[-1]
        yield ended, list(running.values())


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _failed_need(task: Task, done: Mapping[Any, Ended]) -> BaseException | None:
    return next((done[need].error for need in task.needs if need in done and done[need].error), None)


def _submitted(pool: Executor, task: Task) -> Future:
    try:
        return pool.submit(task.call, *task.arguments)
    except BrokenExecutor as error:
        future: Future = Future()
        future.set_exception(error)
        return future


def _ended(task: Task, future: Future) -> Ended:
    error = future.exception()
    if isinstance(error, BrokenExecutor):
        error = WsolkitError(
            "A worker process died, perhaps for want of memory (fewer at once: --jobs or WSOLKIT_JOBS). What was "
            "finished is kept; the same command goes on from there."
        )
    return Ended(task, None if error else future.result(), error)


def _begin(initializer: Callable[[], None] | None) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    if initializer:
        initializer()


def _end_with_parent() -> None:
    if parent := parent_process():
        connection.wait([parent.sentinel])
        os._exit(1)
