"""Warm stages that several recipes share: trained once, since runs are identical until alignment begins (Eq. 11).

A warm stage lies in the run store under ``warm-stages/``, named by its recipe and its data. It is never trained for its
own sake: the first run that passes the end of its warm stage leaves a copy there, and later runs continue from it.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from wsolkit.errors import CheckpointError
from wsolkit.system.atomic_files import atomic_file, atomic_folder
from wsolkit.training import checkpoints
from wsolkit.training.engine import Precision
from wsolkit.training.recipes import Recipe

logger = logging.getLogger(__name__)

FOLDER = "warm-stages"


def folder_of(root: Path, recipe: Recipe, data: Mapping[str, str], precision: Precision = "float32") -> Path | None:
    """Where a recipe's warm stage is, or would be; None if it has none to share.

    Args:
        root: the store's folder.
        recipe: the recipe that is being trained.
        data: fingerprints of its data; a warm stage made from other data lies elsewhere.
        precision: of the training; a warm stage of another precision lies elsewhere.
    """
    stage = recipe.warm_stage()
    if stage is None:
        return None
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:8]
    return root / FOLDER / f"{stage.key}-{digest}-{precision}"


def begin(run: Path, recipe: Recipe, stage: Path | None) -> None:
    """Put a shared warm stage, if there is one, into the folder of a run that has no epoch yet.

    A damaged warm stage is left alone, and the run starts from its first epoch.
    """
    if stage is None or not stage.is_dir() or checkpoints.begun(run):
        return
    try:
        weights = {name: checkpoints.load(stage / name) for name in _weights(recipe)}
        checkpoints.load(stage / checkpoints.LAST)
    except CheckpointError:
        return
    for name, (tensors, header) in weights.items():
        checkpoints.save(run / name, tensors, header | {"recipe": recipe.key})
    for name in (checkpoints.HISTORY, checkpoints.LAST):  # the last one makes the epochs count
        with atomic_file(run / name) as partial:
            shutil.copyfile(stage / name, partial)
    logger.info("%s starts after epoch %d, from a shared warm stage", run.name, recipe.warm_epochs)


def leave(run: Path, recipe: Recipe, stage: Path | None, epoch: int) -> None:
    """At the end of a run's warm stage, leave a copy of it for others, unless there is one."""
    if stage is None or epoch != recipe.warm_epochs or stage.exists():
        return
    with atomic_folder(stage) as partial:
        for name in (checkpoints.LAST, checkpoints.HISTORY, *_weights(recipe)):
            try:  # files of a run are replaced, never changed, so a link takes no space and keeps this state
                os.link(run / name, partial / name)
            except OSError:
                shutil.copyfile(run / name, partial / name)


def _weights(recipe: Recipe) -> list[str]:
    epochs = [epoch for epoch in recipe.snapshot_epochs if epoch <= recipe.warm_epochs]
    return [checkpoints.BEST, *map(checkpoints.snapshot, epochs)]
