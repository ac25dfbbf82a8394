"""Commands for the run store."""

from typing import Annotated

import typer

from wsolkit.cli.output import show_table

app = typer.Typer(no_args_is_help=True, help="The run store: what is in it, whether it is whole, what could go.")

Run = Annotated[str, typer.Argument(help="A run's key, or its first characters.")]


@app.command("list")
def list_runs() -> None:
    """List all runs, the newest first: what they train, how far they are, GT-known Loc (test), megabytes on disk.

    Methods are named by their loss terms, as in Table 7. Options are those in which a run differs from most of its data
    set, backbone and method. To drop a run, delete its folder.

    Example: wsolkit runs list
    """
    from wsolkit.cli import housekeeping

    table = housekeeping.listing(housekeeping.open_store())
    if table.empty:
        typer.echo("No runs yet.")
    else:
        show_table(table)
    if (table["state"] == "foreign").any():
        typer.echo("foreign: made by another version of the kit or of a method; `wsolkit runs verify KEY` says more")


@app.command()
def show(run: Run) -> None:
    """Show a run: its recipe, its rates, how it was made.

    Example: wsolkit runs show 4539
    """
    compare([run])


@app.command()
def compare(runs: Annotated[list[str], typer.Argument(help="Runs' keys, or their first characters.")]) -> None:
    """Put runs side by side: how their recipes and how they were made differ, and their rates in percent.

    Example: wsolkit runs compare 4539 a1b2
    """
    from wsolkit.cli import housekeeping

    store = housekeeping.open_store()
    chosen = housekeeping.folders(store, runs)
    typer.echo("\n".join(map(str, chosen)))
    for title, table in housekeeping.side_by_side(store, chosen).items():
        typer.echo(f"\n{title}:")
        show_table(table)


@app.command()
def verify(names: Annotated[list[str] | None, typer.Argument(help="Runs; all if none.")] = None) -> None:
    """Check all checkpoints against their hashes, and all reports; exit code 1 if something is wrong.

    Example: wsolkit runs verify
    """
    from wsolkit.cli import housekeeping

    store = housekeeping.open_store()
    chosen = housekeeping.folders(store, names or [])
    broken = set()
    for folder in chosen:
        for problem in housekeeping.problems(store, folder):
            broken.add(folder)
            typer.echo(f"{folder.name}: {problem}", err=True)
    typer.echo(f"{len(chosen)} runs read, {len(broken)} with problems")
    if broken:
        raise typer.Exit(1)


@app.command()
def gc(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Remove files that no run needs any more, after asking; runs themselves always stay.

    Example: wsolkit runs gc
    """
    from wsolkit.cli import housekeeping

    found = housekeeping.garbage(housekeeping.open_store())
    for path, why, size in found:
        typer.echo(f"{size / 1e6:9.1f} MB  {path}: {why}")
    typer.echo(f"{sum(size for _, _, size in found) / 1e6:9.1f} MB in all")
    if found and (yes or typer.confirm("Remove these?")):
        housekeeping.remove(path for path, _, _ in found)
        typer.echo("removed")
