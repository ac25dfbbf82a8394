"""Where a classifier looks in pictures: a box in each, and the picture beside its map."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from wsolkit import datasets
from wsolkit.decomposition import THRESHOLD, decompose
from wsolkit.errors import DataError, turned_into
from wsolkit.localize.classifiers import USUAL_SIZE
from wsolkit.localize.pictures import check_names, find_pictures, read_pictures
from wsolkit.system.atomic_files import atomic_file, writable_folder, write_file
from wsolkit.system.progress import progress
from wsolkit.training.loading import normalise

#: The file with all results, beside the pictures.
RESULTS = "localized.json"

#: Bytes of a picture's name that the written picture's name takes over; file systems allow 255 in all.
NAME_BYTES = 180


@dataclass(frozen=True)
class Located:
    """Where a classifier looked in one picture.

    Attributes:
        image: the file.
        target: class index.
        name: of the class; None if no names were given.
        probability: of that class, in [0, 1].
        box: ``x0, y0, x1, y1`` in pixels of the picture, ends included, around the largest contour.
        picture_size: width and height of the picture in pixels, turned as viewers show it.
        annotated: the written picture, with the box, beside the map.
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
    """The results for several pictures.

    Attributes:
        found: a result for each picture that could be read.
        unreadable: what is wrong with each of the others.
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

    Pictures are resized to a square whatever their shape, as a `Recipe`'s images are; boxes are in the picture's own
    pixels. A picture that cannot be read is listed, and the others are done. Only what an earlier call wrote is written
    over.

    Args:
        model: a classifier that `wsolkit.decompose` takes.
        files: pictures; a folder stands for the pictures in it.
        out: folder for ``<name>.png`` and ``localized.json``; made for the first result.
        size: side in pixels to which pictures are resized for the model.
        kind: the map that gives the box: ``"cam"``, ``"norm"`` or ``"similarity"``.
        threshold: share of the map's maximum above which a cell is inside.
        target: class index; None takes each picture's most probable class.
        names: of the classes; with none, classes are numbers.
        origin: what else the JSON says, e.g. where the model comes from.

    Raises:
        DataError: if there is no picture at all, one does not exist, the number of names is not that of the classes,
            or the model cannot take images of this size.
        DecompositionError: if the model's head is of another kind, or it has no such class.
    """
    chosen = find_pictures(files)
    settings = {**(origin or {}), "size": size, "kind": kind, "threshold": threshold, "target": target}
    inside = {file.resolve().name for file in chosen if file.resolve().parent == out.resolve()}
    taken = inside | ({file.name for file in out.glob("*")} - _written(out / RESULTS))
    found: list[Located] = []
    unreadable: list[str] = []
    try:
        for file, picture in read_pictures(progress(chosen, "pictures"), unreadable):
            images, first = squared(picture, size)[None], next(model.parameters())
            # Networks raise anything over images that are too small for them.
            what = f"{type(model).__name__} cannot take images of {size}x{size} pixels"
            with turned_into(DataError, what, "Give another --size, e.g. 224."):
                result = decompose(model, normalise(images, first.device).to(first.dtype), target)
            label, logits = int(result.target[0]), result.logits[0]
            check_names(names, len(logits))
            writable_folder(out)  # only now: what is refused above leaves no empty folder behind
            x0, y0, x1, y1 = box = box_in_picture(result.boxes(threshold, kind)[0], size, picture.size)
            located = Located(
                image=str(file),
                target=label,
                name=names[label] if names else None,
                probability=round(float(logits.softmax(0)[label]), 4),
                box=box,
                picture_size=picture.size,
                annotated=str(out / _free_name(file, taken)),
                share=round((x1 - x0 + 1) * (y1 - y0 + 1) / (picture.width * picture.height), 4),
            )
            overlay = Image.fromarray(result.overlay(images, kind)[0])
            sheet = _sheet(picture, overlay, located, f"{kind} above {threshold:g}")
            with atomic_file(Path(located.annotated)) as partial:
                sheet.save(partial, format="png")
            found.append(located)
    finally:
        if found:
            written = {"settings": settings, "pictures": [*map(asdict, found)], "unreadable": unreadable}
            write_file(out / RESULTS, json.dumps(written, indent=2) + "\n")
    return Localized(tuple(found), tuple(unreadable))


