"""Data sets: one file each, all giving the same :class:`Sample` at any asked size.

A data set module has a frozen dataclass ``Options`` and a function
``open_split(split, size, options, data_root) -> WsolDataset``. Adding one is adding its file here. One that is not
drawn says with a function ``parts(data_root)`` what it needs, with a constant ``ARCHIVES`` what can be downloaded, and
with ``PUBLISHED``, ``PUBLISHED_CLASSES`` and ``PUBLISHED_MASKS`` how large it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from wsolkit.datasets._base import SPLITS, Sample, WsolDataset, scale_boxes
from wsolkit.datasets._benchmark import read_mask
from wsolkit.datasets._cache import CachedDataset, verify
from wsolkit.datasets._metadata import Metadata, read_metadata
from wsolkit.datasets._sources import Archive, Part, describe
from wsolkit.datasets._uncached import Decoded, OpenedDataset, UncachedDataset
from wsolkit.errors import unknown
from wsolkit.system import registry

__all__ = [
    "SPLITS",
    "Archive",
    "CachedDataset",
    "Decoded",
    "Metadata",
    "OpenedDataset",
    "Part",
    "Sample",
    "UncachedDataset",
    "WsolDataset",
    "archives",
    "check",
    "complete_options",
    "describe",
    "names",
    "has_masks",
    "is_published",
    "open_dataset",
    "published_classes",
    "published_sizes",
    "read_mask",
    "read_metadata",
    "scale_boxes",
    "verify",
]


def names() -> tuple[str, ...]:
    """Names of the data sets."""
    return registry.names(__name__)


@dataclass(frozen=True)
class Source:
    """A data set by name, with its options."""

    name: str
    module: ModuleType
    options: Any

    def open(self, split: str, size: int, data_root: str | Path | None = None) -> WsolDataset:
        """Open one split; see `open_dataset`."""
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        return self.module.open_split(
            split, size, self.options, None if data_root is None else Path(data_root).expanduser()
        )


def find(name: str, options: Mapping[str, Any] | None = None) -> Source:
    """A data set by name, missing options filled in."""
    return Source(name, registry.load(__name__, "dataset", name), complete_options(name, options or {}))


def complete_options(name: str, options: Mapping[str, Any]) -> Any:
    """A data set's ``Options`` with every default filled in.

    Raises:
        RecipeError: for an unknown data set, or an option that it does not take.
    """
    module = registry.load(__name__, "dataset", name)
    return registry.parse_options(module.Options, options, f"dataset {name!r}")


def open_dataset(
    name: str,
    split: str,
    size: int,
    options: Mapping[str, Any] | None = None,
    data_root: str | Path | None = None,
) -> WsolDataset:
    """Open one split of a data set.

    Args:
        name: a file name in this folder, e.g. ``"synthetic_birds"``.
        split: ``"train-weaksup"``, ``"train-fullsup"`` or ``"test"``.
        size: side of the square images in pixels; boxes and masks are given at this size.
        options: the data set's own options; defaults where left out.
        data_root: folder or archive of the data; synthetic data needs none.

    Raises:
        RecipeError: for an unknown name, split or option.
        DataError: where the data is missing or incomplete.
    """
    module = registry.load(__name__, "dataset", name)
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    root = None if data_root is None else Path(data_root).expanduser()
    return module.open_split(split, size, complete_options(name, options or {}), root)


def check(name: str, data_root: str | Path) -> tuple[Part, ...]:
    """What a data set needs and how much of it is in ``data_root``; empty for a drawn one, which needs nothing.

    Raises:
        RecipeError: for an unknown data set.
    """
    module = registry.load(__name__, "dataset", name)
    return module.parts(Path(data_root).expanduser()) if hasattr(module, "parts") else ()


def is_published(name: str) -> bool:
    """Whether a data set is to be had from its publisher, so that it may be absent; else it is drawn.

    Raises:
        RecipeError: for an unknown data set.
    """
    return hasattr(registry.load(__name__, "dataset", name), "parts")


def published_sizes(name: str) -> Mapping[str, int]:
    """How many images each split of a published data set has; empty for one whose sizes are options.

    Raises:
        RecipeError: for an unknown data set.
    """
    return getattr(registry.load(__name__, "dataset", name), "PUBLISHED", {})


def published_classes(name: str) -> int:
    """How many classes a published data set has; 20 where it is an option.

    Raises:
        RecipeError: for an unknown data set.
    """
    return getattr(registry.load(__name__, "dataset", name), "PUBLISHED_CLASSES", 20)


def has_masks(name: str) -> bool:
    """Whether a published data set has masks in the place of boxes.

    Raises:
        RecipeError: for an unknown data set.
    """
    return hasattr(registry.load(__name__, "dataset", name), "PUBLISHED_MASKS")


def archives(name: str) -> tuple[Archive, ...]:
    """What of a data set anybody may download; empty for a drawn one, and where all of it needs a login or a browser.

    Raises:
        RecipeError: for an unknown data set.
    """
    return getattr(registry.load(__name__, "dataset", name), "ARCHIVES", ())
