"""Data sets: one file each, all giving the same :class:`Sample` at any asked size.

A data set's file has a frozen dataclass ``Options`` and a function
``open_split(split, size, options, data_root) -> WsolDataset``; adding a data set means adding its file here. One that
is published elsewhere also has a function ``parts(data_root, options)``, which says what it needs, and may have an
entry in ``sources.toml``. A function ``extent(options)`` says how large it is. :func:`find` looks all of it up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from wsolkit.datasets._base import SPLITS, Extent, Sample, WsolDataset, scale_boxes
from wsolkit.datasets._cache import CachedDataset, Decoded, OpenedDataset, UncachedDataset, verify
from wsolkit.datasets._metadata import Metadata, read_metadata
from wsolkit.datasets._pictures import read_mask
from wsolkit.datasets._sources import Archive, Part, describe, published
from wsolkit.errors import require_known
from wsolkit.system import plugins

__all__ = [
    "SPLITS",
    "Archive",
    "CachedDataset",
    "Decoded",
    "Extent",
    "Metadata",
    "OpenedDataset",
    "Part",
    "Sample",
    "Source",
    "UncachedDataset",
    "WsolDataset",
    "describe",
    "find",
    "find_published",
    "names",
    "open_dataset",
    "read_mask",
    "read_metadata",
    "scale_boxes",
    "verify",
]


@dataclass(frozen=True)
class Source:
    """A data set with its options.

    Attributes:
        name: a file name in this folder, e.g. ``"synthetic_birds"``.
        module: that file.
        options: its ``Options``, complete.
    """

    name: str
    module: ModuleType
    options: Any

    def open(self, split: str, size: int, data_root: str | Path | None = None) -> WsolDataset:
        """Open one split; see `open_dataset`."""
        require_known("split", split, SPLITS)
        root = None if data_root is None else Path(data_root).expanduser()
        return self.module.open_split(split, size, self.options, root)

    def parts(self, data_root: str | Path) -> tuple[Part, ...]:
        """What the data set needs and how much of it is in ``data_root``; empty for a drawn one."""
        return self.module.parts(Path(data_root).expanduser(), self.options) if self.published else ()

    @property
    def published(self) -> bool:
        """Whether the data set comes from a publisher, so that it may be missing; if not, it is drawn."""
        return hasattr(self.module, "parts")

    @property
    def archives(self) -> tuple[Archive, ...]:
        """What anybody may download of it; empty for a drawn one, and if all of it needs a login or a browser."""
        return tuple(Archive(**archive) for archive in published(self.name).get("archives", ()))

    @property
    def extent(self) -> Extent:
        """How large it is; an empty `Extent` if its file does not say."""
        return self.module.extent(self.options) if hasattr(self.module, "extent") else Extent()


def names() -> tuple[str, ...]:
    """Names of the data sets."""
    return plugins.names(__name__)


def find(name: str, options: Mapping[str, Any] | None = None) -> Source:
    """Look up a data set.

    Args:
        name: a file name in this folder.
        options: the data set's own options; those left out have their defaults.

    Raises:
        RecipeError: for an unknown data set, or an option that it does not have.
    """
    module = plugins.load(__name__, "dataset", name)
    return Source(name, module, plugins.parse_options(module.Options, options or {}, f"dataset {name!r}"))


def find_published(name: str) -> Source:
    """Look up a data set by the name under which it is published: one file may read several, by its options.

    Args:
        name: a file name in this folder, or an entry of ``sources.toml``, e.g. ``"imagewoof"``.

    Raises:
        RecipeError: for an unknown name.
    """
    entry = published(name)
    return replace(find(entry.get("adapter", name), entry.get("options")), name=name)


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
        options: the data set's own options; those left out have their defaults.
        data_root: folder or archive of the data; synthetic data needs none.

    Raises:
        RecipeError: for an unknown name, split or option.
        DataError: if the data is missing, incomplete or damaged.
    """
    return find(name, options).open(split, size, data_root)
