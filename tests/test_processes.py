import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.conftest import stop_server
from wsolkit.errors import WsolkitError
from wsolkit.system import processes
from wsolkit.system.processes import worker_pool

SCRIPT = """
import os, sys, time
from wsolkit.system.processes import worker_pool

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


def wait_while(folder: Path) -> None:
    while folder.exists():
        time.sleep(0.01)


def test_a_server_imports_nothing_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "colorsys.py").write_text("raise SystemExit('taken from the current folder')")
    monkeypatch.chdir(tmp_path)
    stop_server()
    with worker_pool(1, ["colorsys"]) as (pool, _):
        assert pool.submit(os.getenv, "PYTHONSAFEPATH").result() is None
    stop_server()


def test_without_room_for_a_socket_processes_begin_anew(tmp_path, monkeypatch):
    (tmp_path / ("long" * 30)).mkdir()
    stop_server()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 30)))
    monkeypatch.setattr(multiprocessing.process.current_process(), "_config", {})
    assert processes.process_context().get_start_method() == "spawn"


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


@pytest.mark.skipif(sys.platform != "linux", reason="looks at what a process began with in /proc")
def test_workers_keep_their_memory_unless_the_user_says_otherwise(monkeypatch):
    for name in processes.KEEP_PAGES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "7")
    stop_server()
    with worker_pool(1) as (pool, _):
        begun_with = pool.submit(Path("/proc/self/environ").read_bytes).result().decode().split("\0")
        there = dict(zip(processes.KEEP_PAGES, pool.map(os.getenv, processes.KEEP_PAGES), strict=True))
    stop_server()
    expected = processes.KEEP_PAGES | {"MALLOC_MMAP_MAX_": "7"}
    assert there == expected
    assert {f"{name}={value}" for name, value in expected.items()} <= set(begun_with)  # glibc looks at no other
    assert processes.KEEP_PAGES.keys() & os.environ.keys() == {"MALLOC_MMAP_MAX_"}


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


def _note(folder: Path, name: str, fails: bool = False) -> str:
    (folder / f"{name}.begun").write_text(str(time.monotonic_ns()))
    time.sleep(0.1)
    if fails:
        raise ValueError(f"{name} fails")
    (folder / f"{name}.done").write_text(str(time.monotonic_ns()))
    return name


def _tasks(folder: Path, *described: tuple) -> list[processes.Task]:
    return [
        processes.Task(name, _note, (folder, name, fails), frozenset(needs), slots)
        for name, needs, slots, fails in described
    ]


def _run(tasks: list[processes.Task], slots: int) -> dict[str, processes.Ended]:
    with processes.worker_pool(slots) as (pool, _):
        rounds = [ended for ended, _ in processes.run_tasks(pool, tasks, slots)]
    return {each.task.name: each for ended in rounds for each in ended}


def _time(folder: Path, name: str, event: str) -> int:
    return int((folder / f"{name}.{event}").read_text())


def test_tasks_wait_for_what_they_need_and_the_first_ready_goes_first(tmp_path):
    described = [("last", {"a", "b"}, 1, False), ("a", set(), 1, False), ("b", {"elsewhere"}, 1, False)]
    ended = _run(_tasks(tmp_path, *described, ("free", set(), 1, False)), 1)
    assert {name: each.value for name, each in ended.items()} == {name: name for name in ended}
    begun = sorted(("last", "a", "b", "free"), key=lambda name: _time(tmp_path, name, "begun"))
    assert begun == ["a", "b", "last", "free"]


def test_a_task_of_two_slots_runs_alone_in_a_pool_of_two(tmp_path):
    ended = _run(_tasks(tmp_path, ("one", set(), 1, False), ("wide", set(), 5, False), ("two", set(), 1, False)), 2)
    assert len(ended) == 3
    assert _time(tmp_path, "one", "done") < _time(tmp_path, "wide", "begun")
    assert _time(tmp_path, "wide", "done") < _time(tmp_path, "two", "begun")


def test_what_needs_a_failed_task_is_not_called_and_the_rest_is(tmp_path):
    described = [("bad", set(), 1, True), ("after", {"bad"}, 1, False), ("later", {"after"}, 1, False)]
    ended = _run(_tasks(tmp_path, *described, ("good", set(), 1, False)), 1)
    assert {name for name, each in ended.items() if each.error} == {"bad", "after", "later"}
    assert str(ended["later"].error) == "bad fails"
    assert not (tmp_path / "after.begun").exists()
    assert ended["good"].value == "good"


def _answer(what: str) -> str:
    if what == "die":
        os._exit(7)
    if what == "wait":
        time.sleep(600)
    if what == "leave":  # a process that outlives the call, and holds its end of the pipe
        if os.fork() == 0:
            time.sleep(20)
        os._exit(8)
    os.environ["WSOLKIT_ONE"] = "left"
    print("not to be seen")
    return os.environ.pop("WSOLKIT_TWO", what)


def apart(what: str, seconds: float) -> str:
    return processes.call_apart(_answer, what, seconds=seconds, context=processes.process_context())


def test_a_call_apart_answers_and_leaves_nothing(monkeypatch, capfd):
    assert apart("one", 60) == "one"
    monkeypatch.setenv("WSOLKIT_TWO", "of this moment")
    assert apart("two", 60) == "of this moment"
    assert "WSOLKIT_ONE" not in os.environ
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("what", "seconds", "said"),
    [("die", 60, "exit code 7"), ("wait", 2, "no answer within 2 s"), ("leave", 15, "code 8")],
)
def test_a_call_apart_that_gives_no_answer_says_why(what, seconds, said):
    with pytest.raises(WsolkitError, match=said):
        apart(what, seconds)


def test_environment_variables_are_set_back(monkeypatch):
    monkeypatch.setenv("WSOLKIT_ONE", "1")
    with processes.environment({"WSOLKIT_ONE": "2", "WSOLKIT_TWO": "3"}):
        assert (os.environ["WSOLKIT_ONE"], os.environ["WSOLKIT_TWO"]) == ("2", "3")
    assert os.environ["WSOLKIT_ONE"] == "1"
    assert "WSOLKIT_TWO" not in os.environ
