import os
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from wsolkit.processes import worker_pool

SCRIPT = """
import os, sys, time
from wsolkit.processes import worker_pool

if __name__ == "__main__":
    with worker_pool(2) as (pool, wanted):
        print(*{pool.submit(os.getpid).result() for _ in range(8)}, flush=True)
        pool.submit(time.sleep, 600)
        time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_pool_works():
    with worker_pool(2) as (pool, wanted):
        assert wanted.exists()
        assert list(pool.map(abs, [-1, 2])) == [1, 2]


def wait_while(folder: Path) -> None:
    while folder.exists():
        time.sleep(0.01)


def interrupt_while_running(tasks: list[Future], touched: Path) -> None:
    """Start a task that waits to be stopped, queue others behind it, and be interrupted."""
    with worker_pool(1) as (pool, wanted):
        tasks += [pool.submit(wait_while, wanted) for _ in range(3)]
        tasks += [pool.submit(touched.touch) for _ in range(2)]
        while not tasks[0].running():
            time.sleep(0.01)
        raise KeyboardInterrupt


def test_an_interrupt_ends_running_tasks_and_drops_the_others(tmp_path):
    tasks = []
    with pytest.raises(KeyboardInterrupt):
        interrupt_while_running(tasks, tmp_path / "touched")
    assert tasks[0].done()
    assert tasks[-1].cancelled()
    assert not (tmp_path / "touched").exists()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "script.py")], stdout=subprocess.PIPE, text=True)
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert workers
    assert all(alive(pid) for pid in workers)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)
