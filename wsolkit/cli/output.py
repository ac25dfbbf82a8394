"""What several commands print: tables, and a word after Ctrl-C."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import pandas as pd


def show_table(frame: "pd.DataFrame") -> None:
    """Print a table, folded to the width of a terminal; in a log, every row is one line."""
    from rich.console import Console
    from rich.table import Table

    table, numeric = Table(box=None, pad_edge=False), set(frame.select_dtypes("number"))
    for name in frame:
        table.add_column(str(name), justify="right" if name in numeric else "left", overflow="fold")
    whole = frame.select_dtypes("integer")
    # As objects, since pandas 2 makes floats of whole numbers with gaps.
    frame = frame.assign(**{name: whole[name].astype(object).map("{:,}".format, na_action="ignore") for name in whole})
    for row in frame.astype(object).where(frame.notna(), "").itertuples(index=False):
        table.add_row(*map(str, row))
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 10_000
    console.print(table)


@contextmanager
def interruptible() -> Iterator[None]:
    """Say after Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("Interrupted. All finished epochs are kept; the same command goes on from there.", err=True)
        raise typer.Exit(130) from None
