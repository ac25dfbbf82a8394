"""The shell: thin commands over the package's functions."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsolkit.errors import RecipeError, WsolkitError

if TYPE_CHECKING:
    from wsolkit.batch import Outcome
    from wsolkit.runs import RunStore

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False)
data = typer.Typer(no_args_is_help=True, help="Real data sets: what is there, what is missing, where to get it.")
app.add_typer(data, name="data")
runs = typer.Typer(no_args_is_help=True, help="The run store: what is in it, whether it is whole, what could go.")
app.add_typer(runs, name="runs")

DataRoot = Annotated[Path | None, typer.Option(help="Folder or zip of real data; drawn data needs none.")]
Names = Annotated[list[str] | None, typer.Argument(help="Notebooks, e.g. table7_ablation; all if none.")]
ProfileName = Annotated[str | None, typer.Option("--profile", help="smoke, demo (default), photos or paper.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="name=value, a notebook's parameter.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]

Dataset = Annotated[str, typer.Argument(help="A data set, e.g. cub, ilsvrc, openimages, tiny_imagenet.")]
DataFolder = Annotated[Path, typer.Option("--data-root", help="Folder of the real data sets.")]


class Precision(StrEnum):
    """Precision of the network's passes."""

    float32 = "float32"
    bf16 = "bf16"
    fp16 = "fp16"


PrecisionOption = Annotated[Precision, typer.Option(help="Of the network's passes; bf16 and fp16 for a GPU.")]


class Executor(StrEnum):
    """Where runs are trained."""

    local = "local"
    slurm = "slurm"


class MapKind(StrEnum):
    """Maps that a box can come from."""

    cam = "cam"
    norm = "norm"
    similarity = "similarity"


class Contours(StrEnum):
    """Which contours give boxes."""

    all = "all"
    largest = "largest"


@app.callback()
def about() -> None:
    """Reproduce "Bridging the Gap between Classification and Localization for WSOL" (CVPR 2022)."""


@app.command()
def reproduce(
    names: Names = None,
    profile: ProfileName = None,
    settings: Settings = None,
    data_root: DataRoot = None,
    out_root: Annotated[Path | None, typer.Option(help="Folder for tables and figures, above PROFILE/.")] = None,
    device: Device = "auto",
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs and notebooks at once; by default one a core.")] = None,
    precision: PrecisionOption = Precision.float32,
    executor: Annotated[Executor, typer.Option(help="Where runs are trained.")] = Executor.local,
    wait: Annotated[bool, typer.Option(help="Wait for runs on Slurm; without, a later call goes on.")] = True,
    slurm_partition: Annotated[str | None, typer.Option(help="Partition.")] = None,
    slurm_minutes: Annotated[int, typer.Option(min=1, help="Time limit of a task, which is then requeued.")] = 1440,
    slurm_gpus: Annotated[int, typer.Option(min=0, help="GPUs of a task.")] = 1,
    slurm_cpus: Annotated[int, typer.Option(min=1, help="Cores of a task.")] = 8,
    slurm_memory: Annotated[int | None, typer.Option(min=1, help="GB of memory of a task.")] = None,
    slurm_at_once: Annotated[int, typer.Option(min=1, help="Tasks at the same time.")] = 64,
    slurm: Annotated[list[str] | None, typer.Option(help="name=value, any other option of sbatch.")] = None,
) -> None:
    """Run notebooks: tables and figures appear under figures/PROFILE/.

    Example: wsolkit reproduce table7_ablation --profile smoke --set seeds=[0]

    On a cluster: wsolkit reproduce --profile paper --data-root data --executor slurm --slurm-partition gpu
    """
    from wsolkit import batch, gallery, notebook_files
    from wsolkit.slurm import Resources, SlurmCluster

    parameters = notebook_files.parse_settings(settings or [])
    parameters |= {"device": device} if device != "auto" else {}
    roots = {"data_root": data_root, "out_root": out_root}
    parameters |= {name: str(path) for name, path in roots.items() if path is not None}
    more = {name: str(value) for name, value in notebook_files.parse_settings(slurm or []).items()}
    asked = (slurm_partition, slurm_minutes, slurm_gpus, slurm_cpus, slurm_memory, slurm_at_once, more)
    cluster = SlurmCluster(Resources(*asked), wait) if executor == Executor.slurm else None
    start = time.monotonic()
    with _interruptible():
        outcomes = batch.reproduce(
            names or [], profile, parameters, jobs, on_done=_report, cluster=cluster, precision=precision.value
        )
    failed = [outcome.notebook for outcome in outcomes if outcome.failure]
    skipped = [outcome.notebook for outcome in outcomes if outcome.skipped]
    seconds = time.monotonic() - start
    typer.echo(f"everything at a glance: {outcomes[0].executed.with_name(gallery.PAGE)}")
    done = len(outcomes) - len(failed) - len(skipped)
    left = f", {len(skipped)} skipped" if skipped else ""
    typer.echo(f"{done} done{left}, {len(failed)} failed in {seconds:.0f} s" + _listed(failed))
    if failed:
        raise typer.Exit(1)


