"""Profiles: what the paper's words (CUB, VGG16, ...) mean on a laptop, on photographs, and on the real data.

A profile turns an experiment of the paper into a `Recipe`; notebooks name experiments only in the paper's words.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from wsolkit import methods, published
from wsolkit.errors import NotInProfileError, RecipeError, unknown
from wsolkit.training.recipes import Recipe, make_recipe

LOSSES = ("drop", "sim", "norm")
"""The loss terms of the paper besides cross-entropy (Eq. 10), as the rows of Tab. 7 name them."""

EIL = "eil"
"""The term that may stand in the place of ``drop``: EIL's second classification loss (Tab. 6)."""


@dataclass(frozen=True)
class StandIn:
    """What stands for one of the paper's data sets.

    Attributes:
        dataset: name of the data set.
        options: its options.
        fine_grained: whether its classes share one kind of object, which decides the mask of the norm loss (Sec. 4.1).
        training: recipe fields that differ from the profile's.
    """

    dataset: str
    options: Mapping[str, Any] = field(default_factory=dict)
    fine_grained: bool = False
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """One scale at which all experiments can be run.

    Attributes:
        name: how it is asked for.
        summary: one line on what it is for.
        seeds: seeds of every experiment.
        sweep_seeds: seeds of every setting of a hyperparameter sweep.
        stand_ins: by the paper's name of a data set.
        backbones: by the paper's name of a backbone.
        training: recipe fields of the runs themselves.
        bridging: options of the paper's method.
        special: recipe fields and method options that differ for one pair of the paper's data set and backbone.
        pretraining: recipe fields of the run that all others start from; None starts from torchvision's weights.
        published_values: take training fields and method options from the paper, not from this profile.
        caveat: what every figure and the gallery say of its numbers; empty where they can be taken as they are.
    """

    name: str
    summary: str
    seeds: tuple[int, ...]
    stand_ins: Mapping[str, StandIn]
    backbones: Mapping[str, str]
    training: Mapping[str, Any] = field(default_factory=dict)
    bridging: Mapping[str, Any] = field(default_factory=dict)
    special: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    pretraining: Mapping[str, Any] | None = None
    published_values: bool = False
    caveat: str = ""
    sweep_seeds: tuple[int, ...] = (0,)

    def recipe(
        self,
        dataset: str = "CUB",
        backbone: str = "VGG16",
        losses: Iterable[str] = LOSSES,
        seed: int = 0,
        source: str = "paper",
        schedule: Literal["shared", "eil"] = "shared",
        **options: Any,
    ) -> Recipe:
        """The training run of an experiment.

        Args:
            dataset: the paper's name of a data set.
            backbone: the paper's name of a backbone.
            losses: which of the paper's loss terms take part, with ``"eil"`` in the place of ``"drop"`` for that
                method; none is the vanilla method.
            seed: of the run.
            source: whose hyperparameters win where paper and released code differ (profile ``paper`` only).
            schedule: ``"shared"`` by all methods, or that of EIL's own authors.
            options: options of the method that differ from the profile's. Snapshots along training are then left out.

        Raises:
            RecipeError: for an unknown name, or a value out of range.
            NotInProfileError: for a data set or backbone that only other profiles have.
        """
        self._require("data set of the paper", dataset, self.stand_ins, "stand_ins")
        self._require("backbone of the paper", backbone, self.backbones, "backbones")
        stand, name = self.stand_ins[dataset], self.backbones[backbone]
        values = dict(self.training) | dict(self.bridging)
        if source != "paper" and not self.published_values:
            raise RecipeError(
                f"Profile {self.name!r} has hyperparameters of its own; source = {source!r} is for 'paper'."
            )
        if self.published_values:
            values |= published.hyperparameters(_published_name(dataset), backbone, source)
        values |= dict(stand.training) | dict(self.special.get((dataset, backbone), {}))
        if schedule == "eil":
            values |= published.eil_schedule()
        if options:
            values["snapshot_epochs"] = ()
        fields = {key: values.pop(key) for key in list(values) if key in Recipe.__dataclass_fields__}
        return make_recipe(
            dataset=stand.dataset,
            backbone=name,
            dataset_options=dict(stand.options),
            seed=seed,
            pretrained=self._pretraining(name),
            **_method(losses, values, stand.fine_grained, options),
            **fields,
        )

    def _require(self, kind: str, name: str, here: Mapping[str, Any], attribute: str) -> None:
        elsewhere = [profile.name for profile in PROFILES.values() if name in getattr(profile, attribute)]
        if name not in here and elsewhere:
            raise NotInProfileError(f"Profile {self.name!r} has no {name}; {', '.join(elsewhere)} have.")
        _lookup(kind, name, here)

    def _pretraining(self, backbone: str) -> Recipe | str:
        return "imagenet" if self.pretraining is None else make_recipe(backbone=backbone, **self.pretraining)


