"""Progress bars: in a notebook, in a terminal, or written to a file that the batch watches."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm as plain_bar
from tqdm.auto import tqdm

WATCH_VARIABLE = "WSOLKIT_PROGRESS_FILE"
"""Environment variable that names a file to write bars to instead of showing them."""

_watched = {}


def progress(items: Iterable | None = None, title: str = "", total: int | None = None, unit: str = "it") -> tqdm:
    """A bar that removes itself when done.

    Args:
        items: what to iterate over; None for a bar that is moved by ``update``.
        title: what is being done, as a noun.
        total: number of steps, where ``items`` does not tell.
        unit: what one step is.

    Returns:
        A tqdm bar. Where :data:`WATCH_VARIABLE` is set it writes to that file; where neither a notebook nor a
        terminal would show it, it is silent.
    """
    shown = {"desc": title, "total": total, "unit": unit, "leave": False}
    watch = os.environ.get(WATCH_VARIABLE)
    if watch:
        return plain_bar(items, file=_open_once(watch), **shown)
    silent = issubclass(tqdm, plain_bar) and tqdm.__module__ == "tqdm.asyncio" and not sys.stderr.isatty()
    return tqdm(items, disable=silent, **shown)


def last_line(watch: Path) -> str:
    """The newest state of the bars written to ``watch``, or an empty text."""
    if not watch.exists():
        return ""
    lines = watch.read_text(errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _open_once(path: str):
    if path not in _watched:
        _watched[path] = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - lives as long as the process
    return _watched[path]
