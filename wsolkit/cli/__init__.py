"""The shell: thin commands over the package's functions."""

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from wsolkit import __version__
from wsolkit.cli import compare, data, doctor, experiments, pretraining, runs, your_own
from wsolkit.errors import WsolkitError
from wsolkit.system.progress import log_lines

#: Environment variable that has the effect of ``--debug``.
DEBUG_VARIABLE = "WSOLKIT_DEBUG"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done; 1 finished, but something failed or is wrong; 2 wrong usage, or something that the "
    "message says how to put right; 3 an unexpected error, of wsolkit or of a file added to it; 130 interrupted.",
)

HOUSE = "Housekeeping"
PAPER = (experiments.reproduce, compare.compare, experiments.plan, experiments.rehearse, experiments.recipe)
PANELS = {
    "The paper": (*PAPER, experiments.train, pretraining.pretrain),
    "Your own": (your_own.evaluate, your_own.localize),
    HOUSE: (doctor.doctor,),
}
for panel, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(data.app, name="data", rich_help_panel=HOUSE)
app.add_typer(runs.app, name="runs", rich_help_panel=HOUSE)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def about(
    debug: Annotated[
        bool, typer.Option("--debug", envvar=DEBUG_VARIABLE, help="Show tracebacks, and all that is logged.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="The version.")] = False,
) -> None:
    """Reproduce "Bridging the Gap between Classification and Localization for WSOL" (CVPR 2022).

    Begin with: wsolkit reproduce table7_ablation --profile smoke
    """
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"
    # In a terminal bars show the progress; a log gets lines.
    log_lines(logging.DEBUG if debug else logging.WARNING if sys.stderr.isatty() else logging.INFO)


def main() -> None:
    """Entry point: an error is one or two lines and an exit code; its traceback is shown with ``--debug``."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # for names of files in no encoding
    try:
        app()
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        if isinstance(error, OSError) and error.filename:
            error = WsolkitError(f"Cannot use {error.filename}: {error.strerror}. Check that file or folder.")
        if isinstance(error, WsolkitError):
            typer.echo(f"Error: {error}", err=True)
            sys.exit(2)
        package = Path(__file__).parents[1]
        frames = traceback.extract_tb(error.__traceback__)
        place = [frame for frame in frames if package in Path(frame.filename).parents][-1]  # e.g. in a user's method
        where = f"{Path(place.filename).relative_to(package.parent)}, line {place.lineno}"
        typer.echo(f"Unexpected {type(error).__name__}: {error} ({where})", err=True)
        typer.echo("If that file is yours, fix it; if not, report what `wsolkit --debug ...` shows.", err=True)
        sys.exit(3)
