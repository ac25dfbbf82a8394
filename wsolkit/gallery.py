"""One page for a profile: every table and figure that there is, with the paper's numbers beside."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd

import wsolkit
from wsolkit import profiles, training
from wsolkit.files import atomic_file

PAGE = "index.html"

FEW = 80
"""Rows up to which a table is shown on the page; longer ones are linked."""


@dataclass(frozen=True)
class Section:
    """What one notebook left behind.

    Attributes:
        name: of the notebook.
        title: its first heading.
        figures: names of PNG files.
        tables: summaries as HTML.
        files: names of CSV files.
    """

    name: str
    title: str
    figures: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

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
    from jinja2 import Environment, PackageLoader

    sections = [section(folder, notebook) for notebook in notebooks]
    page = Environment(loader=PackageLoader("wsolkit"), autoescape=True).get_template(f"{PAGE}.j2")
    text = page.render(
        profile=profile,
        option="" if profile == "demo" else f" --profile {profile}",
        summary=profiles.get(profile).summary,
        sections=sections,
        done=sum(each.done for each in sections),
        version=wsolkit.__version__,
        commit=training.commit(),
    )
    with atomic_file(folder / PAGE) as partial:
        partial.write_text(text, encoding="utf-8")
    return folder / PAGE


def section(folder: Path, notebook: Path) -> Section:
    """What a notebook left in a folder."""
    stem = notebook.stem
    mine = sorted(path for path in folder.glob(f"{stem}*") if path.stem == stem or path.stem.startswith(f"{stem}_"))
    csvs = [path for path in mine if path.suffix == ".csv"]
    shown = [path for path in csvs if path.stem != stem]
    return Section(
        name=stem,
        title=title_of(notebook),
        figures=tuple(path.name for path in mine if path.suffix == ".png"),
        tables=tuple(filter(None, map(_as_html, shown))),
        files=tuple(path.name for path in csvs),
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


def _as_html(path: Path) -> str:
    try:
        table = pd.read_csv(path)
    except (ValueError, OSError) as error:
        return f"<p>{escape(path.name)} cannot be shown: {escape(str(error))}</p>"
    if len(table) > FEW:
        return ""
    return table.to_html(index=False, border=0, na_rep="", float_format="{:.2f}".format, justify="right")
