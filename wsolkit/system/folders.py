"""Where everything is kept. An environment variable moves each folder."""

import os
from pathlib import Path
from typing import Literal

#: The folder of the package.
PACKAGE = Path(__file__).resolve().parent.parent


def clone() -> Path | None:
    """The clone of the project that this package lies in, or None where it is installed by itself."""
    folder = PACKAGE.parent
    return folder if (folder / "pyproject.toml").is_file() else None


def home() -> Path:
    """The project's folder: ``$WSOLKIT_HOME``, else the clone this package lies in, else the current folder."""
    if "WSOLKIT_HOME" in os.environ:
        return Path(os.environ["WSOLKIT_HOME"]).expanduser().resolve()
    return clone() or Path.cwd()


def weights_root() -> Path:
    """Where torchvision's weights are looked for: ``$WSOLKIT_WEIGHTS``, else where torchvision itself keeps them."""
    if "WSOLKIT_WEIGHTS" in os.environ:
        return Path(os.environ["WSOLKIT_WEIGHTS"]).expanduser().resolve()
    return Path(os.environ.get("TORCH_HOME", "~/.cache/torch")).expanduser() / "hub" / "checkpoints"


def runs_root() -> Path:
    """The run store: ``$WSOLKIT_RUNS``, else ``runs/``."""
    return _folder("WSOLKIT_RUNS", "runs")


def cache_root() -> Path:
    """Decoded or drawn images: ``$WSOLKIT_CACHE``, else ``cache/``. Can be deleted at any time."""
    return _folder("WSOLKIT_CACHE", "cache")


def cache_or_off() -> Path | Literal["off"]:
    """The cache's folder, or ``"off"`` if ``$WSOLKIT_CACHE`` says so: images are then decoded each time."""
    return "off" if os.environ.get("WSOLKIT_CACHE") == "off" else cache_root()


def figures_root() -> Path:
    """Generated tables and figures: ``$WSOLKIT_OUT``, else ``figures/``."""
    return _folder("WSOLKIT_OUT", "figures")


def notebooks_root() -> Path:
    """The notebooks: ``notebooks/`` of the project's folder, else those that were installed with the package."""
    own, installed = home() / "notebooks", PACKAGE / "notebooks"
    return own if own.is_dir() or not installed.is_dir() else installed


def _folder(variable: str, name: str) -> Path:
    return Path(os.environ[variable]).expanduser().resolve() if variable in os.environ else home() / name
