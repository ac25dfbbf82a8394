"""Pictures and names of classes as files; without PyTorch, so that a misspelt path is said at once."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from wsolkit.errors import DataError

PIXELS = 64_000_000
"""Pictures of more pixels are refused before they are decoded."""


def find_pictures(files: Sequence[Path]) -> list[Path]:
    """Pictures by name; a folder stands for those in it, by the ends of their names.

    Raises:
        DataError: if there are none, or a file or folder does not exist.
    """
    known = {extension for extension, name in Image.registered_extensions().items() if name in Image.OPEN}
    found = []
    for file in files:
        if not file.exists():
            raise DataError(f"{file} does not exist. Name pictures, or folders that hold some.")
        found += sorted(each for each in file.iterdir() if each.suffix.lower() in known) if file.is_dir() else [file]
    if not found:
        raise DataError(f"No pictures in {', '.join(map(str, files))}. Name pictures, or folders that hold some.")
    return found


def read_names(file: Path) -> tuple[str, ...]:
    """Names of classes from a text file, a line each.

    Raises:
        DataError: if the file cannot be read.
    """
    try:
        return tuple(file.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Cannot read names of classes from {file}: {error}.") from error


def check_names(names: Sequence[str], classes: int) -> None:
    """See that there is a name for every class, or none at all.

    Raises:
        DataError: if the numbers differ.
    """
    if names and len(names) != classes:
        raise DataError(f"{len(names)} names of classes were given, and the model has {classes} classes.")


def read_picture(file: Path) -> Image.Image:
    """A picture as RGB.

    Raises:
        DataError: if it cannot be read, or has more than :data:`PIXELS`.
    """
    try:
        with Image.open(file) as opened:
            if opened.width * opened.height > PIXELS:
                raise DataError(f"{file} has {opened.width}x{opened.height} pixels; make it smaller first.")
            return opened.convert("RGB")
    except UnidentifiedImageError:
        raise DataError(f"{file} is not a picture, or of a kind that is not known.") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"Cannot read {file} as a picture: {error}.") from error
