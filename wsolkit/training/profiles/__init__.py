"""Profiles: what the paper's words (CUB, VGG16, ...) mean on a laptop, on photographs, and on the real data.

A profile turns an experiment of the paper into a `Recipe`; notebooks name experiments in the paper's words only. Each
profile is one TOML file beside this one.
"""

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

from wsolkit import methods, published
from wsolkit.errors import NotInProfileError, RecipeError, require_known, unknown
from wsolkit.training.recipes import Recipe, make_recipe

#: The loss terms of the paper besides cross-entropy (Eq. 10), as the rows of Tab. 7 name them.
LOSSES = ("drop", "sim", "norm")

#: The term that may replace ``drop``: EIL's second classification loss (Tab. 6).
EIL = "eil"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class StandIn:
    """What stands in for one of the paper's data sets.

    Attributes:
        dataset: name of the data set.
        options: its options.
        fine_grained: whether its classes are all of one kind of object, which decides the mask of the norm loss
            (Sec. 4.1).
        training: recipe fields that differ from the profile's.
        special: by the paper's name of a backbone, recipe fields and method options that differ for it.
    """

    dataset: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fine_grained: bool = False
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    special: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Profile:
    """One scale at which all experiments can be run.

    Attributes:
        name: the name of its file.
        summary: one line on what it is for.
        seeds: seeds of every experiment.
        stand_ins: by the paper's name of a data set.
        backbones: by the paper's name of a backbone.
        training: recipe fields of the runs themselves.
        bridging: options of the paper's method.
        pretrained: the published weights that all runs start from (`Recipe.pretrained`); None if there are none, and
            the pretraining numbered 0 is a run like any other.
        pretraining: recipe fields of a pretraining of one's own, whose number is its seed; None if there is none.
        published_values: take training fields and method options from the paper, not from this profile.
        caveat: a warning for every figure and the gallery; empty if the numbers mean what they say.
        sweep_ends: pairs of data set and backbone, by the paper's names, whose sweeps have the lowest and the highest
            setting beside the best, and none between.
        max_seeds: seeds up to which undecided claims are repeated; 0 for no more than ``seeds``.
        budget_minutes: minutes of training, summed over the runs, that such repetitions may take.
        rivals: data sets and backbones, by the paper's names, on which tables train other people's methods as well,
            unless they are asked to train all.
        trials: by a method's name, the options that were tried to choose among them on train-fullsup (notebook
            ``tuning``); ``{}`` stands for its defaults.
        methods: by a method's name, those that were chosen, where they are not its defaults.
        judged_share: tables also judge only the images whose largest box covers at most this share; None does not.
    """

    name: str
    summary: str
    seeds: tuple[int, ...]
    stand_ins: Mapping[str, StandIn]
    backbones: Mapping[str, str]
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    bridging: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pretrained: str | None = None
    pretraining: Mapping[str, Any] | None = None
    published_values: bool = False
    caveat: str = ""
    sweep_ends: tuple[tuple[str, str], ...] = ()
    max_seeds: int = 0
    budget_minutes: float = 0.0
    rivals: tuple[tuple[str, str], ...] = ()
    trials: Mapping[str, tuple[Mapping[str, Any], ...]] = dataclasses.field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    judged_share: float | None = None

    def recipe(
        self,
        dataset: str = "CUB",
        backbone: str = "VGG16",
        losses: Iterable[str] = LOSSES,
        seed: int = 0,
        source: str = "paper",
        schedule: Literal["shared", "eil"] = "shared",
        pretraining: int = 0,
        method: str | None = None,
        **options: Any,
    ) -> Recipe:
        """The training run of an experiment.

        Args:
            dataset: the paper's name of a data set.
            backbone: the paper's name of a backbone.
            losses: which of the paper's loss terms take part, with ``"eil"`` instead of ``"drop"`` for that method;
                none is the vanilla method.
            seed: of the run.
            source: whose hyperparameters win where paper and released code differ (profile ``paper`` only).
            schedule: ``"shared"`` by all methods, or that of EIL's own authors.
            pretraining: which weights to start from: 0 for the published ones, or the seed of a pretraining of one's
                own, which is trained first.
            method: another method, by its file's name, instead of the paper's; ``losses`` then do not count.
            options: options of the method that differ from the profile's. The run then keeps no snapshots.

        Raises:
            RecipeError: for an unknown name, or a value out of range.
            NotInProfileError: for a data set or backbone that only other profiles have.
        """
        stand_in = self._lookup("data set of the paper", dataset, "stand_ins")
        name = self._lookup("backbone of the paper", backbone, "backbones")
        published_weights = self.pretrained if pretraining == 0 else None
        if source != "paper" and not self.published_values:
            raise RecipeError(f"Profile {self.name!r} has its own hyperparameters: source {source!r} needs 'paper'.")
        values = dict(self.training) | dict(self.bridging)
        if self.published_values:
            values |= published.hyperparameters(dataset, backbone, source)
        values |= dict(stand_in.training) | dict(stand_in.special.get(backbone, {}))
        losses = tuple(losses)
        if EIL in losses:
            values |= self.methods.get(EIL, {})
        if schedule == "eil":
            values |= published.eil_schedule()
        if options:
            values["snapshot_epochs"] = ()
        fields = {key: values.pop(key) for key in list(values) if key in Recipe.__dataclass_fields__}
        return make_recipe(
            dataset=stand_in.dataset,
            backbone=name,
            dataset_options=dict(stand_in.options),
            seed=seed,
            pretrained=published_weights or self.pretraining_recipe(name, pretraining),
            **(
                {"method": method, "method_options": {**self.methods.get(method, {}), **options}}
                if method
                else _method(losses, values, stand_in.fine_grained, options)
            ),
            **_tuples(fields),
        )

    def _lookup(self, kind: str, name: str, field: str) -> Any:
        known = getattr(self, field)
        if name in known:
            return known[name]
        if others := [other for other in names() if other != self.name and name in getattr(get(other), field)]:
            raise NotInProfileError(f"Profile {self.name!r} has no {name}; these have: {', '.join(others)}.")
        raise unknown(kind, name, known)

    def pretraining_recipe(self, backbone: str, seed: int = 0) -> Recipe:
        """The pretraining of a backbone, by its own name; seed 0 is the one that was published, if one was.

        Raises:
            RecipeError: if the profile starts from published weights alone.
        """
        if self.pretraining is None:
            raise RecipeError(f"Profile {self.name!r} starts from published weights alone: pretraining can only be 0.")
        return make_recipe(backbone=backbone, seed=seed, **_tuples(self.pretraining))