def get(name: str) -> Profile:
    """A profile by name.

    Raises:
        RecipeError: for an unknown name.
    """
    return _lookup("profile", name, PROFILES)


def _method(losses: Iterable[str], values: dict, fine_grained: bool, options: dict) -> dict[str, Any]:
    chosen = list(losses)
    for loss in chosen:
        if loss not in (*LOSSES, EIL):
            raise unknown("loss term", loss, (*LOSSES, EIL))
    if EIL in chosen and "drop" in chosen:
        raise RecipeError("'drop' and 'eil' are two ways to the same end; choose one of them.")
    if not chosen and not options:
        return {"method": "cam"}
    method = "eil" if EIL in chosen else "bridging"
    known = {field.name for field in dataclasses.fields(methods.complete_options(method, {}))}
    off = {f"lambda_{loss}": 0.0 for loss in LOSSES if loss not in chosen}
    mask = {"norm_mask": "any_class" if fine_grained else "target"}
    shared = {name: value for name, value in (mask | values | off).items() if name in known}
    return {"method": method, "method_options": shared | options}


def _published_name(dataset: str) -> str:
    """OpenImages30k has no hyperparameters of its own: the paper uses those of ImageNet-1K (Appendix C.5)."""
    return "ImageNet-1K" if dataset == "OpenImages" else dataset


