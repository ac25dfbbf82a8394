"""Anybody's pictures with anybody's classifier: where did it look?"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from wsolkit import datasets
from wsolkit.decomposition import THRESHOLD, decompose
from wsolkit.errors import DataError
from wsolkit.own.classifiers import USUAL_SIZE
from wsolkit.own.pictures import check_names, find_pictures, read_picture
from wsolkit.system.progress import progress
from wsolkit.system.writing import atomic_file, writable_folder
from wsolkit.training.loading import normalise

RESULTS = "localized.json"


@dataclass(frozen=True)
class Located:
    """Where a classifier looked in one picture.

    Attributes:
        image: the file.
        target: class index.
        name: of the class; None where no names were given.
        probability: of that class, in [0, 1].
        box: ``x0, y0, x1, y1`` in pixels of the picture, ends included, of the largest contour.
        picture_size: width and height of the picture in pixels.
        annotated: the written picture; the box beside the map.
        share: of the picture that the box covers, in (0, 1].
    """

    image: str
    target: int
    name: str | None
    probability: float
    box: tuple[int, int, int, int]
    picture_size: tuple[int, int]
    annotated: str
    share: float


@dataclass(frozen=True)
class Localized:
    """What came of several pictures.

    Attributes:
        found: a result each, of those that could be read.
        unreadable: what was wrong with each of the others.
    """

    found: tuple[Located, ...]
    unreadable: tuple[str, ...]


def localize_files(
    model: nn.Module,
    files: Sequence[Path],
    out: Path,
    size: int = USUAL_SIZE,
    kind: str = "cam",
    threshold: float = THRESHOLD,
    target: int | None = None,
    names: Sequence[str] = (),
    origin: Mapping[str, str] | None = None,
) -> Localized:
    """Localize in each picture, and write it with its box beside its map, and all results as JSON.

    Pictures are resized to a square whatever their shape, as a `Recipe`'s images are; boxes come back in their own
    pixels. A picture that cannot be read does not keep the others from being done.

    Args:
        model: a classifier that `wsolkit.decompose` takes.
        files: pictures; a folder stands for those in it.
        out: folder for ``<name>.png`` and ``localized.json``.
        size: side in pixels to which pictures are resized for the model.
        kind: the map that gives the box: ``"cam"``, ``"norm"`` or ``"similarity"``.
        threshold: share of the map's maximum above which a cell is inside.
        target: class index; None takes each picture's most probable class.
        names: of the classes, for what is written; none means numbers.
        origin: what else the JSON should say, e.g. where the model comes from.

    Raises:
        DataError: if there is no picture at all, one does not exist, or the number of names is not that of the classes.
        DecompositionError: if the model's head is another, or it has no such class.
    """
    chosen = find_pictures(files)
    settings = {**(origin or {}), "size": size, "kind": kind, "threshold": threshold, "target": target}
    device = next(model.parameters()).device
    found: list[Located] = []
    unreadable = []
    for file in progress(chosen, "pictures"):
        try:
            picture = read_picture(file)
        except DataError as error:
            unreadable.append(str(error))
            if found:
                _write_results(out, settings, found, unreadable)
            continue
        small = _resized(picture, size)
        result = decompose(model, normalise(small[None], device), target)
        label, logits = int(result.target[0]), result.logits[0]
        check_names(names, len(logits))
        if not found:  # from here on nothing is refused: an empty folder would be left behind
            writable_folder(out)
        probability = float(logits.softmax(0)[label])
        box = _in_picture(result.boxes(threshold, kind)[0], size, picture.size)
        overlay = Image.fromarray(result.overlay(small[None], kind)[0]).resize(picture.size, Image.Resampling.BILINEAR)
        annotated = _free_name(out, file, [Path(each.annotated).name for each in found])
        share = (box[2] - box[0] + 1) * (box[3] - box[1] + 1) / (picture.width * picture.height)
        located = Located(
            image=str(file),
            target=label,
            name=names[label] if names else None,
            probability=round(probability, 4),
            box=box,
            picture_size=picture.size,
            annotated=str(annotated),
            share=round(share, 4),
        )
        with atomic_file(annotated) as partial:
            _sheet(picture, overlay, located, f"{kind} above {threshold:g}").save(partial, format="png")
        found.append(located)
        _write_results(out, settings, found, unreadable)
    return Localized(tuple(found), tuple(unreadable))


def _write_results(out: Path, settings: Mapping, found: Sequence[Located], unreadable: Sequence[str]) -> None:
    written = {"settings": settings, "pictures": [*map(asdict, found)], "unreadable": unreadable}
    with atomic_file(out / RESULTS) as partial:
        partial.write_text(json.dumps(written, indent=2) + "\n")


def write_samples(dataset: str, folder: Path, count: int, data_root: Path | None = None) -> list[Path]:
    """Write some test pictures of a data set as PNGs, 224x224, evenly from all of the split.

    Args:
        dataset: its name.
        folder: made if it is not there.
        count: how many; all of a smaller split.
        data_root: folder or archive of the data; drawn data needs none.

    Returns:
        The files, each named after the last part of its image's id.

    Raises:
        RecipeError: for an unknown data set.
        DataError: where the data is missing.
        WsolkitError: if the folder cannot be written.
    """
    data = datasets.open_dataset(dataset, "test", USUAL_SIZE, data_root=data_root)
    writable_folder(folder)
    files = []
    for number in np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int).tolist():
        found = data[number]
        files.append(folder / f"{Path(found.image_id).stem}.png")
        with atomic_file(files[-1]) as partial:
            Image.fromarray(found.image).save(partial, format="png")
    return files


def read_folder(folder: Path, size: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """All pictures of a folder, by name, resized to squares whatever their shape.

    Args:
        folder: the folder.
        size: side in pixels.

    Returns:
        (B, size, size, 3) uint8, and what was wrong with each picture that could not be read.

    Raises:
        DataError: if there is no folder, or no picture in it that can be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. Name one that holds pictures.")
    pictures, unreadable = [], []
    for file in find_pictures([folder]):
        try:
            pictures.append(_resized(read_picture(file), size))
        except DataError as error:
            unreadable.append(str(error))
    if not pictures:
        raise DataError(f"No picture in {folder} can be read. {unreadable[0]}")
    return np.stack(pictures), tuple(unreadable)