@cache
def names() -> tuple[str, ...]:
    """Names of the profiles."""
    found = (file.name for file in files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml") and name[0] != "_"))


@cache
def get(name: str) -> Profile:
    """A profile by name.

    Raises:
        RecipeError: for an unknown name.
    """
    require_known("profile", name, names())
    return TypeAdapter(Profile).validate_python({"name": name} | _read(name))


def _read(name: str) -> dict[str, Any]:
    """The content of a profile's file, merged into that of the files it extends."""
    content = tomllib.loads((files(__name__) / f"{name}.toml").read_text(encoding="utf-8"))
    merged: dict[str, Any] = {}
    for part in (*map(_read, content.pop("extends", [])), content):
        for key, value in part.items():
            merged[key] = merged[key] | value if isinstance(merged.get(key), dict) else value
    return merged


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has lists where recipes have tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _method(losses: Iterable[str], values: dict, fine_grained: bool, options: dict) -> dict[str, Any]:
    chosen = list(losses)
    for loss in chosen:
        require_known("loss term", loss, (*LOSSES, EIL))
    if EIL in chosen and "drop" in chosen:
        raise RecipeError("'eil' takes the place of 'drop'; choose one of the two.")
    if not chosen and not options:
        return {"method": "cam"}
    method = "eil" if EIL in chosen else "bridging"
    known = {field.name for field in dataclasses.fields(methods.find(method).options)}
    off = {f"lambda_{loss}": 0.0 for loss in LOSSES if loss not in chosen}
    mask = {"norm_mask": "any_class" if fine_grained else "target"}
    shared = {name: value for name, value in (mask | values | off).items() if name in known}
    return {"method": method, "method_options": shared | options}