@app.command()
def plan(
    names: Names = None,
    profile: ProfileName = None,
    settings: Settings = None,
    images_per_second: Annotated[float, typer.Option(min=0.01, help="Training speed to estimate the time with.")] = 250,
) -> None:
    """List the unique runs behind notebooks: what is done, what is missing, how long it may take.

    Example: wsolkit plan --profile paper --images-per-second 400
    """
    from wsolkit import notebook_files, paths, planning
    from wsolkit.runs import RunStore
    from wsolkit.training import Place

    wanted = planning.plan(names or [], profile, notebook_files.parse_settings(settings or []))
    typer.echo(planning.describe(wanted.table(RunStore(paths.runs_root(), Place())), images_per_second))
    for name, why in wanted.skipped.items():
        typer.echo(f"{name} is left out: {why}")


@app.command()
def rehearse(
    names: Names = None,
    profile: ProfileName = "paper",
    settings: Settings = None,
    batch_size: Annotated[int, typer.Option(min=0, help="Images in the step; 0 takes each recipe's own.")] = 2,
    data_root: DataRoot = None,
    device: Device = "auto",
) -> None:
    """Take one step and judge one batch with every distinct recipe, at full size; exit code 1 where one fails.

    Weights are random, and pictures generated where the data are not there. Nothing is written.
    """
    from wsolkit import notebook_files, planning, rehearsal
    from wsolkit.training import Place

    recipes = planning.plan(names or [], profile, notebook_files.parse_settings(settings or [])).recipes
    failed = 0
    with _interruptible():
        for done in rehearsal.rehearse(recipes, Place(data_root=data_root, device=device), batch_size or None):
            failed += done.failure is not None
            typer.echo(rehearsal.describe(done))
    for backbone, file in rehearsal.weights_at_hand(recipes).items():
        typer.echo(f"ImageNet weights of {backbone}: {file or 'not there yet; training will say where to put them'}")
    typer.echo(f"{len(rehearsal.distinct(recipes))} distinct recipes rehearsed, {failed} failed")
    if failed:
        raise typer.Exit(1)


@app.command()
def doctor(data_root: DataRoot = None) -> None:
    """Examine this machine: environment, kernel, devices, folders, runs, data; exit code 1 where something is wrong."""
    from wsolkit import doctor as examination

    findings = list(examination.examine(data_root))
    typer.echo(examination.describe(findings))
    if any(finding.state == "wrong" for finding in findings):
        raise typer.Exit(1)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe as JSON, e.g. recipe.json of a run.")],
    data_root: DataRoot = None,
    device: Device = "auto",
    precision: Annotated[
        Precision, typer.Option(help="Of the network's passes; bf16 and fp16 on a GPU.")
    ] = Precision.float32,
    parts: Annotated[int, typer.Option(min=1, help="Passes a batch is split into, to save memory.")] = 1,
) -> None:
    """Train one recipe, or find that it has been trained, and print its folder.

    Several GPUs: torchrun --nproc-per-node 4 -m wsolkit train recipe.json --precision bf16
    """
    from wsolkit import paths
    from wsolkit.recipes import Recipe
    from wsolkit.runs import RunStore
    from wsolkit.training import Place

    place = Place(data_root, device, paths.cache_root(), precision.value, parts)
    with _interruptible():
        run = RunStore(paths.runs_root(), place).get(Recipe.from_file(recipe))
    typer.echo(run.folder)


@app.command()
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


@app.command()
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
    """Show where a classifier looked in your own pictures: box and map beside each other, and JSON.

    Example: wsolkit localize bird.jpg --model mini_vgg --size 64 --weights runs/KEY/best.safetensors
    """
    from wsolkit import own_images

    classifier = own_images.load_classifier(model, weights)
    for found in own_images.localize_files(classifier, images, out, size, kind.value, threshold, target):
        typer.echo(f"{found.image}: class {found.target} ({found.probability:.0%}), box {found.box}, {found.annotated}")


