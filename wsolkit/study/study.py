"""What a notebook works with: its profile, its runs, and the folder for its tables and figures."""

import itertools
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import PIL.Image
import torch
from IPython.display import Image
from matplotlib.figure import Figure
from PIL import ImageDraw, ImageFont, ImageOps

import wsolkit
from wsolkit import methods, published
from wsolkit.datasets import OpenedDataset
from wsolkit.errors import NotInProfileError, RecipeError
from wsolkit.study import tables
from wsolkit.system import folders
from wsolkit.system.atomic_files import atomic_file, writable_folder, write_file
from wsolkit.system.processes import cores
from wsolkit.training import profiles
from wsolkit.training.machine import Machine, commit
from wsolkit.training.profiles import Profile
from wsolkit.training.recipes import Recipe
from wsolkit.training.run_store import Run, RunStore

JOBS_VARIABLE = "WSOLKIT_JOBS"

#: Columns of every CSV: one row per number, which can be traced to the run that it comes from.
TIDY = ("notebook", "table", "row", "metric", "value", "count", "seed", "recipe", "version", "commit")

#: Part of a notebook's tables: ``<notebook>_runs.csv`` names the runs behind everything that it shows.
RUNS_PART = "runs"

#: Environment variable that makes studies plan instead of train.
PLAN_VARIABLE = "WSOLKIT_PLAN_ONLY"

Key = TypeVar("Key", bound=Hashable)
Experiments = Mapping[Key, Mapping[str, Any]]


