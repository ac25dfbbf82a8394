"""Commands for the paper's experiments."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wsolkit.cli.options import Compile, DataRoot, Device, Names, Precision, ProfileName, Settings
from wsolkit.cli.output import interruptible, show_table

if TYPE_CHECKING:
    from wsolkit.reproduce.planning import Plan
    from wsolkit.reproduce.runner import Outcome


SLURM = "On a cluster"
RESOURCES = "name=value: minutes, gpus, cpus, memory_gb (of a task), at_once (tasks), or an option of sbatch."


def reproduce(
    names: Names = None,
    profile: ProfileName = None,
    settings: Settings = None,
    data_root: DataRoot = None,
    out_root: Annotated[Path | None, typer.Option(help="Folder for results, which go into its PROFILE/.")] = None,
    device: Device = "auto",
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs and notebooks at once; one per core or GPU.")] = None,
    precision: Precision = "float32",
    compiled: Compile = False,
    again: Annotated[bool, typer.Option("--again", help="Also execute notebooks that would not change.")] = False,
    executor: Annotated[
        Literal["local", "slurm"], typer.Option(help="Where runs are trained.", rich_help_panel=SLURM)
    ] = "local",
    wait: Annotated[
        bool, typer.Option(help="Wait for Slurm, or return and continue in a later call.", rich_help_panel=SLURM)
    ] = True,
    slurm_partition: Annotated[str | None, typer.Option(help="Partition.", rich_help_panel=SLURM)] = None,
    slurm: Annotated[list[str] | None, typer.Option(help=RESOURCES, rich_help_panel=SLURM)] = None,
) -> None:
    """Run notebooks: tables and figures appear under figures/PROFILE/.

    Example: wsolkit reproduce table7_ablation --profile smoke --set "seeds=[0]"

    Example: wsolkit reproduce --profile paper --data-root data --executor slurm --slurm-partition gpu
    """
    from wsolkit.reproduce import begin_processes

    begin_processes()
    from wsolkit.reproduce import gallery, notebooks, runner
    from wsolkit.training.slurm import SlurmCluster

    given = {"data_root": data_root, "out_root": out_root, "device": None if device == "auto" else device}
    parameters = notebooks.parse_settings(settings or [])
    parameters |= {name: str(value) for name, value in given.items() if value is not None}
    asked = notebooks.parse_settings(slurm or [], "--slurm")
    cluster = SlurmCluster.from_settings(slurm_partition, asked, wait)
    elsewhere = cluster if executor == "slurm" else None
    start = time.monotonic()
    with interruptible():
        ended = runner.reproduce(names or [], profile, parameters, jobs, _report, elsewhere, precision, compiled, again)
    failed = [outcome.notebook for outcome in ended if outcome.failure]
    skipped = sum(bool(outcome.skipped) for outcome in ended)
    typer.echo(f"everything at a glance: {ended[0].executed.with_name(gallery.PAGE)}")
    unchanged = sum(outcome.unchanged for outcome in ended)
    done = len(ended) - len(failed) - skipped - unchanged
    counts = f"{done} done, {unchanged} unchanged, {skipped} skipped, {len(failed)} failed"
    typer.echo(f"{counts} in {time.monotonic() - start:.0f} s{': ' * bool(failed)}{', '.join(failed)}")
    if failed:
        raise typer.Exit(1)


def _report(outcome: "Outcome") -> None:
    states = {"failed": outcome.failure, "skipped": outcome.skipped, "unchanged": outcome.unchanged}
    state = next((state for state, holds in states.items() if holds), "done")
    where = outcome.executed if outcome.seconds or outcome.unchanged else ""
    typer.echo(f"{state:9} {outcome.notebook:24} {outcome.seconds:7.1f} s  {where}".rstrip())
    if said := outcome.skipped or outcome.note:
        typer.echo(f"          {said}")
    if outcome.failure:
        typer.echo(f"{outcome.notebook} failed: {outcome.failure}\n", err=True)


def plan(
    names: Names = None,
    profile: ProfileName = None,
    settings: Settings = None,
    images_per_second: Annotated[float | None, typer.Option(min=0.01, help="Default: as measured, else 250.")] = None,
    gpu_memory: Annotated[float | None, typer.Option(min=0, help="In GB: list what such a GPU cannot hold.")] = None,
) -> None:
    """List the runs behind notebooks, each once: done, missing, and how long they may take.

    Example: wsolkit plan --profile paper --images-per-second 400 --gpu-memory 12
    """
    from wsolkit.reproduce import begin_processes

    begin_processes()
    from wsolkit.cli import housekeeping
    from wsolkit.reproduce import cost, notebooks, planning
    from wsolkit.study.study import default_jobs

    wanted = planning.plan(names or [], profile, notebooks.parse_settings(settings or []))
    store = housekeeping.open_store()
    table = wanted.table(store, images_per_second)
    if len(table):
        show_table(planning.by_kind(table))
    typer.echo(planning.totals(table, default_jobs(store.machine.torch_device())))
    memory = gpu_memory if gpu_memory is not None else cost.gpu_memory()
    for line in cost.too_large(wanted.recipes, memory) if memory is not None else ():
        typer.echo(line)
    _say_what_is_left_out(wanted)


def _say_what_is_left_out(plan: "Plan") -> None:
    """Name the notebooks whose runs are not in a plan; the exit code is 1 where that is an error."""
    for each in plan.notebooks:
        if each.skipped:
            typer.echo(f"{each.notebook.stem} is left out: {each.skipped}")
        elif each.problem:
            typer.echo(f"{each.notebook.stem} could not be planned: {each.problem}", err=True)
    if any(each.problem for each in plan.notebooks):
        raise typer.Exit(1)


def rehearse(
    names: Names = None,
    profile: ProfileName = "paper",
    settings: Settings = None,
    batch_size: Annotated[int, typer.Option(min=0, help="Images in the step; 0 takes each recipe's own.")] = 2,
    data_root: DataRoot = None,
    device: Device = "auto",
) -> None:
    """Take one step and evaluate one batch with every distinct recipe, at full size.

    Weights are random, and pictures are generated if the data are missing. Nothing is written.
    The exit code is 1 if a recipe fails.

    Example: wsolkit rehearse --profile paper
    """
    from wsolkit.reproduce import notebooks, planning, rehearsal
    from wsolkit.training.machine import Machine

    plan = planning.plan(names or [], profile, notebooks.parse_settings(settings or []))
    recipes, failed = rehearsal.distinct(plan.recipes), 0
    with interruptible():
        for done in rehearsal.rehearse(recipes, Machine(data_root=data_root, device=device), batch_size or None):
            failed += done.failure is not None
            typer.echo(rehearsal.describe(done))
    for backbone, file in rehearsal.weights_at_hand(recipes).items():
        typer.echo(f"ImageNet weights of {backbone}: {file or f'missing; wsolkit data get weights --name {backbone}'}")
    typer.echo(f"{len(recipes)} distinct recipes rehearsed, {failed} failed")
    _say_what_is_left_out(plan)
    if failed:
        raise typer.Exit(1)


def recipe(
    profile: ProfileName = None,
    dataset: Annotated[str, typer.Option(help="The paper's: CUB, ImageNet-1K, OpenImages.")] = "CUB",
    backbone: Annotated[str, typer.Option(help="The paper's: VGG16, ResNet50.")] = "VGG16",
    losses: Annotated[str | None, typer.Option(help="Any of drop,sim,norm,eil; or none; all if not given.")] = None,
    method: Annotated[str | None, typer.Option(help="Another method, such as has, instead of those losses.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The run's seed.")] = 0,
    source: Annotated[str, typer.Option(help="Whose values in profile paper: paper, released, authors.")] = "paper",
    settings: Annotated[list[str] | None, typer.Option("--set", help="name=value, method_options.NAME=value.")] = None,
) -> None:
    """Print the recipe of an experiment as JSON, to change it and train it.

    Example: wsolkit recipe --set method_options.lambda_sim=1 --set epochs=3 > my_recipe.json

    Example: wsolkit recipe --method my_method --set method_options.strength=0.3 > my_recipe.json
    """
    from wsolkit.errors import RecipeError
    from wsolkit.reproduce import notebooks
    from wsolkit.study.study import chosen_profile
    from wsolkit.training.profiles import LOSSES

    changes = notebooks.parse_settings(settings or [])
    if (method or "method" in changes) and losses not in (None, "none"):
        raise RecipeError(f"--losses {losses} cannot be combined with another method; give one of the two.")
    chosen = LOSSES if losses is None else [] if losses == "none" else losses.split(",")
    made = chosen_profile(profile).recipe(dataset, backbone, chosen, seed, source, method=method)
    typer.echo(made.altered(changes).to_json())


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe as JSON, e.g. recipe.json of a run.")],
    data_root: DataRoot = None,
    device: Device = "auto",
    precision: Precision = "float32",
    compiled: Compile = False,
    parts: Annotated[int, typer.Option(min=1, help="Passes a batch is split into, to save memory.")] = 1,
    track: Annotated[str | None, typer.Option(help="Log to tensorboard, or another of Accelerate's trackers.")] = None,
) -> None:
    """Train one recipe, unless it was trained before, and print its folder.

    Example: wsolkit recipe --profile smoke > my_recipe.json && wsolkit train my_recipe.json

    Several GPUs: torchrun --nproc-per-node 4 -m wsolkit train recipe.json --precision bf16
    """
    from wsolkit.system import folders
    from wsolkit.training.machine import Machine
    from wsolkit.training.recipes import Recipe
    from wsolkit.training.run_store import RunStore

    machine = Machine(data_root, device, folders.cache_or_off(), precision, parts, compiled, track)
    store = RunStore(folders.runs_root(), machine)
    wanted = Recipe.from_file(recipe)
    before = store.find(wanted)
    with interruptible():
        run = store.get(wanted)
    if not store.engine.main:  # of several processes one speaks
        return
    typer.echo(run.folder)
    key = run.recipe.key[:6]
    hints = [f"wsolkit/{name} has changed since it was trained." for name in run.changed_code()]
    if before is not None:
        hints.insert(0, "It was trained before, so nothing was done. To train it again, delete that folder.")
    hints += [f"Its rates: wsolkit runs show {key}", f"Your pictures: wsolkit localize PICTURES --weights {key}"]
    typer.echo("\n".join(hints), err=True)
