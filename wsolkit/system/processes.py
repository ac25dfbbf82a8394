"""The cores there are, worker processes that end with their parent, and tasks that wait for one another."""

import os
import sys
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

#: Variables of worker processes. Under glibc, a large tensor's memory goes back to the system when the tensor ends, and
#: the next one waits until it has come again, page by page. Kept, the same numbers come a tenth to a fifth sooner.
KEEP_PAGES = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40), "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


@dataclass(frozen=True)
class Task:
    """A call for a worker process.

    Attributes:
        name: hashable, unique among the given tasks.
        call: a module-level function.
        arguments: its arguments.
        needs: names of tasks that must have ended well before; names of other tasks are ignored.
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


def process_context(preload: Sequence[str] = ()) -> Any:
    """How processes begin, as a context of `multiprocessing`; to be called by the main thread.

    On Linux they are forked from one server, which has imported some modules and does nothing else, so that they begin
    at once. The first call starts it, with :data:`KEEP_PAGES` and this process's variables, which come first; variables
    that libraries read when they are loaded stay as they were then. Elsewhere each process begins anew, because macOS
    cannot fork safely; so it does where no socket can be made for the server.

    Args:
        preload: the modules, which must not fail, unless the server is there already.
    """
    if sys.platform != "linux":
        return get_context("spawn")
    from multiprocessing import forkserver

    forkserver.set_forkserver_preload(list(preload))
    missing = {name: KEEP_PAGES[name] for name in KEEP_PAGES.keys() - os.environ.keys()}
    try:
        with environment(missing | {"PYTHONSAFEPATH": "1"}):  # it imports nothing from the current folder
            forkserver.ensure_running()
    except OSError:
        return get_context("spawn")
    return get_context("forkserver")


@contextmanager
def worker_pool(workers: int, preload: Sequence[str] = ()) -> Iterator[tuple[Executor, Path]]:
    """A pool of processes, each of which ends at once when this process dies, however it dies.

    Args:
        workers: how many.
        preload: as for `process_context`.

    Yields:
        The pool, and a folder that exists as long as the work is wanted. Tasks look for it, before they begin and
        now and then: an error or Ctrl-C in this process removes it, and waits for the running tasks to notice.
    """
    context, variables = process_context(preload), KEEP_PAGES | dict(os.environ)
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(variables,)) as pool,
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
    """Run tasks as early as their needs and free slots allow; of those that could run, the first in the list starts.

    Args:
        pool: where they run.
        tasks: in order of importance; what a task needs may stand anywhere in the list.
        slots: of the pool. A task that wants more than there are gets all of them.
        elsewhere: by name, tasks that need no slot here because they are already done or run on other machines.

    Yields:
        About every second, the tasks that have ended since, and those that are running.
    """
    there = elsewhere or {}
    names = {task.name for task in tasks}
    waiting = [task for task in tasks if task.name not in there]
    running = {there[task.name]: task for task in tasks if task.name in there}
    done: dict[Any, Ended] = {}
    while waiting or running:
        ended, full = [], False
        free = slots - sum(min(task.slots, slots) for task in running.values() if task.name not in there)
        for task in tuple(waiting):
            before = [done[need] for need in task.needs if need in done]
            failed = next((each for each in before if each.error), None)
            ready = len(before) == len(task.needs & names)
            if failed:
                ended.append(Ended(task, error=failed.error))
            elif ready and not full and min(task.slots, slots) <= free:
                running[_submitted(pool, task)] = task
                free -= min(task.slots, slots)
            else:
                full |= ready  # later tasks must not overtake this one: one of many slots would wait for ever
                continue
            waiting.remove(task)
        finished, _ = wait(running, timeout=0 if ended else 1, return_when=FIRST_COMPLETED)
        ended += [_ended(running.pop(future), future) for future in finished]
        done |= {each.task.name: each for each in ended}
        yield ended, list(running.values())


def call_apart(call: Callable[..., Any], *arguments: Any, seconds: float, context: Any) -> Any:
    """What a function returns in a fresh process of its own, where it can change or break nothing of this one.

    Args:
        call: a module-level function that returns plain values. What it prints is dropped.
        arguments: its arguments.
        seconds: how long to wait for the answer.
        context: from `process_context`.

    Raises:
        WsolkitError: if there is no answer: the call raised, its process ended, or time is up.
    """
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, dict(os.environ), call, arguments), daemon=True)
    try:
        process.start()
    except (EOFError, OSError) as error:
        raise WsolkitError(f"its process did not begin: {error}") from error
    sender.close()
    try:
        # Not the pipe alone: processes that the call left behind may hold its other end open.
        if not connection.wait([receiver, process.sentinel], seconds):
            raise WsolkitError(f"no answer within {seconds:.0f} s")
        if receiver.poll():
            return receiver.recv()
        raise EOFError
    except EOFError:
        process.join()
        raise WsolkitError(f"its process ended with exit code {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
        receiver.close()


def _answer(sender: connection.Connection, variables: Mapping[str, str], call: Callable, arguments: tuple) -> None:
    _begin(variables)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    sender.send(call(*arguments))


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the block."""
    before = {name: os.environ[name] for name in variables if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)
        os.environ.update(before)


def _submitted(pool: Executor, task: Task) -> Future:
    try:
        return pool.submit(task.call, *task.arguments)
    except (BrokenExecutor, EOFError, OSError) as error:
        future: Future = Future()
        future.set_exception(BrokenExecutor(str(error)))
        return future


def _ended(task: Task, future: Future) -> Ended:
    error = future.exception()
    if isinstance(error, BrokenExecutor):
        error = WsolkitError(
            "A worker process died, perhaps because memory ran out (fewer at once: --jobs or WSOLKIT_JOBS). What was "
            "finished is kept; the same command goes on from there."
        )
    return Ended(task, None if error else future.result(), error)


def _begin(variables: Mapping[str, str]) -> None:
    """End with the parent from now on, and have its environment: a forked process has that of its server."""
    Thread(target=_end_with_parent, daemon=True).start()
    os.environ.clear()
    os.environ.update(variables)


def _end_with_parent() -> None:
    if parent := parent_process():
        connection.wait([parent.sentinel])
        os._exit(1)
