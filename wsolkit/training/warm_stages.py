"""Warm stages that several recipes share: trained once, since until alignment sets in they are the same (Eq. 11).

A warm stage lies in the run store under ``warm-stages/``, named by its recipe and its data. It is never trained for its
own sake: the first run that passes its end leaves it there, and a run that begins later goes on from it.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wsolkit.errors import CheckpointError
from wsolkit.system.writing import atomic_file, atomic_folder
from wsolkit.training import checkpoints, loop
from wsolkit.training.engine import Precision
from wsolkit.training.recipes import Recipe

logger = logging.getLogger(__name__)

FOLDER = "warm-stages"


@dataclass(frozen=True)
class WarmStages:
    """The shared warm stages of a store, as one recipe sees them.

    Attributes:
        root: the store's folder.
        recipe: the recipe that begins or has begun.
        data: fingerprints of its data; stages made from other data are not taken.
        precision: in which it is trained; nor are stages of another.
    """

    root: Path
    recipe: Recipe
    data: Mapping[str, str]
    precision: Precision = "float32"

    @property
    def folder(self) -> Path | None:
        """Where this recipe's warm stage is, or would be; None if it has none to share."""
        stage = self.recipe.warm_stage()
        if stage is None:
            return None
        data = hashlib.sha256(json.dumps(self.data, sort_keys=True).encode()).hexdigest()[:8]
        return self.root / FOLDER / f"{stage.key}-{data}-{self.precision}"

    def take(self, run: Path) -> bool:
        """Begin a run where the warm stage ends, if that is there and the run has no epoch yet; whether it did.

        A stage that is damaged is left alone, and the run begins at its beginning.
        """
        stage = self.folder
        if stage is None or not stage.is_dir() or loop.begun(run):
            return False
        kept = [loop.BEST, *map(loop.snapshot, self._snapshots())]
        try:
            found = {name: checkpoints.load(stage / name) for name in (*kept, loop.LAST)}
        except CheckpointError:
            return False
        for name in kept:
            tensors, header = found[name]
            checkpoints.save(run / name, tensors, header | {"recipe": self.recipe.key})
        for name in (loop.HISTORY, loop.LAST):  # the last one makes the run begun
            with atomic_file(run / name) as partial:
                shutil.copyfile(stage / name, partial)
        logger.info("%s begins after epoch %d, with the warm stage of a run like it", run.name, self.recipe.warm_epochs)
        return True

    def leave_from(self, run: Path) -> Callable[[int], None]:
        """What a run calls after every epoch: at the end of the warm stage it leaves a copy for others."""

        def leave(epoch: int) -> None:
            if epoch != self.recipe.warm_epochs:
                return
            stage = self.folder
            if stage is not None and not stage.exists():
                snapshots = map(loop.snapshot, self._snapshots())
                with atomic_folder(stage) as partial:
                    for name in (loop.LAST, loop.BEST, loop.HISTORY, *snapshots):
                        _link_or_copy(run / name, partial / name)

        return leave

    def _snapshots(self) -> list[int]:
        return [epoch for epoch in self.recipe.snapshot_epochs if epoch <= self.recipe.warm_epochs]


def _link_or_copy(source: Path, target: Path) -> None:
    """Files of a run are replaced, never changed, so a link costs no space and keeps this state."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