def _lookup(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    if name not in known:
        raise unknown(kind, name, known)
    return known[name]


_SMALL = {"resize_size": 73, "crop_size": 64, "batch_size": 32, "warm_batch_size": 32}
"""64 pixels as the paper's 224, 73 as its 256; one batch size, since the small runs have few steps as it is."""

_SMALL_PRETRAINING = {
    **_SMALL,
    "warm_epochs": 0,
    "lr_former": 0.05,
    "lr_latter": 0.05,
    "select_by": "last",
    "cpu_threads": 2,
    "threshold_step": 0.02,
}


_SMALL_TRAINING = {**_SMALL, "warm_epochs": 3, "lr_former": 0.004, "lr_latter": 0.02}

_DEMO_TRAINING = {**_SMALL_TRAINING, "epochs": 8, "lr_decay_epochs": (6, 8), "snapshot_epochs": (3, 5, 8)}

_PHOTOS_TRAINING = {**_SMALL_TRAINING, "epochs": 10, "lr_decay_epochs": (7, 9), "snapshot_epochs": (3, 5, 10)}

_DEMO_BRIDGING = {
    "lambda_sim": 3.0,
    "lambda_norm": 0.5,
    "lambda_drop": 6.0,
    "tau_fg": 0.3,
    "tau_bg": 0.15,
    "drop_threshold": 0.7,
    "drop_prob": 0.75,
}
"""Chosen on train-fullsup of the synthetic birds, with the small VGG."""

_DEMO_OBJECTS_TRAINING = {"epochs": 4, "warm_epochs": 1, "lr_decay_epochs": (3,), "snapshot_epochs": (1, 2, 4)}
"""The drawn objects are what the networks were pretrained on, as ImageNet-1K is in the paper; so few epochs do."""

_DEMO_OBJECTS_BRIDGING = {
    "lambda_sim": 0.5,
    "lambda_norm": 0.2,
    "lambda_drop": 3.0,
    "tau_fg": 0.5,
    "tau_bg": 0.3,
    "drop_threshold": 0.8,
    "drop_prob": 0.5,
}
"""The paper's values for ImageNet-1K with VGG16; on train-fullsup of the drawn objects none tried was better."""


def _images(train: int, held_out: int, test: int) -> dict[str, int]:
    """Options of a drawn data set: so many images in each split."""
    return {"train_weaksup": train, "train_fullsup": held_out, "test": test}


def _drawn(options: Mapping[str, int], objects_training: Mapping[str, Any]) -> dict[str, StandIn]:
    """The drawn worlds in the place of the paper's data sets."""
    return {
        "CUB": StandIn("synthetic_birds", options, fine_grained=True),
        "ImageNet-1K": StandIn("synthetic_objects", options, training=objects_training),
        "OpenImages": StandIn("synthetic_objects", options, training={**objects_training, "select_by": "pxap"}),
    }


def _photos(first_class: int, train_per_class: int) -> dict[str, Any]:
    """Twenty of the forty classes that are at hand; a network is pretrained on the other twenty."""
    return {"first_class": first_class, "classes": 20, "train_per_class": train_per_class, "fullsup_per_class": 20}


_PHOTOS = StandIn("tiny_imagenet", _photos(0, 150))

PROFILES = {
    "smoke": Profile(
        name="smoke",
        summary="a minute a notebook: does everything run?",
        caveat="profile smoke: trained for seconds on 40 pictures, these numbers mean nothing",
        seeds=(0, 1),
        stand_ins=_drawn(_images(40, 20, 20), {}),
        backbones={"VGG16": "mini_vgg", "ResNet50": "mini_resnet"},
        training={
            **_SMALL,
            "epochs": 2,
            "warm_epochs": 1,
            "lr_decay_epochs": (2,),
            "threshold_step": 0.05,
            "snapshot_epochs": (1, 2),
        },
        pretraining={
            **_SMALL_PRETRAINING,
            "dataset": "synthetic_objects",
            "dataset_options": _images(40, 20, 20),
            "epochs": 1,
            "lr_decay_epochs": (),
        },
    ),
    "demo": Profile(
        name="demo",
        summary="an hour on a laptop: the paper's effects in drawn worlds, no download, no GPU.",
        seeds=(0, 1, 2),
        stand_ins=_drawn(_images(1200, 200, 1000), _DEMO_OBJECTS_TRAINING),
        backbones={"VGG16": "mini_vgg", "ResNet50": "mini_resnet"},
        training=_DEMO_TRAINING,
        bridging=_DEMO_BRIDGING,
        special={
            ("CUB", "ResNet50"): {"lambda_sim": 1.5},
            ("ImageNet-1K", "VGG16"): _DEMO_OBJECTS_BRIDGING,
            ("OpenImages", "VGG16"): _DEMO_OBJECTS_BRIDGING,
        },
        pretraining={
            **_SMALL_PRETRAINING,
            "dataset": "synthetic_objects",
            "dataset_options": _images(2500, 100, 200),
            "epochs": 10,
            "lr_decay_epochs": (6, 9),
        },
    ),
    "photos": Profile(
        name="photos",
        summary="two hours on a laptop: real photographs (Tiny ImageNet) in the place of both data sets.",
        seeds=(0, 1, 2),
        stand_ins={"CUB": _PHOTOS, "ImageNet-1K": _PHOTOS},
        backbones={"VGG16": "mini_vgg", "ResNet50": "mini_resnet"},
        training=_PHOTOS_TRAINING,
        bridging=_DEMO_BRIDGING,
        pretraining={
            **_SMALL_PRETRAINING,
            "dataset": "tiny_imagenet",
            "dataset_options": _photos(20, 450),
            "epochs": 15,
            "lr_decay_epochs": (9, 13),
        },
    ),
    "paper": Profile(
        name="paper",
        summary="GPU days: the paper's own data sets, networks and hyperparameters.",
        seeds=(0, 1, 2),
        stand_ins={
            "CUB": StandIn("cub", fine_grained=True, training={"snapshot_epochs": (20, 45, 70)}),
            "ImageNet-1K": StandIn("ilsvrc"),
            "OpenImages": StandIn("openimages", training={"select_by": "pxap"}),
        },
        backbones={"VGG16": "vgg16", "ResNet50": "resnet50"},
        published_values=True,
    ),
}
