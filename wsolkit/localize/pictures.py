"""Pictures and names of classes from files; without PyTorch, so that a wrong path is reported before that is loaded."""

import codecs
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from wsolkit.errors import DataError, turned_into

#: Pictures with more pixels are refused before they are decoded.
PIXELS = 64_000_000

#: Formats that Pillow knows, but reads with other programs or not at all.
EXCLUDED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})


def find_pictures(files: Sequence[Path]) -> list[Path]:
    """Pictures by name; a folder stands for the pictures in it, recognised by the ends of their names.

    Hidden files of a folder, such as those that macOS adds, are left out.

    Raises:
        DataError: if there are none, or a file or folder does not exist.
        OSError: if a folder cannot be listed.
    """
    known = {end for end, name in Image.registered_extensions().items() if name in Image.OPEN.keys() - EXCLUDED}
    found: list[Path] = []
    for file in files:
        if not os.path.exists(file):
            raise DataError(f"{file} does not exist. Name pictures, or folders of pictures.")
        if os.path.isdir(file):
            shown = [each for each in sorted(file.iterdir()) if not each.name.startswith(".") and not each.is_dir()]
            found += [each for each in shown if each.suffix.lower() in known]
        else:
            found.append(file)
    if not found:
        raise DataError(f"No pictures in {', '.join(map(str, files))}. Name pictures, or folders of pictures.")
    return found


def read_pictures(files: Iterable[Path], unreadable: list[str]) -> Iterator[tuple[Path, Image.Image]]:
    """Pictures by `read_picture`, each with its file; what is wrong with the others is added to a list."""
    for file in files:
        try:
            picture = read_picture(file)
        except DataError as error:
            unreadable.append(str(error))
        else:
            yield file, picture


def read_names(file: Path) -> tuple[str, ...]:
    """Names of classes from a text file, one a line; blank lines at the end are no names.

    The text is UTF-8 with or without a byte order mark, or UTF-16 with one, as Windows writes them.

    Raises:
        DataError: if the file cannot be read, is not such a text, or holds no names.
    """
    if not os.path.isfile(file):
        raise DataError(f"{file} is not a file, or does not exist. Give a text file of class names, one a line.")
    what, advice = f"Cannot read class names from {file}", "Save it as text in UTF-8."
    with turned_into(DataError, what, advice, OSError, UnicodeError):
        content = file.read_bytes()
        utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if utf16 else "utf-8-sig").rstrip()
    if not text:
        raise DataError(f"{file} holds no class names. Write one a line.")
    return tuple(name.strip() for name in re.split("\r\n?|\n", text))


def check_names(names: Sequence[str], classes: int) -> None:
    """Check that there is a name for every class, or none at all.

    Raises:
        DataError: if the numbers differ.
    """
    if names and len(names) != classes:
        raise DataError(f"{len(names)} names of classes were given; the model has {classes} classes. Give one each.")


def read_picture(file: Path) -> Image.Image:
    """A picture as RGB, as a viewer shows it.

    It is turned as its EXIF orientation says. Transparent parts are laid on white; of an animation the first frame is
    taken. Grey values of more than 8 bits are scaled to 0..255: 16-bit ones from 0..65535; 32-bit integers as they are
    if all lie in 0..255, else as 16-bit ones if they lie there, else from their own lowest and highest value; floats
    from 0..1 if they lie there, else from their own lowest and highest value. What is not a number becomes black.

    Raises:
        DataError: if it cannot be read, or has more than :data:`PIXELS`.
    """
    if not os.path.isfile(file):  # a named pipe would be waited for
        raise DataError(f"{file} is not a file, or is a link to a missing one.")
    what = f"{file} is not a picture, is damaged, or of an unknown kind"
    with turned_into(DataError, what, "Save it anew, e.g. as PNG."), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damage that does not keep a picture from being read
        with Image.open(file, formats=sorted(Image.OPEN.keys() - EXCLUDED) or None) as opened:
            if opened.width * opened.height > PIXELS:
                raise DataError(f"{file} has {opened.width}x{opened.height} pixels; the limit is {PIXELS:,}.")
            opened.load()
            return _rgb(opened)


def _rgb(picture: Image.Image) -> Image.Image:
    sixteen = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM"))
    with suppress(Exception):  # with a damaged orientation a picture stays as it is
        picture = ImageOps.exif_transpose(picture)
    if picture.mode[0] in "IF":
        picture = _to_8bit(picture, (65535,) if sixteen else (255, 65535) if picture.mode == "I" else (1,))
    if picture.has_transparency_data:
        picture = picture.convert("LA") if picture.mode == "La" else picture
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    return picture.convert("RGB")


def _to_8bit(picture: Image.Image, tops: Sequence[int]) -> Image.Image:
    """Grey values from 0 to the first of some tops that none exceeds, or from the lowest to the highest, as 8 bits."""
    values = np.asarray(picture, dtype=np.float64)
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0, 0)
    top = next((top for top in tops if low >= 0 and high <= top), None)
    scaled = (values - (0 if top else low)) / (top or (high - low) or 1)
    scaled[values == picture.info.get("transparency")] = 1
    return Image.fromarray((np.nan_to_num(scaled).clip(0, 1) * 255).round().astype(np.uint8))
