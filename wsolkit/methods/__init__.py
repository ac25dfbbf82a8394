"""WSOL methods: one file each, saying what a training step computes.

A method's file has a frozen dataclass ``Options`` and a function
``step(model, batch, options) -> Step``. To add a method, add its file here. More is optional:

- ``PAIRS``: ``"batch"`` for a batch that also has `Batch.partners`, ``"class"`` for one that holds images of a class
  side by side;
- ``layers(model, options) -> Module``: layers of the method's own, which ``model.extra`` then holds: trained at the
  rate of the latter part, saved and resumed with the network;
- ``predict(model, output, labels, options) -> (logits, maps)``: how the method classifies (B, K) and localizes
  (B, H, W) in evaluation, from what the network gave, where that is not by its logits and the CAM;
- ``warm_stage(options) -> (method, options)``: the method that computes the same until alignment begins;
- ``LABEL``: what tables call it; or ``loss_terms(options) -> (name, ...)``, where its loss terms name it.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import torch

from wsolkit.methods._base import Batch, Draw, Pairs, Share, Step, Term, Weight
from wsolkit.models import GapClassifier
from wsolkit.system import plugins
from wsolkit.system.plugins import STRICT

__all__ = [
    "STRICT",
    "Batch",
    "Draw",
    "Method",
    "Pairs",
    "Share",
    "Step",
    "Term",
    "Weight",
    "find",
    "join_terms",
    "names",
]


@dataclass(frozen=True)
class Method:
    """A method with its options set.

    Attributes:
        name: its file's name.
        module: its file.
        options: its ``Options``, complete.
    """

    name: str
    module: ModuleType
    options: Any

    def step(self, model: GapClassifier, batch: Batch) -> Step:
        """The loss terms of one batch; see the method's own ``step``."""
        return self.module.step(model, batch, self.options)

    @property
    def pairs(self) -> Pairs | None:
        """How the images of a batch are paired, if they are."""
        return getattr(self.module, "PAIRS", None)

    def equip(self, model: GapClassifier, seed: int = 0) -> GapClassifier:
        """Give a network the method's own layers and predictions, if it has any; global randomness is left alone."""
        if hasattr(self.module, "predict"):
            model.predict = partial(self.module.predict, model, options=self.options)
        if hasattr(self.module, "layers"):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model.extra = self.module.layers(model, self.options)
        return model

    def warm_stage(self) -> tuple[str, dict[str, Any]]:
        """Name and options of the method whose warm stage is the same (paper, Eq. 11), so that both can share it."""
        alike = getattr(self.module, "warm_stage", lambda options: (self.name, options))
        name, options = alike(self.options)
        return name, dataclasses.asdict(options)

    @property
    def label(self) -> str:
        """The method in the paper's words, e.g. ``ADL`` or ``drop + sim``; its file's name if it does not say."""
        if hasattr(self.module, "loss_terms"):
            return join_terms(self.module.loss_terms(self.options))
        return getattr(self.module, "LABEL", self.name)


def names() -> tuple[str, ...]:
    """Names of the methods."""
    return plugins.names(__name__)


def find(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """A method by name, missing options filled in with their defaults.

    Raises:
        RecipeError: if the method is unknown, or does not take one of the options.
    """
    module = plugins.load(__name__, "method", name)
    return Method(name, module, plugins.parse_options(module.Options, options or {}, f"method {name!r}"))


def join_terms(terms: Iterable[str]) -> str:
    """Loss terms beside the cross-entropy, written as in the paper's rows; without any, the method is vanilla."""
    return " + ".join(terms) or "vanilla"