class Planned(Exception):
    """Not an error: a study that only plans has reached its runs.

    Attributes:
        recipes: what it would train or look up.
    """

    def __init__(self, recipes: list[Recipe]):
        """Store the recipes."""
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
        jobs: number of runs trained at once.
        pretraining: which weights all runs start from: 0 for the published ones, or the seed of a pretraining of one's
            own, which is trained first.
        plan_only: report which runs are needed, and train nothing.
    """

    notebook: str
    profile: Profile
    seeds: tuple[int, ...]
    store: RunStore
    out: Path
    jobs: int
    pretraining: int = 0
    plan_only: bool = False

    @property
    def device(self) -> torch.device:
        """The device on which networks run."""
        return self.store.machine.torch_device()

    def recipe(self, **experiment: Any) -> Recipe:
        """The recipe of an experiment in the paper's words; see `wsolkit.training.profiles.Profile.recipe`."""
        return self.profile.recipe(**{"pretraining": self.pretraining, **experiment})

    def available(self, blocks: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """The pairs of data set and backbone, by the paper's names, that the profile has; a line names the others.

        Raises:
            NotInProfileError: if it has none of them.
        """
        found, lacking = [], []
        for dataset, backbone in blocks:
            try:
                self.recipe(dataset=dataset, backbone=backbone)
                found.append((dataset, backbone))
            except NotInProfileError as error:
                lacking.append(error)
        if lacking and not found:
            raise lacking[0]
        for reason in dict.fromkeys(map(str, lacking)):
            print(f"Left out: {reason}")
        return found

    def rows(self, number: str, dataset: str, backbone: str, rivals: str | None = None) -> dict[str, dict[str, Any]]:
        """The experiments behind those rows of a table of the paper that can be trained: CAM, others, ours.

        Args:
            number: of the table.
            dataset: the paper's name of the data set.
            backbone: the paper's name of the backbone.
            rivals: ``"all"``: other methods as well; ``"none"``: CAM and ours alone; None: what the profile says.

        Raises:
            RecipeError: for anything else.
        """
        if rivals not in (None, "all", "none"):
            raise RecipeError(f"methods = {rivals!r}: expected 'all', 'none', or None for the profile's choice.")
        paper = published.table(number).query("dataset == @dataset and backbone == @backbone")
        known: dict[str, dict[str, Any]] = {"CAM": {"losses": ()}, "ours": {}}
        if rivals == "all" or (rivals is None and (dataset, backbone) in self.profile.rivals):
            known |= {methods.find(name).label: {"method": name} for name in methods.names()}
            known |= {"EIL": {"losses": (profiles.EIL,)}} if profiles.EIL in methods.names() else {}
        there = {"dataset": dataset, "backbone": backbone}
        rows = {row: tables.base_of(row)[0] for row in ["CAM", *paper["method"], "ours"]}
        return {row: known[base] | there for row, base in rows.items() if base in known}

    def seeds_up_to(self, count: int) -> list[int]:
        """So many seeds: the study's own first, then the smallest others."""
        others = (seed for seed in itertools.count() if seed not in self.seeds)
        return list(itertools.islice(itertools.chain(self.seeds, others), count))

    def test_data(self, run: Run) -> OpenedDataset:
        """The test images of a run's data set, at the evaluation size, with their labels and boxes or masks."""
        return self.store.machine.open(run.recipe, "test")

    def runs(self, recipes: Sequence[Recipe]) -> list[Run]:
        """The finished runs of several recipes; those that are missing are trained first, with a progress bar.

        Once all are finished, ``<notebook>_runs.csv`` lists them.

        Raises:
            Planned: with the recipes, if the study only plans.
        """
        if self.plan_only:
            raise Planned(list(recipes))
        found = self.store.get_all(recipes, self.jobs)
        self.list_runs(found)
        return found

    def list_runs(self, runs: Sequence[Run]) -> None:
        """Write ``<notebook>_runs.csv``, which says of every run where it comes from."""
        if runs:
            self.save_table(pd.DataFrame(map(_origin, dict.fromkeys(runs))).set_index("recipe"), RUNS_PART)
        else:  # a list from an earlier call would name runs that are not shown
            self._path(RUNS_PART, "csv").unlink(missing_ok=True)

    def train(self, experiments: Experiments[Key], seeds: Sequence[int] | None = None) -> dict[Key, list[Run]]:
        """The finished runs of several experiments, all trained in one go.

        Args:
            experiments: by any key, the keyword arguments of `recipe`.
            seeds: seeds of each experiment; None means the study's.

        Returns:
            By the same keys, one run per seed.
        """
        return self.train_at(experiments, dict.fromkeys(experiments, self.seeds if seeds is None else seeds))

    def train_at(
        self, experiments: Experiments[Key], seeds: Mapping[Key, Sequence[int]], missing: bool = True
    ) -> dict[Key, list[Run]]:
        """As `train`, with separate seeds for each experiment.

        Args:
            experiments: by any key, the keyword arguments of `recipe`.
            seeds: seeds by the same keys.
            missing: train the runs that are missing; False leaves out experiments of which a run is missing.
        """
        wanted = {key: [self.recipe(**e, seed=seed) for seed in seeds[key]] for key, e in experiments.items()}
        if not missing:
            wanted = {key: group for key, group in wanted.items() if all(map(self.store.find, group))}
        every = list(dict.fromkeys(recipe for group in wanted.values() for recipe in group))
        found = dict(zip(every, self.runs(every), strict=True))
        return {key: [found[recipe] for recipe in group] for key, group in wanted.items()}

    def table(
        self,
        number: str,
        runs: Mapping[str, Sequence[Run]] | Mapping[tables.Place, Sequence[Run]],
        metrics: Sequence[str] | None = None,
        map_kinds: Mapping[Any, str] | None = None,
        fixed_boxes: bool = True,
        baseline: str | None = None,
        steps: Mapping[str, tuple] | None = None,
    ) -> tables.Table:
        """A table of the paper with our numbers beside it.

        Its rows are written to ``<notebook>.csv``, means over the seeds to ``<notebook>_summary.csv``, comparisons to
        ``<notebook>_effects.csv``.

        Args:
            number: of the table, as the paper prints it: ``"7"`` or ``"A1"``.
            runs: by row, one run per seed, as `train` gives them. In a table of several blocks a key is
                ``(dataset, backbone, row)``.
            metrics: rates of the test reports; None takes those that the paper prints.
            map_kinds: by row, the localization map that is judged: ``"norm"`` or ``"similarity"``; the default is the
                CAM, by another normalisation where the row's name ends in it.
            fixed_boxes: add two boxes that never look at the image: the whole image, and a centred box.
            baseline: name of a row; a last column says how far the others lie above it in GT-known Loc.
            steps: comparisons by name, each a row, the row it is compared with, and optionally a metric other than
                GT-known Loc.

        Raises:
            RecipeError: for an unknown table or row.
            KeyError: if the runs' reports have no such metric.
        """
        paper, kinds = published.table(number), map_kinds or {}
        names, share = tables.names_of(paper, metrics), self.profile.judged_share
        if share is not None:
            names |= {tables.SMALL: f"GT-known Loc, box ≤ {share:.0%}"}
        judged = {}
        for key, group in runs.items():
            place = tables.place(key, paper)
            kind = kinds.get(key) or tables.base_of(place[-1])[1]
            judged[place] = [(self.store.rejudged(run, kind), kind) for run in group]
        csv = self.save_rows(tables.tidy_rows(number, judged, names, self.store.machine, fixed_boxes, share))
        summary = tables.summarise(pd.read_csv(csv), paper, list(names))
        if baseline:
            gt = "gt_known_loc"
            above = {(*key, gt): (key, (*key[:2], baseline)) for key in judged if key[2] != baseline}
            summary = summary.join(tables.effects(judged, above).rename_axis(summary.index.names))
        self.save_table(summary, "summary")
        placed = {name: (*(tables.place(key, paper) for key in s[:2]), *s[2:]) for name, s in (steps or {}).items()}
        effects = tables.effects(judged, placed).rename_axis("row")
        if steps:
            self.save_table(effects, "effects")
        caption = f"Tab. {number}, profile {self.profile.name}, seeds {list(self.seeds)}, beside the paper's"
        return tables.Table(caption, self.profile.name, names, summary, effects, baseline)

    def save_rows(self, rows: pd.DataFrame, part: str | None = None) -> Path:
        """Write tidy rows as CSV, with the columns of :data:`TIDY` first; what ``rows`` lack is left empty.

        Version and commit are those that trained the run; for numbers that come from no single run, the current ones.
        """
        here = {"version": wsolkit.__version__, "commit": commit()}
        full = rows.assign(notebook=self.notebook).reindex(columns=[*dict.fromkeys([*TIDY, *rows])])
        full = full.astype(dict.fromkeys(here, object))
        full.loc[full["version"].isna(), list(here)] = list(here.values())
        return self.save_table(full.set_index(TIDY[0]), part)

    def save_table(self, table: pd.DataFrame, part: str | None) -> Path:
        """Write a frame with its index as ``<notebook>_<part>.csv``."""
        path = self._path(part, "csv")
        write_file(path, table.to_csv(float_format="%.10g"))
        return path

    def save_figure(
        self, figure: Figure, part: str | None = None, preview_dpi: int = 100, of_profile: bool = True
    ) -> Image:
        """Write a PNG for print, with the profile's caveat below it, and return a small copy for the notebook.

        Args:
            figure: the figure.
            part: what it shows, if the notebook has several; the file is ``<notebook>_<part>.png``.
            preview_dpi: pixels per inch of the copy; fewer for pictures, so that the notebook stays small.
            of_profile: whether it shows runs of the profile, so that the caveat applies.
        """
        caveat, printed = self.profile.caveat if of_profile else "", BytesIO()
        figure.savefig(printed, dpi=160)
        bare = PIL.Image.open(printed).convert("RGB")  # without the alpha channel that matplotlib always writes
        letters = max(11, bare.width // 80)
        sheet = ImageOps.expand(bare, (0, 0, 0, 2 * letters if caveat else 0), "white")
        at, font = (sheet.width // 2, sheet.height - letters), ImageFont.load_default(letters)
        ImageDraw.Draw(sheet).text(at, caveat, fill="dimgrey", anchor="mm", font=font)
        if sheet.getcolors(2**13):  # a chart, not pictures: with a palette the file is half as large and looks the same
            sheet = sheet.quantize(256, dither=PIL.Image.Dither.NONE)
        with atomic_file(self._path(part, "png")) as partial:
            sheet.save(partial, "png", optimize=True, dpi=(160, 160))
        return self.show_figure(figure, part, preview_dpi)

    def show_figure(self, figure: Figure, part: str | None = None, preview_dpi: int = 100) -> Image:
        """Only the small copy, for a figure that need not be kept; arguments as for `save_figure`."""
        buffer = BytesIO()
        # JPEG: pictures on noise would make the notebook several times larger as PNG.
        figure.savefig(buffer, format="jpeg", dpi=preview_dpi, pil_kwargs={"quality": 78})
        return Image(data=buffer.getvalue(), format="jpeg", alt=" ".join([self.notebook, *filter(None, [part])]))

    def _path(self, part: str | None, extension: str) -> Path:
        name = f"{self.notebook}_{part}" if part else self.notebook
        return self.out / f"{name}.{extension}"


def _origin(run: Run) -> dict[str, str | int]:
    """Where a run comes from: a row of ``<notebook>_runs.csv``."""
    recipe, info = run.recipe, run.info()
    named = {"dataset": recipe.dataset, "backbone": recipe.backbone, "method": recipe.label}
    made = {"epochs": recipe.epochs, "torch": info["torch"], "device": info["device"]}
    return run.made() | named | made | {"processor": f"{info['cpu']} {info['cpu_capability']}"}


def chosen_profile(name: str | None) -> Profile:
    """The profile with this name; None means ``$WSOLKIT_PROFILE``, else ``demo``.

    Raises:
        RecipeError: for an unknown name.
    """
    return profiles.get(name or os.environ.get("WSOLKIT_PROFILE") or "demo")


def default_jobs(device: torch.device) -> int:
    """How many runs to train at once: ``$WSOLKIT_JOBS``, else one per available core on a CPU, and one on a GPU.

    Raises:
        RecipeError: if the variable is not a positive whole number.
    """
    wanted = os.environ.get(JOBS_VARIABLE)
    if wanted is None:
        return cores() if device.type == "cpu" else 1
    if not wanted.isdecimal() or int(wanted) < 1:
        raise RecipeError(f"{JOBS_VARIABLE}={wanted}: expected the number of runs to train at once, 1 or more.")
    return int(wanted)


def open_study(
    notebook: str,
    profile: str | None = None,
    seeds: Sequence[int] | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    out_root: str | Path | None = None,
    jobs: int | None = None,
    pretraining: int = 0,
) -> Study:
    """Open a notebook's study from its parameters.

    Args:
        notebook: the notebook's name.
        profile: the profile's name; None means ``$WSOLKIT_PROFILE``, else ``demo``.
        seeds: seeds of every experiment; None means the profile's.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
        data_root: folder or archive of real data.
        out_root: folder above ``<profile>/``; None means the project's ``figures/``.
        jobs: number of runs trained at once; None means `default_jobs`.
        pretraining: which weights all runs start from, as in `Study`.

    Raises:
        RecipeError: for an unknown profile, or if seeds, jobs or pretraining cannot be used.
        TrainingError: for a device that this machine does not have.
        WsolkitError: if the output folder cannot be written.
    """
    chosen = chosen_profile(profile)
    numbers = tuple(chosen.seeds if seeds is None else seeds)
    if not numbers or len(set(numbers)) < len(numbers):
        raise RecipeError(f"seeds = {list(numbers)}: expected at least one seed, and no two alike.")
    data = None if data_root is None else Path(data_root).expanduser().resolve()
    machine = Machine(data_root=data, device=device, cache=folders.cache_or_off())
    chosen.recipe(pretraining=pretraining)  # refuses a pretraining that the profile does not have
    out = output_folder(chosen.name, out_root, pretraining)
    plan_only = PLAN_VARIABLE in os.environ
    store, jobs = RunStore(folders.runs_root(), machine), jobs or default_jobs(machine.torch_device())
    out = out if plan_only else writable_folder(out)
    return Study(notebook, chosen, numbers, store, out, jobs, pretraining, plan_only)


def output_folder(profile: str, out_root: str | Path | None = None, pretraining: int = 0) -> Path:
    """Where tables and figures go: a folder for each profile, and in it one for each pretraining of one's own."""
    root = Path(out_root).expanduser().resolve() if out_root else folders.figures_root()
    return root / profile / (f"pretraining-{pretraining}" if pretraining else "")
