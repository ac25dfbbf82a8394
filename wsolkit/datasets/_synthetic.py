"""The data set class behind the drawn worlds: image ``i`` depends on seed, split and ``i``, on nothing else."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from wsolkit.datasets import _drawing as drawing
from wsolkit.datasets._base import SPLITS, Extent, Sample, WsolDataset
from wsolkit.system.plugins import STRICT

#: Raised whenever a change of code changes a pixel, so that caches are drawn again.
DRAWING_VERSION = 2

Count = Annotated[int, Field(ge=1, le=10_000_000)]


@dataclass(frozen=True, config=STRICT)
class SyntheticOptions:
    """How many images each split has, and the seed of the whole world."""

    train_weaksup: Count = 1500
    train_fullsup: Count = 400
    test: Count = 1000
    world_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    def images(self, split: str) -> int:
        """How many images a split has."""
        return getattr(self, split.replace("-", "_"))


@dataclasses.dataclass(frozen=True)
class World:
    """A drawn data set: `open_split` and `extent` are those of its file.

    Attributes:
        name: its name, part of every image id.
        classes: class names.
        compose: gives the parts and the pose of an object, from a generator and a label.
    """

    name: str
    classes: tuple[str, ...]
    compose: Callable[[np.random.Generator, int], tuple[list[drawing.Part], drawing.Pose]]

    def open_split(self, split: str, size: int, options: SyntheticOptions, data_root: Path | None) -> WsolDataset:
        """One split, drawn on demand; ``data_root`` is not needed."""
        return SyntheticDataset(self, split, size, options)

    def extent(self, options: SyntheticOptions) -> Extent:
        """As many images as the options say."""
        return Extent({split: options.images(split) for split in SPLITS}, len(self.classes))


class SyntheticDataset(WsolDataset):
    """Images drawn on demand; classes take turns, so every split is balanced, and no image is in two splits."""

    def __init__(self, world: World, split: str, size: int, options: SyntheticOptions):
        """Describe a split; nothing is drawn yet."""
        self.name, self.classes, self.split, self.size = world.name, world.classes, split, size
        count, self._world_seed = options.images(split), options.world_seed
        self.labels = np.arange(count, dtype=np.int64) % len(self.classes)
        self.fingerprint = f"drawing {DRAWING_VERSION}, world {options.world_seed}, {count} images"
        self._compose = world.compose

    def __getitem__(self, index: int) -> Sample:
        self.require_index(index)
        rng = np.random.default_rng([self._world_seed, SPLITS.index(self.split), index])
        label = int(self.labels[index])
        parts, pose = self._compose(rng, label)
        image, mask = drawing.render(rng, parts, pose, self.size)
        return Sample(image, label, drawing.box_of(mask), mask, f"{self.name}-{self.split}-{index:06d}")
