"""One page for a profile: every table and figure, with the paper's numbers beside ours."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import wsolkit
from wsolkit.reproduce import notebooks, pages
from wsolkit.study import tables
from wsolkit.study.study import RUNS_PART
from wsolkit.system.atomic_files import write_file
from wsolkit.training import profiles
from wsolkit.training.machine import commit

PAGE = "index.html"

#: Rows up to which a table is shown on the page; longer ones are only linked.
FEW = 80

#: Characters from which the text in a column is wrapped.
LONG = 25


def write(folder: Path, profile: str, shown: Sequence[Path]) -> Path:
    """Write the page of a profile; notebooks without results are named as such.

    Args:
        folder: of the profile's tables and figures.
        profile: its name.
        shown: all notebooks, in the order of the page.

    Returns:
        The page.
    """
    files: dict[str, list[Path]] = {notebook.stem: [] for notebook in shown}
    for path in sorted(folder.iterdir()):
        # A file belongs to the longest name that it starts with: `fig1_mine.csv` to `fig1_mine` rather than to `fig1`.
        owners = [name for name in files if f"{path.stem}_".startswith(f"{name}_")]
        if owners:
            files[max(owners, key=len)].append(path)
    runs = {name: _read(folder / f"{name}_{RUNS_PART}.csv") for name in files}
    every_run = pd.concat([pd.DataFrame(columns=["commit", "torch", "device"]), *runs.values()])
    template = pages.environment().get_template(f"{PAGE}.j2")
    text = template.render(
        profile=profiles.get(profile),
        sections=[_section(notebook, files[notebook.stem], runs[notebook.stem]) for notebook in shown],
        version=wsolkit.__version__,
        commit=commit(),
        made_with={name: sorted(every_run[name].dropna().unique()) for name in ("commit", "torch", "device")},
    )
    pages.write_style(folder)
    write_file(folder / PAGE, text)
    return folder / PAGE


def title_of(notebook: Path) -> str:
    """The first heading of a notebook; its name if it has none or cannot be read."""
    try:
        cells = notebooks.read(notebook).cells
    except notebooks.NotebookError:
        return notebook.stem
    lines = (line for cell in cells if cell.cell_type == "markdown" for line in cell.source.splitlines())
    return next((line.removeprefix("# ") for line in lines if line.startswith("# ")), notebook.stem)


def _section(notebook: Path, files: Sequence[Path], runs: pd.DataFrame) -> dict[str, Any]:
    """What the page shows of a notebook, by the names of the template."""
    name = notebook.stem
    csvs = [path for path in files if path.suffix == ".csv"]
    parts = {path.name: _read(path) for path in csvs if path.stem not in (name, f"{name}_{RUNS_PART}")}
    return {
        "name": name,
        "title": title_of(notebook),
        "done": any(path.suffix in (".csv", ".png") for path in files),
        "page": next((path.name for path in files if path.name == f"{name}.html"), None),
        "figures": [path.name for path in files if path.suffix == ".png"],
        "tables": {file: as_html(frame, file) for file, frame in parts.items() if len(frame) <= FEW},
        "files": [path.name for path in csvs],
        "runs": as_html(runs, f"{name}_{RUNS_PART}"),
        "run_count": len(runs),
    }


def _read(path: Path) -> pd.DataFrame:
    """A CSV, empty if there is no such file; if it cannot be read, a table that says so."""
    try:
        return pd.read_csv(path, dtype=dict.fromkeys(("recipe", "commit", "torch"), str))
    except FileNotFoundError:
        return pd.DataFrame()
    except (ValueError, OSError) as error:
        return pd.DataFrame({" ": [f"{path.name} cannot be shown: {error}"]})


def as_html(frame: pd.DataFrame, name: str) -> str:
    """A table as HTML with its ``name`` as id: numbers to the right with up to two decimals, text to the left."""
    identity = re.sub(r"\W", "_", f"table-{name}")
    if "metric" in frame:
        frame = frame.assign(metric=frame["metric"].replace(tables.NAMES))
    if "mean_pct" in frame:  # what was measured comes before what the paper quotes from others
        frame = frame.sort_values("mean_pct", key=pd.isna, kind="stable")
    frame = frame.convert_dtypes()  # counts with gaps are read as floats
    rules = []
    for position, column in enumerate(frame, 1):
        if pd.api.types.is_bool_dtype(frame[column]):
            frame[column] = frame[column].map({True: "yes", False: "no"})
        if not pd.api.types.is_numeric_dtype(frame[column]):
            wraps = frame[column].astype(str).str.len().max() > LONG
            width = "min-width: 14rem" if wraps else "white-space: nowrap"
            rules.append(f"#{identity} :is(th, td):nth-child({position}) {{ text-align: left; {width}; }}\n")
    shown = frame.astype(object).where(frame.notna(), "").rename(columns=_heading)
    with pd.option_context("display.max_colwidth", None):
        table = shown.to_html(index=False, border=0, table_id=identity, float_format="{:.2f}".format)
    return f"<style>\n{''.join(rules)}</style>\n{table}"


def _heading(name: str) -> str:
    words = name.removesuffix("_pct").replace("_", " ")
    return f"{words} %" if name.endswith("_pct") else words
