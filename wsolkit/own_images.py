"""Anybody's pictures with anybody's classifier: where did it look?"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from wsolkit import models
from wsolkit.batches import normalise
from wsolkit.boxes import scale_boxes
from wsolkit.decomposition import decompose
from wsolkit.errors import CheckpointError, DataError, unknown
from wsolkit.files import atomic_file, writable_folder
from wsolkit.progress import progress

RESULTS = "localized.json"
PIXELS = 64_000_000
"""Pictures of more pixels are refused before they are decoded."""


@dataclass(frozen=True)
class Located:
    """Where a classifier looked in one picture.

    Attributes:
        image: the file.
        target: class index.
        probability: of that class, in [0, 1].
        box: ``x0, y0, x1, y1`` in pixels of the picture, of the largest contour.
        annotated: the written picture; the box beside the map.
    """

    image: str
    target: int
    probability: float
    box: tuple[int, int, int, int]
    annotated: str


def load_classifier(name: str, weights: Path) -> nn.Module:
    """A classifier with weights from a file.

    Args:
        name: one of the kit's backbones, or a model of torchvision, e.g. ``"resnet50"``.
        weights: a state dict, ``.safetensors`` (a run's ``best.safetensors``, say) or ``.pth``; no code in it is run.

    Raises:
        RecipeError: for an unknown name.
        CheckpointError: if the file is missing, or does not fit.
    """
    from torchvision import models as torchvision_models

    others = torchvision_models.list_models(module=torchvision_models)
    if name not in (*models.names(), *others):
        raise unknown("model", name, [*models.names(), *others])
    state = models.read_state_dict(weights)
    last = [tensor for key, tensor in state.items() if key.endswith("weight") and tensor.ndim == 2]
    if not last:
        raise CheckpointError(f"{weights} has no weights of a linear layer; expected the state dict of a {name}.")
    classes = len(last[-1])
    fits = None
    for build in _builders(name, others):
        model = build(classes)
        try:
            model.load_state_dict(state)
            return model.eval()
        except RuntimeError as error:
            fits = " ".join(str(error).split())[:300]
    raise CheckpointError(f"{weights} does not fit {name}: {fits}")


def _builders(name: str, others: Sequence[str]) -> Iterator:
    """The kit's own backbone, then torchvision's of the same name: both may be called resnet50."""
    if name in models.names():
        yield lambda classes: models.build(name, classes)
    if name in others:
        from torchvision.models import get_model

        yield lambda classes: get_model(name, weights=None, num_classes=classes)


def localize_files(
    model: nn.Module,
    files: Sequence[Path],
    out: Path,
    size: int = 224,
    kind: str = "cam",
    threshold: float = 0.2,
    target: int | None = None,
) -> list[Located]:
    """Localize in each picture, and write it with its box beside its map, and all results as JSON.

    Args:
        model: a classifier that `wsolkit.decompose` takes.
        files: pictures; a folder stands for those in it.
        out: folder for ``<name>.png`` and ``localized.json``.
        size: side in pixels to which pictures are resized for the model.
        kind: the map that gives the box: ``"cam"``, ``"norm"`` or ``"similarity"``.
        threshold: share of the map's maximum above which a cell is inside.
        target: class index; None takes each picture's most probable class.

    Raises:
        DataError: if a picture cannot be read; those before it are written.
        DecompositionError: if the model's head is another.
    """
    writable_folder(out)
    device = next(model.parameters()).device
    found: list[Located] = []
    for file in progress(_pictures(files), "pictures"):
        picture = _read(file)
        small = _resized(picture, size)
        wanted = None if target is None else torch.tensor([target], device=device)
        result = decompose(model, normalise(small[None], device), wanted)
        box = scale_boxes(result.boxes(threshold, kind), size, size, (picture.height, picture.width))[0]
        overlay = Image.fromarray(result.overlay(small[None], kind)[0]).resize(picture.size, Image.Resampling.BILINEAR)
        annotated = _free_name(out, file, [Path(each.annotated).name for each in found])
        with atomic_file(annotated) as partial:
            _beside(picture, overlay, tuple(box.tolist())).save(partial, format="png")
        chosen = int(result.target[0])
        probability = float(result.logits.softmax(1)[0, chosen])
        found.append(Located(str(file), chosen, round(probability, 4), tuple(box.tolist()), str(annotated)))
        with atomic_file(out / RESULTS) as partial:
            partial.write_text(json.dumps([asdict(each) for each in found], indent=2))
    return found


def read_folder(folder: Path, size: int) -> np.ndarray:
    """All pictures of a folder, by name: (B, size, size, 3) uint8, resized without regard to their shape.

    Raises:
        DataError: if there are none, or one cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. Name one that holds pictures.")
    return np.stack([_resized(_read(file), size) for file in _pictures([folder])])


def _resized(picture: Image.Image, size: int) -> np.ndarray:
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))


def _pictures(files: Sequence[Path]) -> list[Path]:
    known = {extension for extension, name in Image.registered_extensions().items() if name in Image.OPEN}
    found = []
    for file in files:
        inside = sorted(each for each in file.iterdir() if each.suffix.lower() in known) if file.is_dir() else [file]
        found += inside
    if not found:
        raise DataError(
            f"No pictures in {', '.join(map(str, files)) or 'nothing'}. Name files, or folders that hold some."
        )
    return found


def _read(file: Path) -> Image.Image:
    try:
        with Image.open(file) as opened:
            if opened.width * opened.height > PIXELS:
                raise DataError(f"{file} has {opened.width}x{opened.height} pixels; make it smaller first.")
            return opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"Cannot read {file} as a picture: {error}.") from error


def _free_name(out: Path, file: Path, taken: Sequence[str]) -> Path:
    """Pictures of one name from several folders keep apart."""
    names = (f"{file.stem}.png" if number == 0 else f"{file.stem}-{number}.png" for number in range(len(taken) + 1))
    return out / next(name for name in names if name not in taken)


def _beside(picture: Image.Image, overlay: Image.Image, box: tuple[int, ...]) -> Image.Image:
    width = max(2, round(max(picture.size) / 150))
    for each in (drawn := picture.copy(), overlay):
        ImageDraw.Draw(each).rectangle(box, outline=(230, 120, 0), width=width)
    sheet = Image.new("RGB", (2 * picture.width + width, picture.height), "white")
    sheet.paste(drawn, (0, 0))
    sheet.paste(overlay, (picture.width + width, 0))
    return sheet
