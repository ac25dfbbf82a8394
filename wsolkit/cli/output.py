"""What several commands print: tables, and a word after Ctrl-C."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import pandas as pd


def show_table(frame: "pd.DataFrame") -> None:
    """Print a table: drawn and coloured in a terminal, plain lines elsewhere."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    numeric = set(frame.select_dtypes("number"))
    whole = frame.select_dtypes("integer")
    frame = frame.assign(**{name: whole[name].map("{:,}".format, na_action="ignore") for name in whole})
    if not console.is_terminal:
        typer.echo(frame.to_string(index=False, na_rep=""))
        return
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in frame:
        table.add_column(str(name).replace("_", " "), justify="right" if name in numeric else "left", overflow="fold")
    for row in frame.astype(object).where(frame.notna(), "").itertuples(index=False):
        table.add_row(*map(str, row))
    console.print(table)


@contextmanager
def interruptible() -> Iterator[None]:
    """Say after Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("Interrupted. All finished epochs are kept; the same command goes on from there.", err=True)
        raise typer.Exit(130) from None
