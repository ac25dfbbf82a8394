"""Commands for the user's own score maps and pictures."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from wsolkit.errors import RecipeError


class MapKind(StrEnum):
    """Maps that a box can come from."""

    cam = "cam"
    norm = "norm"
    similarity = "similarity"


class Contours(StrEnum):
    """Which contours give boxes."""

    all = "all"
    largest = "largest"


def evaluate(
    score_maps: Annotated[Path, typer.Option(help="Folder of score maps, <image_id>.npy.")],
    metadata: Annotated[Path, typer.Option(help="The benchmark's metadata folder of a split, e.g. metadata/CUB/test.")],
    mask_root: Annotated[Path | None, typer.Option(help="Folder of the masks that localization.txt names.")] = None,
    threshold_step: Annotated[float, typer.Option(help="Step between score-map thresholds.")] = 0.001,
    contours: Annotated[Contours, typer.Option(help="all: MaxBoxAccV2; largest: MaxBoxAcc.")] = Contours.all,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the result to this file.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Maps judged at once; all cores if not given.")] = None,
) -> None:
    """Score anybody's score maps, to the pixel as the WSOL benchmark does.

    Example: wsolkit evaluate --score-maps scoremaps --metadata metadata/CUB/test --json result.json
    """
    from wsolkit import datasets, processes
    from wsolkit.score_maps import describe, score_folder, write_json

    if not 0 < threshold_step < 1:
        raise RecipeError(f"--threshold-step {threshold_step}: expected a number between 0 and 1, e.g. 0.001.")
    split, workers = datasets.read_metadata(metadata), threads or processes.cores()
    result = score_folder(score_maps, split, mask_root, threshold_step, contours.value, workers)
    if json_file is not None:
        write_json(result, json_file)
    typer.echo(describe(result))


def localize(
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of some.")],
    weights: Annotated[Path, typer.Option(help="State dict: .safetensors (a run's best.safetensors, say) or .pth.")],
    model: Annotated[str, typer.Option(help="A backbone of the kit, or a model of torchvision.")] = "resnet50",
    size: Annotated[int, typer.Option(min=16, help="Side of the model's images in pixels.")] = 224,
    kind: Annotated[MapKind, typer.Option(help="The map that gives the box.")] = MapKind.cam,
    threshold: Annotated[float, typer.Option(min=0, max=0.99, help="Share of the map's maximum.")] = 0.2,
    target: Annotated[int | None, typer.Option(min=0, help="Class index; the most probable if not given.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for annotated pictures and localized.json.")] = Path("localized"),
) -> None:
    """Show where a classifier looked in your own pictures: box, map, and JSON.

    Example: wsolkit localize bird.jpg --model resnet50 --weights resnet50.pth

    Example: wsolkit localize bird.jpg --model mini_vgg --size 64 --weights runs/KEY/best.safetensors
    """
    from wsolkit import own_images

    classifier = own_images.load_classifier(model, weights)
    for found in own_images.localize_files(classifier, images, out, size, kind.value, threshold, target):
        typer.echo(f"{found.image}: class {found.target} ({found.probability:.0%}), box {found.box}, {found.annotated}")
