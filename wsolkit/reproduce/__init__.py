"""Many notebooks at once: planned, executed by papermill, and shown on one page."""

from typing import Any

from wsolkit.system.processes import process_context


def begin_processes() -> Any:
    """How the processes of a batch begin; see `wsolkit.system.processes.process_context`.

    A command calls it first, so that `wsolkit.reproduce.preloaded` is imported for them while the command is importing.
    """
    return process_context([f"{__name__}.preloaded"])
