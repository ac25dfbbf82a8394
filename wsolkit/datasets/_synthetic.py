"""The data set class behind the drawn worlds: image ``i`` depends on seed, split and ``i``, on nothing else."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from wsolkit.datasets import _drawing as drawing
from wsolkit.datasets._base import SPLITS, Sample, WsolDataset

DRAWING_VERSION = 2
"""Raised whenever a change of code changes a pixel, so that caches are drawn anew."""

Count = Annotated[int, Field(ge=1, le=10_000_000)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class SyntheticOptions:
    """How many images each split has, and the seed of the whole world."""

    train_weaksup: Count = 1500
    train_fullsup: Count = 400
    test: Count = 1000
    world_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class SyntheticDataset(WsolDataset):
    """Images drawn on demand; classes take turns, so every split is balanced."""

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        compose: Callable[[np.random.Generator, int], tuple[list[drawing.Part], drawing.Pose]],
        split: str,
        size: int,
        options: SyntheticOptions,
    ):
        """Describe a drawn data set.

        Args:
            name: its name, part of every image id.
            classes: class names.
            compose: gives the parts and the pose of an object from a generator and a label.
            split: one of the three splits; no image is in two of them.
            size: side of the images in pixels.
            options: how many images, and the seed of the world.
        """
        self.name, self.classes, self.split, self.size = name, tuple(classes), split, size
        count = getattr(options, split.replace("-", "_"))
        self.labels = np.arange(count, dtype=np.int64) % len(self.classes)
        self.fingerprint = f"drawing {DRAWING_VERSION}, world {options.world_seed}, {count} images"
        self._compose, self._world_seed = compose, options.world_seed

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"Image {index} of {self.name} {self.split}, which has {len(self)} images.")
        rng = np.random.default_rng([self._world_seed, SPLITS.index(self.split), index])
        label = int(self.labels[index])
        parts, pose = self._compose(rng, label)
        image, mask = drawing.render(rng, parts, pose, self.size)
        return Sample(image, label, drawing.box_of(mask), mask, f"{self.name}-{self.split}-{index:06d}")


def opener(name: str, classes: Sequence[str], compose: Callable) -> Callable:
    """The ``open_split`` of a drawn data set."""

    def open_split(split: str, size: int, options: SyntheticOptions, data_root: Path | None) -> SyntheticDataset:
        """One split, drawn on demand; ``data_root`` is not needed."""
        return SyntheticDataset(name, classes, compose, split, size, options)

    return open_split
