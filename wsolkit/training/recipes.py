"""`Recipe`: everything that decides the outcome of one training run, and nothing else."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from wsolkit import datasets, methods, models
from wsolkit.errors import RecipeError
from wsolkit.system.plugins import explain

#: Raised whenever the same recipe would give other numbers, so that old runs are not mistaken for new ones.
FORMAT = 3

#: Added to the method's name in lists where a run exists to pretrain others.
PRETRAINING = "for pretraining"

Positive = Annotated[int, Field(ge=1, le=1_000_000)]
Natural = Annotated[int, Field(ge=0, lt=2**32)]
Rate = Annotated[float, Field(ge=0, le=1e3, allow_inf_nan=False)]
Side = Annotated[int, Field(ge=8, le=4096)]


@dataclasses.dataclass(frozen=True)
class Components:
    """What the names in a recipe refer to, looked up once.

    Attributes:
        data: the data set with its options.
        backbone: the network, not built yet.
        method: the method with its options.
    """

    data: datasets.Source
    backbone: models.Backbone
    method: methods.Method


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Recipe:
    """One training run, as data.

    Attributes:
        dataset: name of the data set.
        backbone: name of the backbone.
        method: name of the WSOL method.
        seed: of initial weights, batch order, crops, flips and dropout.
        dataset_options: the data set's options; defaults are filled in.
        method_options: the method's options; defaults are filled in.
        pretrained: where the weights before the classifier come from: published files by what they were pretrained on,
            ``"imagenet"`` (torchvision's) or ``"synthetic_objects"`` (this kit's); the run of another recipe; or None
            (random).
        resize_size: side in pixels to which training images are resized, without keeping the aspect ratio.
        crop_size: side in pixels of the random training crop, and of the whole image in evaluation.
        epochs: all epochs, the warm stage included.
        warm_epochs: epochs of the warm stage (paper, Eq. 11).
        batch_size: images a step in the main stage.
        warm_batch_size: images a step in the warm stage.
        lr_former: learning rate of the former part of the network (paper, Appendix B).
        lr_latter: learning rate of the latter part.
        latter_part: the backbone's ``"last_layers"`` with the classifier (paper), or the ``"classifier"`` alone, as in
            the released configuration of ResNet50.
        lr_decay_epochs: epochs, counted from 1, at whose start both learning rates are multiplied by the factor.
        lr_decay_factor: that factor.
        momentum: of SGD.
        nesterov: whether the momentum is Nesterov's.
        weight_decay: of SGD.
        select_by: which epoch's weights are kept, judged on train-fullsup: the best ``"max_box_acc_v2"`` (the
            protocol), the best ``"pxap"`` (the same for masks), the best ``"top1_cls"``, or the ``"last"``.
        snapshot_epochs: epochs, counted from 1, after which the weights are kept as well, to look at training.
        threshold_step: step between score-map thresholds in every evaluation.
        cpu_threads: threads of one run on a CPU; they decide the order of sums, hence the last digits.
    """

    dataset: str
    backbone: str
    method: str = "cam"
    seed: Natural = 0
    dataset_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    method_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    pretrained: "Recipe | Literal['imagenet', 'synthetic_objects'] | None" = None
    resize_size: Side = 256
    crop_size: Side = 224
    epochs: Positive = 70
    warm_epochs: Natural = 20
    batch_size: Positive = 64
    warm_batch_size: Positive = 32
    lr_former: Rate = 4e-3
    lr_latter: Rate = 2e-2
    latter_part: Literal["last_layers", "classifier"] = "last_layers"
    lr_decay_epochs: tuple[Positive, ...] = (41, 61)
    lr_decay_factor: Rate = 0.2
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Rate = 5e-4
    select_by: Literal["max_box_acc_v2", "pxap", "top1_cls", "last"] = "max_box_acc_v2"
    snapshot_epochs: tuple[Positive, ...] = ()
    threshold_step: Annotated[float, Field(gt=0, lt=1)] = 0.01
    cpu_threads: Annotated[int, Field(ge=1, le=256)] = 1

    def __post_init__(self):
        """Look up the names, and fill in the options' defaults, so that equal recipes have equal keys."""
        found = self.components
        object.__setattr__(self, "dataset_options", dataclasses.asdict(found.data.options))
        object.__setattr__(self, "method_options", dataclasses.asdict(found.method.options))
        if self.resize_size < self.crop_size:
            raise RecipeError(f"crop_size = {self.crop_size} does not fit in resize_size = {self.resize_size}.")
        if self.warm_epochs > self.epochs:
            raise RecipeError(f"warm_epochs = {self.warm_epochs} is more than epochs = {self.epochs}.")
        if any(epoch > self.epochs for epoch in self.snapshot_epochs):
            raise RecipeError(f"snapshot_epochs = {self.snapshot_epochs} go beyond epochs = {self.epochs}.")
        if isinstance(self.pretrained, Recipe) and self.pretrained.backbone != self.backbone:
            raise RecipeError(f"pretrained is a {self.pretrained.backbone!r}; expected a {self.backbone!r}.")
        if self.nesterov and not self.momentum:
            raise RecipeError("nesterov needs a momentum above 0; received 0. Raise it, or set nesterov = false.")

    def __hash__(self) -> int:
        return hash(self.key)

    def __reduce__(self) -> tuple:
        """Pickle the JSON alone, because a component's file cannot be pickled."""
        return Recipe.from_json, (self.to_json(),)

    @cached_property
    def components(self) -> Components:
        """Data set, backbone and method.

        Raises:
            RecipeError: if a name or an option is unknown, or an option's value is not allowed.
        """
        backbone = models.find(self.backbone)
        data = datasets.find(self.dataset, self.dataset_options)
        return Components(data, backbone, methods.find(self.method, self.method_options))

    @cached_property
    def key(self) -> str:
        """A short name for the content: equal for equal recipes, different for different ones."""
        content = json.dumps([FORMAT, json.loads(self.to_json())], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def network(self, num_classes: int) -> models.GapClassifier:
        """The backbone with random weights by the seed, and with the method's own layers, if it has any."""
        found = self.components
        return found.method.equip(found.backbone.build(num_classes, self.seed), self.seed)

    @property
    def label(self) -> str:
        """The method in the paper's words (`wsolkit.methods.Method.label`)."""
        return self.components.method.label

    def to_json(self) -> str:
        """The recipe as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """Read a recipe.

        Raises:
            RecipeError: if the text is not JSON, or a name or value is unknown, of the wrong type or out of range.
        """
        if not text.strip():
            raise RecipeError("Not a recipe: the text is empty. `wsolkit recipe` prints one.")
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            raise _rejected(error) from None

    @classmethod
    def from_file(cls, path: Path) -> "Recipe":
        """Read a recipe from a JSON file.

        Raises:
            RecipeError: as `from_json`, and if the file cannot be read.
        """
        try:
            return cls.from_json(path.read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            raise RecipeError(f"{path} does not exist. Write one with: wsolkit recipe > {path.name}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"Cannot read a recipe from {path}: {error}.") from error
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from None

    def changed(self, **changes: Any) -> "Recipe":
        """A copy with some fields changed, checked like a new one."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)} | changes
        return make_recipe(**fields)

    def altered(self, settings: Mapping[str, Any]) -> "Recipe":
        """A copy with a user's changes; what depends on a changed field follows, unless it is changed too.

        A new method or data set starts from its own default options; fewer epochs drop whatever lies beyond the end.

        Args:
            settings: by field, or by ``field.name`` for one of its options.

        Raises:
            RecipeError: as `from_json`.
        """
        fields = json.loads(self.to_json())
        for name in ("method", "dataset"):
            if settings.get(name, fields[name]) != fields[name]:
                fields[f"{name}_options"] = {}
        if isinstance(epochs := settings.get("epochs"), int):
            for name in ("snapshot_epochs", "lr_decay_epochs"):
                fields[name] = [epoch for epoch in fields[name] if epoch <= epochs]
            fields["warm_epochs"] = min(self.warm_epochs, max(0, epochs - 1))
        for path, value in sorted(settings.items()):  # a field comes before its options
            name, _, option = path.partition(".")
            if name in self.method_options and name not in Recipe.__dataclass_fields__:
                raise RecipeError(f"{name} is an option of the method. Give method_options.{path}={value}.")
            if not option:
                fields[name] = value
            elif isinstance(fields.get(name), dict):
                fields[name] = fields[name] | {option: value}
            else:
                raise RecipeError(f"{path}: {name} has no options. Give name=value, or method_options.lambda_sim=1.")
        return Recipe.from_json(json.dumps(fields))

    def warm_stage(self) -> "Recipe | None":
        """The recipe of this one's warm stage alone, or None if it has none.

        It holds nothing that takes effect later. Recipes that begin alike therefore have the same warm stage, and the
        state at its end is one that each of them passes through.
        """
        if not 0 < self.warm_epochs < self.epochs:
            return None
        method, options = self.components.method.warm_stage()
        return self.changed(
            method=method,
            method_options=options,
            epochs=self.warm_epochs,
            batch_size=self.warm_batch_size,
            lr_decay_epochs=self._within_warm_stage(self.lr_decay_epochs),
            snapshot_epochs=self._within_warm_stage(self.snapshot_epochs),
        )

    def _within_warm_stage(self, epochs: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(epoch for epoch in epochs if epoch <= self.warm_epochs)

    def size_of(self, split: str) -> int:
        """Side in pixels at which a split is read: larger than the crop in training, the whole image elsewhere."""
        return self.resize_size if split == "train-weaksup" else self.crop_size

    def learning_rates(self, epoch: int) -> tuple[float, float]:
        """Learning rates of the former and the latter part in an epoch, counted from 1."""
        decay = self.lr_decay_factor ** sum(epoch >= start for start in self.lr_decay_epochs)
        return self.lr_former * decay, self.lr_latter * decay


def make_recipe(**fields: Any) -> Recipe:
    """A recipe from keyword arguments, with one-line errors.

    Raises:
        RecipeError: for a field that is unknown, of the wrong type or out of range.
    """
    try:
        return Recipe(**fields)
    except ValidationError as error:
        raise _rejected(error) from None


def _rejected(error: ValidationError) -> RecipeError:
    fields = [field.name for field in dataclasses.fields(Recipe)]
    reasons = explain(error, fields)
    unexplained = "unknown name" in reasons and "did you mean" not in reasons
    hint = f" Known: {', '.join(fields)}; a method's own options belong in method_options." if unexplained else ""
    return RecipeError(f"Not a recipe: {reasons}.{hint}")
