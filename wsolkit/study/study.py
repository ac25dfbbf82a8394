"""What a notebook works with: its profile, its runs, and the folder for its tables and figures."""

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import PIL.Image
import torch
from IPython.display import Image
from matplotlib.figure import Figure
from PIL import ImageDraw, ImageFont

import wsolkit
from wsolkit.errors import RecipeError
from wsolkit.system import folders
from wsolkit.system.processes import cores
from wsolkit.system.writing import atomic_file, writable_folder
from wsolkit.training import profiles, provenance
from wsolkit.training.machine import Machine
from wsolkit.training.profiles import Profile
from wsolkit.training.recipes import Recipe
from wsolkit.training.run_store import Run, RunStore

PROFILE_VARIABLE = "WSOLKIT_PROFILE"
DEFAULT_PROFILE = "demo"
JOBS_VARIABLE = "WSOLKIT_JOBS"

TIDY = ("notebook", "table", "row", "metric", "value", "count", "seed", "recipe", "version", "commit")
"""Columns of every CSV: one row a number, traceable to the run that it comes from."""

RUNS_PART = "runs"
"""Part of a notebook's tables: ``<notebook>_runs.csv`` names the runs behind everything that it shows."""

Key = TypeVar("Key", bound=Hashable)

PRINT_DPI = 160

PLAN_VARIABLE = "WSOLKIT_PLAN_ONLY"
"""Environment variable that makes studies plan instead of train."""


class Planned(Exception):
    """Not an error: a study that only plans has come to its runs.

    Attributes:
        recipes: what it would train or look up.
    """

    def __init__(self, recipes: list[Recipe]):
        """Carry the recipes."""
        super().__init__(f"{len(recipes)} recipes planned")
        self.recipes = recipes


@dataclass(frozen=True)
class Study:
    """One notebook at one profile.

    Attributes:
        notebook: the notebook's name; tables and figures are named after it.
        profile: what the paper's words mean here.
        seeds: seeds of every experiment.
        store: the run store.
        out: folder of tables and figures.
        jobs: runs trained at once.
        plan_only: say which runs are wanted, and train nothing.
    """

    notebook: str
    profile: Profile
    seeds: tuple[int, ...]
    store: RunStore
    out: Path
    jobs: int
    plan_only: bool = False

    @property
    def device(self) -> torch.device:
        """Where networks are run."""
        return self.store.machine.torch_device()

    def recipe(self, **experiment: Any) -> Recipe:
        """The recipe of an experiment in the paper's words; see `wsolkit.training.profiles.Profile.recipe`."""
        return self.profile.recipe(**experiment)

    def runs(self, recipes: Sequence[Recipe]) -> list[Run]:
        """The finished runs of several recipes, trained first where need be; progress is shown meanwhile.

        What they are is written to ``<notebook>_runs.csv``, once all are there.

        Raises:
            Planned: with the recipes, where the study is there to plan.
        """
        if self.plan_only:
            raise Planned(list(recipes))
        found = self.store.get_all(recipes, self.jobs)
        if found:
            self.save_table(pd.DataFrame(map(_origin, dict.fromkeys(found))).set_index("recipe"), RUNS_PART)
        else:  # an earlier list would speak of runs that have no part in this
            self._path(RUNS_PART, "csv").unlink(missing_ok=True)
        return found

    def train(
        self, experiments: Mapping[Key, Mapping[str, Any]], seeds: Sequence[int] | None = None
    ) -> dict[Key, list[Run]]:
        """The finished runs of several experiments, all trained in one go.

        Args:
            experiments: by any key, the keyword arguments of `recipe`.
            seeds: of each experiment; None means the study's.

        Returns:
            By the same keys, one run a seed.
        """
        return self.train_at(experiments, dict.fromkeys(experiments, self.seeds if seeds is None else seeds))

    def train_at(
        self, experiments: Mapping[Key, Mapping[str, Any]], seeds: Mapping[Key, Sequence[int]], missing: bool = True
    ) -> dict[Key, list[Run]]:
        """As `train`, with seeds for each experiment.

        Args:
            experiments: by any key, the keyword arguments of `recipe`.
            seeds: by the same keys.
            missing: train what is missing; False leaves out experiments whose runs are not all there.
        """
        wanted = {key: [self.recipe(**e, seed=seed) for seed in seeds[key]] for key, e in experiments.items()}
        if not missing:
            wanted = {key: group for key, group in wanted.items() if all(map(self.store.find, group))}
        every = list(dict.fromkeys(recipe for group in wanted.values() for recipe in group))
        found = dict(zip(every, self.runs(every), strict=True))
        return {key: [found[recipe] for recipe in group] for key, group in wanted.items()}

    def save_rows(self, rows: pd.DataFrame, part: str | None = None) -> Path:
        """Write a tidy CSV; what :data:`TIDY` asks for and ``rows`` lack is filled in or left empty.

        Version and commit are those that trained the run; of numbers that no single run has, those that drew them up.
        """
        here = {"version": wsolkit.__version__, "commit": provenance.commit()}
        full = rows.assign(notebook=self.notebook).reindex(columns=[*dict.fromkeys([*rows, *TIDY])])
        alone = full["version"].isna()
        full = full.astype(dict.fromkeys(here, object))
        full.loc[alone, list(here)] = list(here.values())
        ordered = full.reindex(columns=[*TIDY, *(column for column in full if column not in TIDY)])
        return self.save_table(ordered.set_index(TIDY[0]), part)

    def save_table(self, table: pd.DataFrame, part: str | None) -> Path:
        """Write a frame with its index as ``<notebook>_<part>.csv``."""
        path = self._path(part, "csv")
        with atomic_file(path) as partial:
            table.to_csv(partial, float_format="%.10g")
        return path

    def save_figure(
        self, figure: Figure, part: str | None = None, preview_dpi: int = 100, of_profile: bool = True
    ) -> Image:
        """Write a PNG for print, with the profile's caveat below it, and give a small copy to show in the notebook.

        Args:
            figure: the figure.
            part: what it shows, where the notebook has several; the file is ``<notebook>_<part>.png``.
            preview_dpi: pixels an inch of the copy; fewer for pictures, so that the notebook stays small.
            of_profile: whether it shows runs of the profile, whose caveat then holds.
        """
        printed = BytesIO()
        figure.savefig(printed, dpi=PRINT_DPI)
        with atomic_file(self._path(part, "png")) as partial, PIL.Image.open(printed) as picture:
            # Without the alpha channel, which matplotlib always writes, and packed tightly.
            kept = _captioned(picture.convert("RGB"), self.profile.caveat if of_profile else "")
            kept.save(partial, "png", optimize=True, dpi=(PRINT_DPI, PRINT_DPI))
        return self.show_figure(figure, part, preview_dpi)

    def show_figure(self, figure: Figure, part: str | None = None, preview_dpi: int = 100) -> Image:
        """The small copy alone, of a figure that need not be kept; arguments as for `save_figure`."""
        buffer = BytesIO()
        # JPEG: pictures on noise would make the notebook several times larger as PNG.
        figure.savefig(buffer, format="jpeg", dpi=preview_dpi, pil_kwargs={"quality": 78})
        return Image(data=buffer.getvalue(), format="jpeg", alt=" ".join([self.notebook, *filter(None, [part])]))

    def _path(self, part: str | None, extension: str) -> Path:
        name = f"{self.notebook}_{part}" if part else self.notebook
        return self.out / f"{name}.{extension}"


