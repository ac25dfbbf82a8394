"""Warm stages that several recipes share: trained once, since runs are identical until alignment begins (Eq. 11).

A warm stage lies in the run store under ``warm-stages/``, named by its recipe and its data. It is never trained for its
own sake: the first run that passes the end of its warm stage leaves a copy there, and later runs continue from it.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from wsolkit.errors import CheckpointError
from wsolkit.system.writing import atomic_file, atomic_folder
from wsolkit.training import checkpoints
from wsolkit.training.engine import Precision
from wsolkit.training.recipes import Recipe

logger = logging.getLogger(__name__)

FOLDER = "warm-stages"


@dataclass(frozen=True)
class WarmStages:
    """The shared warm stages of a store, as one recipe sees them.

    Attributes:
        root: the store's folder.
        recipe: the recipe that is being trained.
        data: fingerprints of its data; a warm stage made from other data is not used.
        precision: of the training; a warm stage of another precision is not used.
    """

    root: Path
    recipe: Recipe
    data: Mapping[str, str]
    precision: Precision = "float32"

    @cached_property
    def folder(self) -> Path | None:
        """Where this recipe's warm stage is, or would be; None if it has none to share."""
        stage = self.recipe.warm_stage()
        if stage is None:
            return None
        data = hashlib.sha256(json.dumps(self.data, sort_keys=True).encode()).hexdigest()[:8]
        return self.root / FOLDER / f"{stage.key}-{data}-{self.precision}"

    @property
    def _weights(self) -> list[str]:
        epochs = [epoch for epoch in self.recipe.snapshot_epochs if epoch <= self.recipe.warm_epochs]
        return [checkpoints.BEST, *map(checkpoints.snapshot, epochs)]

    def begin(self, run: Path) -> bool:
        """Put a shared warm stage into the folder of a run that has no epoch yet; tells whether there was one.

        A damaged warm stage is left alone, and the run starts from its first epoch.
        """
        if self.folder is None or not self.folder.is_dir() or checkpoints.begun(run):
            return False
        try:
            found = {name: checkpoints.load(self.folder / name) for name in (*self._weights, checkpoints.LAST)}
        except CheckpointError:
            return False
        for name in self._weights:
            tensors, header = found[name]
            checkpoints.save(run / name, tensors, header | {"recipe": self.recipe.key})
        for name in (checkpoints.HISTORY, checkpoints.LAST):  # the last one makes the epochs count
            with atomic_file(run / name) as partial:
                shutil.copyfile(self.folder / name, partial)
        logger.info("%s starts after epoch %d, from a shared warm stage", run.name, self.recipe.warm_epochs)
        return True

    def leave_from(self, run: Path) -> Callable[[int], None]:
        """A function for a run to call after every epoch: at the end of the warm stage it leaves a copy for others."""

        def leave(epoch: int) -> None:
            if epoch == self.recipe.warm_epochs and self.folder is not None and not self.folder.exists():
                with atomic_folder(self.folder) as partial:
                    for name in (checkpoints.LAST, checkpoints.HISTORY, *self._weights):
                        _link_or_copy(run / name, partial / name)

        return leave


def _link_or_copy(source: Path, target: Path) -> None:
    """Files of a run are replaced, never changed, so a link takes no space and keeps this state."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