def write_samples(dataset: str, folder: Path, count: int, data_root: Path | None = None) -> list[Path]:
    """Write some test pictures of a data set as PNGs of 224x224 pixels, spread evenly over the split.

    Args:
        dataset: its name.
        folder: made if it does not exist.
        count: how many; at most the whole split.
        data_root: folder or archive of real data; drawn data needs none.

    Returns:
        The files, each named after the last part of its image's id.

    Raises:
        RecipeError: for an unknown data set.
        DataError: if the data is missing.
        WsolkitError: if the folder cannot be written.
    """
    data = datasets.open_dataset(dataset, "test", USUAL_SIZE, data_root=data_root)
    numbers = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)
    files, taken = list[Path](), set[str]()
    for found in map(data.__getitem__, numbers.tolist()):
        files.append(writable_folder(folder) / _free_name(Path(found.image_id), taken))
        with atomic_file(files[-1]) as partial:
            Image.fromarray(found.image).save(partial, format="png")
    return files


def read_folder(folder: Path, size: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """All pictures of a folder in the order of their names, resized to squares whatever their shape.

    Args:
        folder: the folder.
        size: side in pixels.

    Returns:
        (B, size, size, 3) uint8, and what is wrong with each picture that could not be read.

    Raises:
        DataError: if there is no such folder, or no picture in it that can be read.
    """
    if not os.path.isdir(folder):
        raise DataError(f"{folder} is not a folder. Name one that holds pictures.")
    unreadable: list[str] = []
    pictures = [squared(picture, size) for _, picture in read_pictures(find_pictures([folder]), unreadable)]
    if not pictures:
        raise DataError(f"No picture in {folder} can be read. {unreadable[0]}")
    return np.stack(pictures), tuple(unreadable)


def squared(picture: Image.Image, size: int) -> np.ndarray:
    """A picture resized to a square: (size, size, 3) uint8."""
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))


def box_in_picture(box: np.ndarray, size: int, picture_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box of the squared image of ``size`` pixels as a box of the picture; edges go to edges."""
    width, height = picture_size
    x0, y0, x1, y1 = (box * np.array([width - 1, height - 1] * 2) / (size - 1)).round().astype(int).tolist()
    return x0, y0, x1, y1


def _free_name(file: Path, taken: set[str]) -> str:
    """The name for a written picture, which is then taken; pictures of one name from several folders are numbered."""
    stem = file.stem.encode(errors="surrogateescape")[:NAME_BYTES].decode(errors="ignore")
    names = [f"{stem}.png", *(f"{stem}-{number}.png" for number in range(1, len(taken) + 1))]
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


def _written(results: Path) -> set[str]:
    """The names of the pictures that an earlier call wrote into a folder; none if nothing says so."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        return {Path(each["annotated"]).name for each in json.loads(results.read_bytes())["pictures"]}
    return set()


def _sheet(picture: Image.Image, overlay: Image.Image, located: Located, how: str) -> Image.Image:
    """The picture beside its overlay, both with the box, under a line with the class and how the box was found."""
    line = max(2, round(max(picture.size) / 150))
    width, top = picture.width + line, 8 * line
    sheet = Image.new("RGB", (width + picture.width, picture.height + top), "white")
    for left, each in ((0, picture), (width, overlay.resize(picture.size, Image.Resampling.BILINEAR))):
        ImageDraw.Draw(each).rectangle(located.box, outline=(230, 120, 0), width=line)
        sheet.paste(each, (left, top))
    font, text = ImageFont.load_default(5 * line), f"{describe_class(located)}; box: {how}"
    ImageDraw.Draw(sheet).text((line, line), text, fill="black", font=font)
    return sheet


def describe_class(located: Located) -> str:
    """The class of a picture and its probability, in words."""
    return f"class {' '.join(filter(None, [str(located.target), located.name]))} ({located.probability:.1%})"