def _captioned(picture: PIL.Image.Image, text: str) -> PIL.Image.Image:
    """A picture with a line of text below it; as it is where there is none."""
    if not text:
        return picture
    letters = max(11, picture.width // 80)
    sheet = PIL.Image.new("RGB", (picture.width, picture.height + 2 * letters), "white")
    sheet.paste(picture)
    at, font = (picture.width // 2, picture.height + letters), ImageFont.load_default(letters)
    ImageDraw.Draw(sheet).text(at, text, fill="dimgrey", anchor="mm", font=font)
    return sheet


def _origin(run: Run) -> dict[str, str | int]:
    """What there is to know of a run behind a picture."""
    named = {name: getattr(run.recipe, name) for name in ("dataset", "backbone")}
    named |= {"method": run.recipe.label, "epochs": run.recipe.epochs}
    info = run.info()
    return run.made() | named | {name: info[name] for name in ("torch", "device")}


def chosen_profile(name: str | None) -> Profile:
    """The profile of that name; None means ``$WSOLKIT_PROFILE``, else ``demo``.

    Raises:
        RecipeError: for an unknown name.
    """
    return profiles.get(name or os.environ.get(PROFILE_VARIABLE) or DEFAULT_PROFILE)


def default_jobs(device: torch.device) -> int:
    """Runs trained at once: ``$WSOLKIT_JOBS``, else one for each core that may be used on a CPU, and one on a GPU.

    Raises:
        RecipeError: if the variable holds no positive number.
    """
    wanted = os.environ.get(JOBS_VARIABLE)
    if wanted is not None:
        if not wanted.isdecimal() or int(wanted) < 1:
            raise RecipeError(f"{JOBS_VARIABLE}={wanted}: expected how many runs are trained at once, 1 or more.")
        return int(wanted)
    if device.type != "cpu":
        return 1
    return cores()


def open_study(
    notebook: str,
    profile: str | None = None,
    seeds: Sequence[int] | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    out_root: str | Path | None = None,
    jobs: int | None = None,
) -> Study:
    """Open a notebook's study from its parameters.

    Args:
        notebook: the notebook's name.
        profile: name of the profile; None means ``$WSOLKIT_PROFILE``, else ``demo``.
        seeds: seeds of every experiment; None means the profile's.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
        data_root: folder or archive of real data.
        out_root: folder above ``<profile>/``; None means the project's ``figures/``.
        jobs: runs trained at once; None means `default_jobs`.

    Raises:
        RecipeError: for an unknown profile, or unusable seeds or jobs.
        TrainingError: for a device that this machine does not have.
        WsolkitError: if the output folder cannot be written.
    """
    chosen = chosen_profile(profile)
    numbers = tuple(chosen.seeds if seeds is None else seeds)
    if not numbers or len(set(numbers)) < len(numbers):
        raise RecipeError(f"seeds = {list(numbers)}: expected at least one, and no two alike.")
    machine = Machine(
        data_root=None if data_root is None else Path(data_root).expanduser().resolve(),
        device=device,
        cache=folders.cache_or_off(),
    )
    root = Path(out_root).expanduser().resolve() if out_root else folders.figures_root()
    plan_only = PLAN_VARIABLE in os.environ
    return Study(
        notebook=notebook,
        profile=chosen,
        seeds=numbers,
        store=RunStore(folders.runs_root(), machine),
        out=root / chosen.name if plan_only else writable_folder(root / chosen.name),
        jobs=jobs or default_jobs(machine.torch_device()),
        plan_only=plan_only,
    )
