"""WSOL methods: one file each, saying what a training step computes.

A method's file has a frozen dataclass ``Options`` and a function
``step(model, images, labels, options, warm, draw) -> Step``. To add a method, add its file here. Two more functions are
optional: ``warm_stage(options) -> (method, options)`` names the method that computes the same until alignment begins,
and ``loss_terms(options) -> (name, ...)`` gives the names by which the paper's tables call it.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import Tensor

from wsolkit.methods._base import Draw, Step, Term
from wsolkit.models import GapClassifier
from wsolkit.system import registry

__all__ = ["Draw", "Method", "Step", "Term", "find", "join_terms", "names"]


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

    def step(self, model: GapClassifier, images: Tensor, labels: Tensor, warm: bool, draw: Draw) -> Step:
        """The loss terms of one batch; see the method's own ``step``."""
        return self.module.step(model, images, labels, self.options, warm, draw)

    def warm_stage(self) -> tuple[str, dict[str, Any]]:
        """Name and options of the method whose warm stage is the same (paper, Eq. 11), so that both can share it."""
        alike = getattr(self.module, "warm_stage", lambda options: (self.name, options))
        name, options = alike(self.options)
        return name, dataclasses.asdict(options)

    @property
    def label(self) -> str:
        """The method in the paper's words, e.g. ``drop + sim``; its name if it does not give its loss terms."""
        return join_terms(self.module.loss_terms(self.options)) if hasattr(self.module, "loss_terms") else self.name


def names() -> tuple[str, ...]:
    """Names of the methods."""
    return registry.names(__name__)


def find(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """A method by name, missing options filled in with their defaults.

    Raises:
        RecipeError: if the method is unknown, or does not take one of the options.
    """
    module = registry.load(__name__, "method", name)
    return Method(name, module, registry.parse_options(module.Options, options or {}, f"method {name!r}"))


def join_terms(terms: Iterable[str]) -> str:
    """Loss terms beside the cross-entropy, written as in the paper's rows; without any, the method is vanilla."""
    return " + ".join(terms) or "vanilla"
