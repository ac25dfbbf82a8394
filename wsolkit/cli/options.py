"""Options that several commands share."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from wsolkit.errors import RecipeError

DataRoot = Annotated[Path | None, typer.Option(help="Folder or zip of real data; drawn data needs none.")]
ProfileName = Annotated[str | None, typer.Option("--profile", help="smoke, demo (default), photos or paper.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="name=value, a notebook's parameter.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]


class Precision(StrEnum):
    """Precision of the network's passes."""

    float32 = "float32"
    bf16 = "bf16"
    fp16 = "fp16"


PrecisionOption = Annotated[Precision, typer.Option(help="bf16 and fp16 are for a GPU.")]


def notebook_names(begun: str) -> list[str]:
    """Completion: notebooks whose names begin so."""
    from wsolkit.batch.notebooks import find

    return [path.stem for path in find() if path.stem.startswith(begun)]


Names = Annotated[
    list[str] | None,
    typer.Argument(help="Notebooks, e.g. table7_ablation; all if none.", autocompletion=notebook_names),
]


def output_folder(given: str | Path) -> Path:
    """The folder for a command's results, checked before the work; it is not made yet.

    Raises:
        RecipeError: if it is a file, or cannot be made or written.
    """
    return _writable(str(given), folder=True)


def output_file(given: str | Path) -> Path:
    """The file for a command's result, checked as `output_folder` is.

    Raises:
        RecipeError: if it is a folder or a device, or cannot be written.
    """
    return _writable(str(given), folder=False)


def _writable(given: str, folder: bool) -> Path:
    path, expected = Path(given), "a folder" if folder else "a file"
    try:
        there = next(each for each in (path, *path.parents) if each.exists() or each.is_symlink())
    except OSError as error:
        raise RecipeError(f"{given} cannot be written: {error.strerror}. Name {expected} that can be made.") from error
    above = there if there != path or folder else path.parent
    if not given or not above.is_dir() or (there == path and not folder and not path.is_file()):
        found = f"{there} is {'a folder' if there.is_dir() else 'not a folder'}" if given else "the name is empty"
        raise RecipeError(f"{given!r} cannot be written as {expected}: {found}. Name another one.")
    if not os.access(above, os.W_OK):
        raise RecipeError(f"{given} cannot be written: no write access to {above}. Choose another folder.")
    return path
