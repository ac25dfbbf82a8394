"""The command that compares two folders of results."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from wsolkit.cli.options import ProfileName
from wsolkit.cli.output import show_table

#: Numbers outside their intervals that are shown, the furthest first.
SHOWN = 10


def compare(
    first: Annotated[Path | None, typer.Argument(help="Folder of results; the committed ones if not given.")] = None,
    second: Annotated[Path | None, typer.Argument(help="Another; figures/PROFILE if not given.")] = None,
    profile: ProfileName = None,
    brief: Annotated[bool, typer.Option("--brief", help="Print one line, and always exit with 0.")] = False,
) -> None:
    """Compare two folders of results number by number: equal, within the interval, outside.

    Without folders: what is committed, and what lies in figures/PROFILE now. The exit code is 1 if more numbers lie
    outside than chance allows, or if two verdicts on a claim contradict each other.

    Example: wsolkit compare

    Example: wsolkit compare figures/demo other_machine/figures/demo
    """
    from wsolkit.errors import DataError
    from wsolkit.study import compare
    from wsolkit.study.study import chosen_profile, output_folder

    here = second or output_folder(chosen_profile(profile).name)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            before = first or compare.committed(here, Path(scratch))
            found, changed = compare.numbers(before, here), compare.verdicts(before, here)
        except DataError as error:
            if not brief:
                raise
            typer.echo(f"not compared: {error}")
            return
        made = [f"{name}: {'; '.join(compare.made_on(of))}" for name, of in (("first", before), ("second", here))]
    if brief:
        typer.echo(f"compared with the committed results: {compare.in_one_line(found, changed)}")
        return
    show_table(compare.by_notebook(found))
    outside = found[found["state"] == "outside"]
    if len(outside):
        furthest = ((outside["first"] - outside["second"]).abs() - outside["half_width"]).sort_values(ascending=False)
        typer.echo("\nFurthest outside:")
        show_table(outside.loc[furthest.index[:SHOWN]].drop(columns="state").round(4))
    if len(changed):
        typer.echo("\nVerdicts that differ:")
        show_table(changed)
    typer.echo("\n" + "\n".join([*made, compare.in_one_line(found, changed)]))
    if compare.beyond_chance(found) or len(compare.contradictory(changed)):
        raise typer.Exit(1)