@data.command("check")
def data_check(name: Dataset, data_root: DataFolder) -> None:
    """List what a data set needs and what of it is there; exit code 1 where it is not complete."""
    from wsolkit import datasets

    parts = datasets.check(name, data_root)
    typer.echo(datasets.describe(parts) if parts else f"{name} is drawn: it needs no data.")
    if any(part.state != "ok" for part in parts):
        raise typer.Exit(1)


@data.command("get")
def data_get(name: Dataset, data_root: DataFolder) -> None:
    """Download, verify and unpack what needs neither login nor browser; then as `check`, with where to get the rest."""
    from wsolkit import datasets, downloads

    complete = all(part.state == "ok" for part in datasets.check(name, data_root))
    for archive in () if complete else datasets.archives(name):
        typer.echo(f"{archive.name} from {archive.url}: {archive.licence}.")
        typer.echo(f"{downloads.fetch(archive, data_root.expanduser())} is there.")
    data_check(name, data_root)


@data.command("verify")
def data_verify() -> None:
    """Read all cached images against the sums they were written with; exit code 1 where one was altered."""
    from wsolkit import datasets, paths

    folders = [path for path in sorted(paths.cache_root().glob("[!.]*")) if path.is_dir()]
    problems = [problem for folder in folders for problem in datasets.verify(folder)]
    for problem in problems:
        typer.echo(problem, err=True)
    typer.echo(f"{len(folders)} cached splits read, {len(problems)} problems")
    if problems:
        raise typer.Exit(1)


def _store() -> "RunStore":
    from wsolkit import paths
    from wsolkit.runs import RunStore
    from wsolkit.training import Place

    return RunStore(paths.runs_root(), Place())


@runs.command("list")
def runs_list() -> None:
    """List all runs: what they train, how far they are, GT-known Loc on the test split, space on disk."""
    from wsolkit import housekeeping

    table = housekeeping.listing(_store())
    typer.echo("No runs yet." if table.empty else table.to_string(index=False, na_rep=""))


@runs.command("show")
def runs_show(run: Annotated[str, typer.Argument(help="A run's key, or how it begins.")]) -> None:
    """Show a run: its recipe, how it came about, its rates.

    Example: wsolkit runs show 4539
    """
    from wsolkit import housekeeping

    store = _store()
    typer.echo(housekeeping.describe(store, housekeeping.find(store, run)))


@runs.command("verify")
def runs_verify(names: Annotated[list[str] | None, typer.Argument(help="Runs; all if none.")] = None) -> None:
    """Read all checkpoints against their hashes, and all reports; exit code 1 where something is wrong."""
    from wsolkit import housekeeping

    store = _store()
    chosen = [housekeeping.find(store, name) for name in names or []] or housekeeping.folders(store)
    broken = 0
    for checked in housekeeping.verify(store, chosen):
        broken += bool(checked.problems)
        for problem in checked.problems:
            typer.echo(f"{checked.run}: {problem}", err=True)
    typer.echo(f"{len(chosen)} runs read, {broken} with problems")
    if broken:
        raise typer.Exit(1)


@runs.command("gc")
def runs_gc(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Remove what no finished run needs, after asking; runs themselves always stay."""
    from wsolkit import housekeeping

    found = housekeeping.garbage(_store())
    for each in found:
        typer.echo(f"{each.size / 1e6:9.1f} MB  {each.path}: {each.why}")
    typer.echo(f"{sum(each.size for each in found) / 1e6:9.1f} MB in all")
    if found and (yes or typer.confirm("Remove these?")):
        housekeeping.remove(found)
        typer.echo("removed")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Say after Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("Interrupted. All finished epochs are kept; the same command goes on from there.", err=True)
        raise typer.Exit(130) from None


def _listed(names: list[str]) -> str:
    return f": {', '.join(names)}" if names else ""


def _report(outcome: "Outcome") -> None:
    state = "failed" if outcome.failure else "skipped" if outcome.skipped else "done"
    typer.echo(f"{state:7} {outcome.notebook:24} {outcome.seconds:7.1f} s  {outcome.executed}")
    if outcome.skipped:
        typer.echo(f"         {outcome.skipped}")
    if outcome.failure:
        typer.echo(f"{outcome.notebook} failed in {outcome.failure}\n", err=True)


def main() -> None:
    """Entry point: an error that the user can put right is one line and exit code 2, without a traceback."""
    try:
        app()
    except WsolkitError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(2)
