"""Text files in columns, read strictly: whatever is wrong in one is named with its file and line.

Files written on Windows are read as well: a byte order mark, CRLF line ends, blank lines and spaces around cells
mean nothing.
"""

import codecs
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from wsolkit.errors import DataError, turned_into

#: What the files of a metadata folder hold, for the message about one that is missing.
LINES = {
    "image_ids.txt": "one image id per line, e.g. birds/1.jpg",
    "class_labels.txt": "id,class index, e.g. birds/1.jpg,0",
    "image_sizes.txt": "id,width,height in pixels, e.g. birds/1.jpg,500,375",
    "localization.txt": "id,x0,y0,x1,y1 in pixels, one line per box, e.g. birds/1.jpg,10,20,300,200; or id,mask,ignore",
}

#: Integers and numbers above it are refused: nothing in such files is as large.
LARGEST = 2**31


@dataclass(frozen=True)
class Table:
    """A text file in columns.

    Attributes:
        file: its name and folder, for messages.
        columns: the cells of each column, from top to bottom.
        lines: the line in the file of each row, counted from 1.
    """

    file: str
    columns: list[list[str]]
    lines: Sequence[int]

    def damaged(self, row: int, what: str) -> DataError:
        """The error for something wrong in a row."""
        return DataError(f"{self.file} is damaged: line {self.lines[row]}: {what}. Correct it or copy the file again.")

    def index(self, column: int = 0) -> dict[str, int]:
        """The row of each cell of a column; refuses a cell that occurs twice."""
        rows = {cell: row for row, cell in enumerate(self.columns[column])}
        if len(rows) < len(self.lines):
            row = next(row for row, cell in enumerate(self.columns[column]) if rows[cell] != row)
            raise self.damaged(row, f"{self.columns[column][row]!r} occurs twice")
        return rows

    def require_paths(self, column: int, empty: bool = False) -> None:
        """Refuse a column that names something outside the data's folder; ``empty`` cells may be allowed."""
        for row, name in enumerate(self.columns[column]):
            if not (stays_below(name) or (empty and not name)):
                raise self.damaged(row, f"{name!r} is not a path below the data's folder")

    def numbers(self, least: float = 0, most: float = LARGEST, kind: type = int, first: int = 1) -> np.ndarray:
        """The columns from ``first`` on, (N, columns) int64 or float64; refuses numbers out of range."""
        cells = self.columns[first:]
        # What is not a number becomes NaN, which is in no range; a float64 is exact up to far more than LARGEST.
        found = np.stack([pd.to_numeric(pd.Series(column), errors="coerce").to_numpy(float) for column in cells], 1)
        wrong = ~((found >= least) & (found <= most) & ((kind is float) | (found % 1 == 0))).all(1)
        if wrong.any():
            row, what = int(wrong.argmax()), "integers" if kind is int else "numbers"
            received = ",".join(column[row] for column in cells)
            raise self.damaged(row, f"expected {what} from {least} to {most}, received {received!r}")
        return found.astype(kind)

    def ranks(self, known: Mapping[str, int], once: bool = False) -> np.ndarray:
        """Which known image each row is about, (N,); every image must occur, with ``once`` in a single row."""
        images = self.columns[0]
        ranks = np.array([known.get(image, -1) for image in images])
        if ranks.min() < 0:
            row = int(ranks.argmin())
            raise self.damaged(row, f"{images[row]!r} is not in the list of images")
        counts = np.bincount(ranks, minlength=len(known))
        if not counts.all():
            raise DataError(f"{self.file} has no line for image {list(known)[counts.argmin()]!r}. Copy it again.")
        if once and counts.max() > 1:
            row = int(np.flatnonzero(ranks == counts.argmax())[1])
            raise self.damaged(row, f"{images[row]!r} occurs twice")
        return ranks

    def by_image(self, known: Mapping[str, int], least: float, most: float = LARGEST, kind: type = int) -> np.ndarray:
        """As `numbers`, for a file with one row per image, in the order of the known images."""
        return self.numbers(least, most, kind)[np.argsort(self.ranks(known, once=True))]


def read_table(path: Path, counts: Sequence[int], separator: str | None = ",") -> Table:
    """Read a text file in which every line has as many columns.

    Args:
        path: the file.
        counts: how many columns there may be; the first line decides.
        separator: what stands between columns; None for white space.

    Raises:
        DataError: naming the file, and the line if one is wrong.
    """
    with turned_into(DataError, f"Cannot read {path}", "Copy it again.", OSError):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            holds = f" It holds {LINES[path.name]}." if path.name in LINES else " Copy the whole folder again."
            raise DataError(f"{path.name} is missing in {path.parent}.{holds}") from None
    return parse_table(content, f"{path.name} in {path.parent}", counts, separator)


def parse_table(content: bytes, file: str, counts: Sequence[int], separator: str | None = ",") -> Table:
    """As `read_table`, from the content of a file; ``file`` names it in messages."""
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    with turned_into(DataError, f"Cannot read {file} as text", "Copy it again.", UnicodeDecodeError):
        text = content.decode("utf-16" if wide else "utf-8-sig")
    rows = re.split(r"\r\n?|\n", text)
    numbers = [number for number, row in enumerate(rows, 1) if row.strip()]
    if not numbers:
        raise DataError(f"{file} is empty. Copy it again.")
    rows = [rows[number - 1] for number in numbers]
    found = [len(row.split(separator)) for row in rows]
    count = found[0] if found[0] in counts else counts[0]
    # One flat list: a list for each of a million lines takes several times as long.
    cells = " ".join(rows).split() if separator is None else separator.join(rows).split(separator)
    table = Table(file, [[cell.strip() for cell in cells[column::count]] for column in range(count)], numbers)
    if set(found) != {count}:
        row = next(row for row, columns in enumerate(found) if columns != count)
        between = "white space" if separator is None else repr(separator)
        allowed = count if row else " or ".join(map(str, counts))
        raise table.damaged(row, f"it has {found[row]} columns, expected {allowed}, separated by {between}")
    return table


def stays_below(name: str) -> bool:
    """Whether a relative path, read from somebody's file, names something below the folder it is joined to."""
    if not name or name[0] in "/\\" or name[1:2] == ":" or "\0" in name:
        return False
    return ".." not in name or ".." not in name.replace("\\", "/").split("/")
