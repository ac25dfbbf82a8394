"""What a real data set needs: the parts it is made of, and the archives that can be downloaded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsolkit.errors import DataError

BENCHMARK = "https://github.com/clovaai/wsolevaluation"
"""Home of the WSOL benchmark: metadata of every split, and links to the images that it has collected."""


@dataclass(frozen=True)
class Archive:
    """A file on the web that anybody may download.

    Attributes:
        name: file name.
        url: address, http or https.
        checksum: ``algorithm:hex digits``, as its publisher states it.
        bytes: its size; None where it is not known.
        unpacks_to: the folder inside the archive that is unpacked, under the same name, into the data root.
        licence: what its use is bound to, or where that is said.
    """

    name: str
    url: str
    checksum: str
    bytes: int | None
    unpacks_to: str
    licence: str


@dataclass(frozen=True)
class Part:
    """A part of a data set, and how much of it is there.

    Attributes:
        what: what it is, e.g. ``"images of test"``.
        path: where it is looked for.
        expected: how many images, masks or lines make it complete.
        found: how many are there; None where that cannot be told.
        where: where to get it, in words and with an address.
        problem: what is wrong with what is there; empty where nothing is.
    """

    what: str
    path: Path
    expected: int
    found: int | None
    where: str
    problem: str = ""

    @property
    def state(self) -> str:
        """``ok``, ``missing``, ``incomplete``, ``damaged``, or ``unknown`` where ``found`` is None."""
        if self.problem:
            return "damaged"
        if self.found is None:
            return "unknown"
        if self.found >= self.expected:
            return "ok"
        return "incomplete" if self.found else "missing"


@dataclass(frozen=True)
class Contents:
    """Files that a split's metadata names: its images, or its masks.

    Attributes:
        what: what they are, in the plural.
        path: where they are looked for.
        published: how many the published split has.
        count: from the metadata, how many it names and how many of these are there.
        where: where to get them.
    """

    what: str
    path: Path
    published: int
    count: Callable[[Any], tuple[int, int]]
    where: str


def split_parts(
    split: str, published: int, folder: Path, read: Callable[[], Any], contents: Sequence[Contents]
) -> list[Part]:
    """What one split of a benchmark's data set needs: its metadata, and the files that this names.

    Args:
        split: one of the three splits.
        published: how many images the published split has.
        folder: where its metadata is looked for.
        read: reads the metadata; called only where ``folder`` exists.
        contents: the kinds of files.
    """
    metadata, problem = None, ""
    try:
        metadata = read() if folder.is_dir() else None
    except DataError as error:
        problem = str(error)
    lines = 0 if metadata is None else len(metadata.image_ids)
    parts = [
        Part(
            f"metadata of {split}",
            folder,
            published,
            lines,
            f"git clone {BENCHMARK}, and copy its folder metadata/",
            problem,
        )
    ]
    for kind in contents:
        without_list = kind.published, None if kind.path.exists() else 0
        expected, found = without_list if metadata is None else kind.count(metadata)
        parts.append(Part(f"{kind.what} of {split}", kind.path, expected, found, kind.where))
    return parts


def describe(parts: Sequence[Part]) -> str:
    """An aligned list of parts: one line each, and below what is not complete its problem and where to get it."""
    widths = [max((len(cell) for cell in column), default=0) for column in zip(*map(_cells, parts), strict=True)]
    lines = []
    for part in parts:
        cells = [cell.ljust(width) for cell, width in zip(_cells(part), widths, strict=True)]
        lines.append(f"{'  '.join(cells)}  {part.path}")
        if part.state != "ok":
            lines += [f"{'':{widths[0]}}  {text}" for text in (part.problem, f"Get it: {part.where}") if text]
    return "\n".join(lines)


def stays_below(name: str) -> bool:
    """Whether a relative path, read from somebody's file, names something below the folder it is joined to."""
    if not name or name[0] in "/\\" or name[1:2] == ":" or "\0" in name:
        return False
    return ".." not in name or ".." not in name.replace("\\", "/").split("/")


def _cells(part: Part) -> tuple[str, str, str]:
    found = "?" if part.found is None else part.found
    return part.state, part.what, f"{found} of {part.expected}"
