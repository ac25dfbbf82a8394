"""Commands for the user's own score maps and pictures."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from wsolkit.cli.options import output_file, output_folder
from wsolkit.errors import RecipeError

#: The smallest step between thresholds; maps are judged in 8 bits, so finer ones change nothing.
FINEST = 1e-5


def evaluate(
    score_maps: Annotated[Path, typer.Option(help="Folder of score maps, <image_id>.npy.")],
    metadata: Annotated[Path, typer.Option(help="The benchmark's metadata folder of a split, e.g. metadata/CUB/test.")],
    mask_root: Annotated[Path | None, typer.Option(help="Folder of the masks that localization.txt names.")] = None,
    threshold_step: Annotated[float, typer.Option(help="Step between score-map thresholds.")] = 0.001,
    contours: Annotated[Literal["all", "largest"], typer.Option(help="all: MaxBoxAccV2; largest: MaxBoxAcc.")] = "all",
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Also write the result to this file.", parser=output_file, metavar="PATH"),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Maps judged at once; all cores by default.")] = None,
) -> None:
    """Score anybody's score maps, to the pixel as the WSOL benchmark does.

    Example: wsolkit evaluate --score-maps scoremaps --metadata metadata/CUB/test --json result.json
    """
    from wsolkit import datasets
    from wsolkit.metrics.score_maps import describe, score_folder, write_json
    from wsolkit.system import processes

    if not FINEST <= threshold_step < 1:
        raise RecipeError(f"--threshold-step {threshold_step}: expected a number from {FINEST} to below 1, e.g. 0.001.")
    split, workers = datasets.read_metadata(metadata), threads or processes.cores()
    result = score_folder(score_maps, split, mask_root, threshold_step, contours, workers)
    if json_file is not None:
        write_json(result, json_file)
    typer.echo(describe(result))


def localize(
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    weights: Annotated[Path, typer.Option(help="imagenet, a run (folder or key) or a state dict: .safetensors, .pth.")],
    model: Annotated[
        str | None, typer.Option(help="Of imagenet or a state dict: torchvision's or the kit's (default: resnet50).")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=16, max=4096, help="Pictures become squares of this side (default: the run's, or 224)."),
    ] = None,
    kind: Annotated[Literal["cam", "norm", "similarity"], typer.Option(help="The map that gives the box.")] = "cam",
    threshold: Annotated[float, typer.Option(min=0, max=0.99, help="Share of the map's maximum.")] = 0.2,
    target: Annotated[int | None, typer.Option(min=0, help="Class index (default: the most probable class).")] = None,
    classes: Annotated[Path | None, typer.Option(help="Text file of class names, one per line.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.", parser=output_folder, metavar="PATH")] = Path(
        "localized"
    ),
) -> None:
    """Show where a classifier looked in your own pictures: box, map, and JSON.

    Example: wsolkit localize dog.jpg --model mobilenet_v2 --weights imagenet

    Example: wsolkit localize bird.jpg --model resnet50 --weights resnet50.pth

    Example: wsolkit localize photos/ --weights KEY_OF_A_RUN --threshold 0.4
    """
    from wsolkit.localize.pictures import find_pictures, read_names

    names = read_names(classes) if classes else ()
    pictures = find_pictures(images)

    from wsolkit.localize import classifiers, localization  # PyTorch takes seconds to load

    opened = classifiers.open_classifier(weights, model, size)
    origin = {"weights": str(weights), "model": opened.name}
    done = localization.localize_files(
        opened.network, pictures, out, opened.size, kind, threshold, target, names or opened.classes, origin
    )
    for found in done.found:
        typer.echo(f"{found.image}: {localization.describe_class(found)}, box {found.box}, {found.annotated}")
    for problem in done.unreadable:
        typer.echo(problem, err=True)
    count = f"{len(done.found)} done with {opened.name} at {opened.size} pixels"
    where = f"results in {out}" if done.found else "nothing written"
    typer.echo(f"{count}, {len(done.unreadable)} unreadable; {where}")
    if done.unreadable:
        raise typer.Exit(1)
