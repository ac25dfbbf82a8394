"""Many notebooks at once: planned, executed by papermill, and shown on one page."""

from typing import Any

from wsolkit.system.processes import process_context

#: What notebooks import, whether they are planned or executed, and their training.
MODULES = ("wsolkit.study.claims", "wsolkit.study.explorer", "wsolkit.reproduce.runner", "torchvision")


def begin_processes() -> Any:
    """How the processes of a batch begin; see `wsolkit.system.processes.process_context`.

    A command calls it first, so that :data:`MODULES` are imported for them while it imports the same for itself.
    """
    return process_context(MODULES)
