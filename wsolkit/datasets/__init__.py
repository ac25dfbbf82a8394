"""Data sets: one file each, all giving the same :class:`Sample` at any asked size.

A data set module has a frozen dataclass ``Options`` and a function
``open_split(split, size, options, data_root) -> WsolDataset``. Adding one is adding its file here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsolkit import plugins
from wsolkit.datasets._base import SPLITS, CachedDataset, Sample, WsolDataset
from wsolkit.errors import unknown

__all__ = ["SPLITS", "CachedDataset", "Sample", "WsolDataset", "complete_options", "names", "open_dataset"]


def names() -> tuple[str, ...]:
    """Names of the data sets."""
    return plugins.names(__name__)


def complete_options(name: str, options: Mapping[str, Any]) -> Any:
    """A data set's ``Options`` with every default filled in.

    Raises:
        RecipeError: for an unknown data set, or an option that it does not take.
    """
    module = plugins.load(__name__, "dataset", name)
    return plugins.parse_options(module.Options, options, f"dataset {name!r}")


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
    module = plugins.load(__name__, "dataset", name)
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    root = None if data_root is None else Path(data_root).expanduser()
    return module.open_split(split, size, complete_options(name, options or {}), root)
