"""The reproducibility kit for Kim et al., "Bridging the Gap between Classification and Localization" (CVPR 2022)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsolkit.decomposition import Decomposition, decompose

__version__ = "0.1.0"

__all__ = ["Decomposition", "decompose"]


def __getattr__(name: str) -> Any:
    """Import PyTorch only where it is used, so that ``wsolkit --help`` is there at once."""
    if name in __all__:
        from wsolkit import decomposition

        return getattr(decomposition, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
