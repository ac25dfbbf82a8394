"""Commands for data sets."""

from pathlib import Path
from typing import Annotated

import typer

from wsolkit.cli.options import DataRoot
from wsolkit.cli.output import interruptible

app = typer.Typer(no_args_is_help=True, help="Data sets: what was found, what is missing, where to get it.")

Dataset = Annotated[str, typer.Argument(help="A data set, e.g. cub, ilsvrc, openimages, tiny_imagenet, imagewoof.")]
DataFolder = Annotated[Path, typer.Option("--data-root", help="Folder of the real data sets.")]

#: What `get` takes beside the names of data sets.
WEIGHTS = "weights"


@app.command()
def check(name: Dataset, data_root: DataFolder = Path("data")) -> None:
    """List what a data set needs and how much of it was found; exit code 1 if it is not complete.

    Example: wsolkit data check cub --data-root data
    """
    from wsolkit import datasets

    parts = datasets.find_published(name).parts(data_root)
    if not data_root.expanduser().exists():
        typer.echo(f"{data_root} does not exist.", err=True)
    typer.echo(datasets.describe(parts) if parts else f"{name} needs no files.")
    if any(part.state != "ok" for part in parts):
        raise typer.Exit(1)


@app.command()
def get(
    name: Annotated[str, typer.Argument(help=f"A data set that `check` knows, or {WEIGHTS!r}.")],
    data_root: DataFolder = Path("data"),
    model: Annotated[str | None, typer.Option("--name", help=f"Of {WEIGHTS!r}: a model, e.g. mobilenet_v2.")] = None,
) -> None:
    """Download, verify and unpack what needs neither a login nor a browser; then do as `check` does.

    Weights go where torchvision keeps them, or into the folder that WSOLKIT_WEIGHTS names.

    Example: wsolkit data get imagewoof

    Example: wsolkit data get weights --name mobilenet_v2
    """
    from wsolkit import datasets, models
    from wsolkit.datasets import _downloads
    from wsolkit.localize import classifiers
    from wsolkit.system import folders

    if (name == WEIGHTS) != (model is not None):
        raise typer.BadParameter(f"--name goes with {WEIGHTS!r}: `wsolkit data get {WEIGHTS} --name mobilenet_v2`.")
    if model is not None:
        with interruptible():
            published = classifiers.imagenet_weights(model)
            file, digits = models.torchvision_name(published)
            archive = datasets.Archive(file, published.url, f"sha256:{digits}")
            typer.echo(f"{_downloads.download(archive, folders.weights_root())} is there")
        return
    source = datasets.find_published(name)
    complete = all(part.state == "ok" for part in source.parts(data_root))
    with interruptible():
        for archive in () if complete else source.archives:
            typer.echo(f"{archive.name} from {archive.url}: {archive.licence}.")
            typer.echo(f"Unpacked in {_downloads.fetch(archive, data_root.expanduser())}")
    check(name, data_root)


@app.command()
def sample(
    name: Annotated[str, typer.Argument(help="A data set, e.g. synthetic_birds, synthetic_objects, tiny_imagenet.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")],
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 8,
    data_root: DataRoot = None,
) -> None:
    """Write a few test pictures of a data set as files, to try `localize` and `your_own_model` with.

    Example: wsolkit data sample synthetic_birds --out photos
    """
    from wsolkit.localize import localization

    written = localization.write_samples(name, out, count, data_root)
    typer.echo(f"{len(written)} pictures of {name} in {out}")


@app.command()
def verify() -> None:
    """Check all cached images against their checksums; exit code 1 if one was altered.

    Example: wsolkit data verify
    """
    from wsolkit import datasets
    from wsolkit.system.folders import cache_root

    folders = [path for path in sorted(cache_root().glob("[!.]*")) if path.is_dir()]
    problems = [problem for folder in folders for problem in datasets.verify(folder)]
    for problem in problems:
        typer.echo(problem, err=True)
    typer.echo(f"{len(folders)} cached splits read, {len(problems)} problems")
    if problems:
        raise typer.Exit(1)
