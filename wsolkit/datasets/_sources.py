"""What a real data set needs: the parts it is made of, and the archives that can be downloaded."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Archive:
    """A file on the web that anybody may download.

    Attributes:
        name: file name.
        url: address, http or https.
        checksum: ``algorithm:hex digits``, as its publisher states it; the first digits may be enough.
        unpacks_to: the folder inside the archive that is unpacked, under the same name, into the data root.
        licence: the terms of use, or where they are stated.
        bytes: its size; None if it is not known.
    """

    name: str
    url: str
    checksum: str
    unpacks_to: str = ""
    licence: str = ""
    bytes: int | None = None


@dataclass(frozen=True)
class Part:
    """A part of a data set, and how much of it was found.

    Attributes:
        what: what it is, e.g. ``"images of test"``.
        path: where it is looked for.
        expected: how many images, masks or lines make it complete.
        found: how many were found; None if that cannot be told.
        where: where to get it, in words and with an address.
        problem: what is wrong with what was found; empty if nothing is.
    """

    what: str
    path: Path
    expected: int
    found: int | None
    where: str
    problem: str = ""

    @property
    def state(self) -> str:
        """``ok``, ``missing``, ``incomplete``, ``damaged``, or ``unknown`` if ``found`` is None."""
        if self.problem:
            return "damaged"
        if self.found is None:
            return "unknown"
        if self.found >= self.expected:
            return "ok"
        return "incomplete" if self.found else "missing"


@cache
def published(name: str) -> Mapping[str, Any]:
    """What ``sources.toml`` says of a data set; empty if nothing."""
    return tomllib.loads((Path(__file__).parent / "sources.toml").read_text(encoding="utf-8")).get(name, {})


def describe(parts: Sequence[Part]) -> str:
    """A table of parts: one line each, and below what is not complete its problem and where to get it."""
    counts = [f"{'?' if part.found is None else part.found} of {part.expected}" for part in parts]
    columns = [part.state for part in parts], [part.what for part in parts], counts
    states, names, counts = ([cell.ljust(max(map(len, column))) for cell in column] for column in columns)
    lines = []
    for part, state, name, count in zip(parts, states, names, counts, strict=True):
        lines.append(f"{state}  {name}  {count}  {part.path}")
        if part.state != "ok":
            advice = (part.problem, f"Get it: {part.where}")
            lines += [f"{'':{len(state)}}  {text}" for text in advice if text]
    return "\n".join(lines)
