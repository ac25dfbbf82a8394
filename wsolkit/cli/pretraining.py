"""The command that rebuilds published weights."""

from pathlib import Path
from typing import Annotated

import typer

from wsolkit.cli.options import ProfileName
from wsolkit.cli.output import interruptible


def pretrain(
    out: Annotated[Path, typer.Option(help="Folder for the weights and a note on how each was made.")],
    backbones: Annotated[list[str] | None, typer.Argument(help="Backbones; all of the profile's if none.")] = None,
    profile: ProfileName = None,
) -> None:
    """Rebuild a profile's published weights: pretraining 0 of each backbone.

    On another processor the last digits differ, so the published file is what all machines start from.

    Example: wsolkit pretrain mini_vgg --out weights
    """
    from wsolkit.study.study import chosen_profile
    from wsolkit.system import folders
    from wsolkit.training.machine import Machine
    from wsolkit.training.pretraining import publish
    from wsolkit.training.run_store import RunStore

    chosen, store = chosen_profile(profile), RunStore(folders.runs_root(), Machine(cache=folders.cache_or_off()))
    with interruptible():
        for backbone in backbones or dict.fromkeys(chosen.backbones.values()):
            typer.echo(publish(store.get(chosen.pretraining_recipe(backbone)), out))