def _resized(picture: Image.Image, size: int) -> np.ndarray:
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))


def _free_name(out: Path, file: Path, taken: Sequence[str]) -> Path:
    """Pictures of one name from several folders keep apart."""
    names = (f"{file.stem}.png" if number == 0 else f"{file.stem}-{number}.png" for number in range(len(taken) + 1))
    return out / next(name for name in names if name not in taken)


def _in_picture(box: np.ndarray, size: int, picture_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box of the model's image in the picture; edges go to edges."""
    width, height = picture_size
    x0, y0, x1, y1 = (box * np.array([width - 1, height - 1] * 2) / (size - 1)).round().astype(int).tolist()
    return x0, y0, x1, y1


def _sheet(picture: Image.Image, overlay: Image.Image, located: Located, how: str) -> Image.Image:
    """The picture beside its overlay, both with the box, under a line with the class and how the box was found."""
    width = max(2, round(max(picture.size) / 150))
    for each in (drawn := picture.copy(), overlay):
        ImageDraw.Draw(each).rectangle(located.box, outline=(230, 120, 0), width=width)
    letters = max(11, round(max(picture.size) / 30))
    top = round(1.5 * letters)
    sheet = Image.new("RGB", (2 * picture.width + width, picture.height + top), "white")
    said = f"{describe_class(located)}; box: {how}"
    ImageDraw.Draw(sheet).text((width, top // 6), said, fill="black", font=ImageFont.load_default(letters))
    sheet.paste(drawn, (0, top))
    sheet.paste(overlay, (picture.width + width, top))
    return sheet


def describe_class(located: Located) -> str:
    """The class of a picture and its probability, in words."""
    return f"class {' '.join(filter(None, [str(located.target), located.name]))} ({located.probability:.1%})"
