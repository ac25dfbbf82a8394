"""Options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

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
