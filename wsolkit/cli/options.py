"""Options that several commands share."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import typer

from wsolkit.errors import RecipeError

DataRoot = Annotated[Path | None, typer.Option(help="Folder or zip of real data; drawn data needs none.")]
ProfileName = Annotated[str | None, typer.Option("--profile", help="smoke, demo (default), photos, laptop or paper.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="name=value, a notebook's parameter.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]


Precision = Annotated[Literal["float32", "bf16", "fp16"], typer.Option(help="bf16 and fp16 are for a GPU.")]

Compile = Annotated[bool, typer.Option("--compile", help="Let PyTorch compile the steps; it takes a minute a run.")]


def notebook_names(begun: str) -> list[str]:
    """Completion: notebooks whose names begin so."""
    from wsolkit.reproduce.notebooks import find

    return [path.stem for path in find() if path.stem.startswith(begun)]


Names = Annotated[
    list[str] | None,
    typer.Argument(help="Notebooks, e.g. table7_ablation; if none, all but tuning.", autocompletion=notebook_names),
]


def output_folder(given: str | Path) -> Path:
    """The folder for a command's results, checked before the work; it is not made yet.

    Raises:
        RecipeError: if it is a file, or cannot be made or written.
    """
    path = Path(given)
    with suppress(OSError):  # of names that are too long
        there = next(each for each in (path, *path.parents) if each.exists() or each.is_symlink())
        if str(given) and there.is_dir() and os.access(there, os.W_OK):
            return path
    raise RecipeError(f"{str(given)!r} cannot be written: not a folder, or not one that can be made. Choose another.")


def output_file(given: str | Path) -> Path:
    """The file for a command's result, checked as `output_folder` is.

    Raises:
        RecipeError: if it is a folder or a device, or cannot be written.
    """
    path = Path(given)
    with suppress(OSError):
        if output_folder(path.parent) and (path.is_file() or not (path.exists() or path.is_symlink())):
            return path
    raise RecipeError(f"{str(given)!r} cannot be written: not a file, or not one that can be made. Choose another.")
