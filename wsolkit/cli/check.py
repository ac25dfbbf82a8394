"""The command that examines the machine."""

import typer

from wsolkit.cli.options import DataRoot

COLOURS = {"ok": typer.colors.GREEN, "note": typer.colors.YELLOW, "wrong": typer.colors.RED}


def doctor(data_root: DataRoot = None) -> None:
    """Examine this machine: what is fine, what is not, what to type.

    Environment, kernel, devices, folders, runs, data. The exit code is 1 where something is wrong.

    Example: wsolkit doctor --data-root data
    """
    from wsolkit.cli import doctor as examination

    wrong = False
    for finding in examination.examine(data_root):
        wrong |= finding.state == "wrong"
        state = typer.style(f"{finding.state:5}", COLOURS[finding.state], bold=finding.state == "wrong")
        typer.echo(f"{state} {finding.what:17} {finding.found}")
        if finding.remedy:
            typer.echo(f"{'':24}{finding.remedy}")
    if wrong:
        raise typer.Exit(1)
