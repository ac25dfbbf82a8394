"""Progress bars: in a notebook, in a terminal, or in a file that the batch watches."""

import logging
import os
import re
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TextIO

from tqdm import tqdm as plain_bar
from tqdm.asyncio import tqdm as terminal_bar
from tqdm.auto import tqdm

#: Environment variable that names a file to write bars to instead of showing them.
WATCH_VARIABLE = "WSOLKIT_PROGRESS_FILE"

_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


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
    if watch := os.environ.get(WATCH_VARIABLE):
        return plain_bar(items, file=_watched(watch), ncols=100, **shown)
    in_notebook = tqdm is not terminal_bar
    return tqdm(items, disable=not (in_notebook or sys.stderr.isatty()), **shown)


def log_lines(level: int = logging.INFO) -> None:
    """Write what the package logs to stderr, a line each with its time: for log files, which cannot show bars."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("wsolkit").setLevel(level)


def last_line(watch: Path) -> str:
    """The newest state of the bars written to ``watch``, or an empty text."""
    if not watch.exists():
        return ""
    text = _ESCAPES.sub("", watch.read_text(errors="replace")).replace("\r", "\n")
    return next((line.strip() for line in reversed(text.split("\n")) if line.strip()), "")


@cache
def _watched(path: str) -> TextIO:
    return open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - open as long as the process writes bars
