"""One page for a profile: every table and figure that there is, with the paper's numbers beside."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import wsolkit
from wsolkit.batch import pages
from wsolkit.study import tables
from wsolkit.study.study import RUNS_PART
from wsolkit.system.writing import atomic_file
from wsolkit.training import profiles, provenance

PAGE = "index.html"

METRICS = tables.METRIC_NAMES | tables.V2_NAMES | tables.PXAP_NAMES
"""Metrics as tables print them."""

FEW = 80
"""Rows up to which a table is shown on the page; longer ones are linked."""

LONG = 25
"""Characters from which a column is text to be wrapped."""


@dataclass(frozen=True)
class Table:
    """A table as the page shows it.

    Attributes:
        file: name of the CSV.
        columns: headings.
        rows: cells as text.
        kinds: of each column: ``"number"``, ``"word"`` or ``"sentence"``.
    """

    file: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """What one notebook left behind.

    Attributes:
        name: of the notebook.
        title: its first heading.
        page: name of the executed notebook as HTML, if there.
        figures: names of PNG files.
        tables: summaries.
        files: names of CSV files.
        runs: the runs that all of it was made from.
    """

    name: str
    title: str
    page: str | None = None
    figures: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    files: tuple[str, ...] = ()
    runs: Table | None = None

    @property
    def done(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.figures or self.files)


def write(folder: Path, profile: str, notebooks: Sequence[Path]) -> Path:
    """Write the page of a profile; notebooks without results are named as such.

    Args:
        folder: of the profile's tables and figures.
        profile: its name.
        notebooks: all notebooks, in the order of the page.

    Returns:
        The page.
    """
    sections = [section(folder, notebook) for notebook in notebooks]
    chosen = profiles.get(profile)
    text = (
        pages.environment()
        .get_template(f"{PAGE}.j2")
        .render(
            profile=profile,
            option="" if profile == "demo" else f" --profile {profile}",
            summary=chosen.summary,
            caveat=chosen.caveat,
            sections=sections,
            done=sum(each.done for each in sections),
            version=wsolkit.__version__,
            commit=provenance.commit(),
            commits=_made_with(sections, "commit"),
            torch=_made_with(sections, "torch"),
            devices=_made_with(sections, "device"),
        )
    )
    pages.write_style(folder)
    with atomic_file(folder / PAGE) as partial:
        partial.write_text(text, encoding="utf-8")
    return folder / PAGE


def section(folder: Path, notebook: Path) -> Section:
    """What a notebook left in a folder."""
    stem = notebook.stem
    mine = sorted(path for path in folder.glob(f"{stem}*") if path.stem == stem or path.stem.startswith(f"{stem}_"))
    csvs = [path for path in mine if path.suffix == ".csv"]
    runs = folder / f"{stem}_{RUNS_PART}.csv"
    page = folder / f"{stem}.html"
    return Section(
        name=stem,
        title=title_of(notebook),
        page=page.name if page.exists() else None,
        figures=tuple(path.name for path in mine if path.suffix == ".png"),
        tables=tuple(filter(None, (_table(path, FEW) for path in csvs if path.stem != stem and path != runs))),
        files=tuple(path.name for path in csvs),
        runs=_table(runs) if runs in csvs else None,
    )


def title_of(notebook: Path) -> str:
    """The first heading of a notebook; its name where it has none or cannot be read."""
    import nbformat

    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except (ValueError, OSError, nbformat.reader.NotJSONError):
        return notebook.stem
    lines = (line for cell in cells if cell.cell_type == "markdown" for line in cell.source.splitlines())
    return next((line.removeprefix("# ") for line in lines if line.startswith("# ")), notebook.stem)


def _made_with(sections: Sequence[Section], column: str) -> list[str]:
    """What the runs behind some sections say in one column, each once."""
    tables = [each.runs for each in sections if each.runs and column in each.runs.columns]
    return sorted({row[table.columns.index(column)] for table in tables for row in table.rows} - {""})


def _table(path: Path, most: int | None = None) -> Table | None:
    """A CSV as a table; None where it has more rows than that."""
    try:
        frame = pd.read_csv(path, dtype=dict.fromkeys(("recipe", "commit", "torch"), str))
    except (ValueError, OSError) as error:
        return Table(path.name, ("",), ((f"{path.name} cannot be shown: {error}",),), ("sentence",))
    if most is not None and len(frame) > most:
        return None
    if "metric" in frame:
        frame["metric"] = frame["metric"].replace(METRICS)
    if "mean_pct" in frame:  # what was measured comes before what the paper quotes from others
        frame = frame.sort_values("mean_pct", key=pd.isna, kind="stable")
    columns = [_column(frame[name]) for name in frame]
    kinds = tuple(kind for kind, _ in columns)
    heads = tuple(_heading(str(name)) for name in frame)
    return Table(path.name, heads, tuple(zip(*(cells for _, cells in columns), strict=True)), kinds)


def _heading(name: str) -> str:
    words = name.removesuffix("_pct").replace("_", " ")
    return f"{words} %" if name.endswith("_pct") else words


def _column(values: pd.Series) -> tuple[str, list[str]]:
    empty = values.isna()
    if pd.api.types.is_float_dtype(values):
        # Counts are read as floats where some are empty.
        digits = 0 if (values.dropna() % 1 == 0).all() else 2
        return "number", ["" if gone else f"{value:.{digits}f}" for value, gone in zip(values, empty, strict=True)]
    words = {True: "yes", False: "no"} if values.dropna().map(lambda value: isinstance(value, bool)).all() else {}
    cells = ["" if gone else str(words.get(value, value)) for value, gone in zip(values, empty, strict=True)]
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return "number", cells
    return "sentence" if max(map(len, cells), default=0) > LONG else "word", cells
