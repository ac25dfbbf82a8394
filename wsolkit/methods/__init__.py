"""WSOL methods: one file each, saying what a training step computes.

A method module has a frozen dataclass ``Options`` and a function
``step(model, images, labels, options, warm, draw) -> Step``. Adding one is adding its file here. If its warm stage
does not depend on all options, ``warm_stage(options) -> (method, options)`` names what computes the same; where the
paper names it by its loss terms, ``loss_terms(options) -> (name, ...)`` gives them.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from wsolkit.methods._base import Draw, Step, Term
from wsolkit.system import registry

__all__ = [
    "Draw",
    "Step",
    "Term",
    "complete_options",
    "configured_step",
    "join_terms",
    "label",
    "names",
    "step",
    "warm_stage",
]


def names() -> tuple[str, ...]:
    """Names of the methods."""
    return registry.names(__name__)


def complete_options(name: str, options: Mapping[str, Any]) -> Any:
    """A method's ``Options`` with every default filled in.

    Raises:
        RecipeError: for an unknown method, or an option that it does not take.
    """
    module = registry.load(__name__, "method", name)
    return registry.parse_options(module.Options, options, f"method {name!r}")


def configured_step(name: str, options: Mapping[str, Any]) -> Callable[..., Step]:
    """The training step of a method with its options set: ``step(model, images, labels, warm, draw)``.

    Raises:
        RecipeError: for an unknown method, or an option that it does not take.
    """
    take, complete = step(name), complete_options(name, options)
    return lambda model, images, labels, warm, draw: take(model, images, labels, complete, warm, draw)


def step(name: str) -> Callable[..., Step]:
    """The training step of a method.

    Raises:
        RecipeError: for an unknown method.
    """
    return registry.load(__name__, "method", name).step


def warm_stage(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The method and options whose warm stage is the same (paper, Eq. 11); recipes with the same can share it.

    Raises:
        RecipeError: for an unknown method, or an option that it does not take.
    """
    module, complete = registry.load(__name__, "method", name), complete_options(name, options)
    same, left = module.warm_stage(complete) if hasattr(module, "warm_stage") else (name, complete)
    return same, dataclasses.asdict(left)


def label(name: str, options: Mapping[str, Any]) -> str:
    """A method in the paper's words, e.g. ``drop + sim``; the name of one that does not say its loss terms.

    Raises:
        RecipeError: for an unknown method, or an option that it does not take.
    """
    module, complete = registry.load(__name__, "method", name), complete_options(name, options)
    return join_terms(module.loss_terms(complete)) if hasattr(module, "loss_terms") else name


def join_terms(terms: Iterable[str]) -> str:
    """Loss terms beside the cross-entropy as the paper's rows name them; without any the method is vanilla."""
    return " + ".join(terms) or "vanilla"
