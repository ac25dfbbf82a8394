"""The cores there are, and worker processes that never outlive the work: they end with their parent."""

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from threading import Thread


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


def _begin(initializer: Callable[[], None] | None) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    if initializer:
        initializer()


def _end_with_parent() -> None:
    connection.wait([parent_process().sentinel])
    os._exit(1)
