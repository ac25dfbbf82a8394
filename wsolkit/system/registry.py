"""Folders as registries: a data set, backbone or method is one file, and its file name is its name."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from wsolkit.errors import RecipeError, nearest, unknown


@cache
def names(package: str) -> tuple[str, ...]:
    """Names of the plugins in a package: its modules without a leading underscore, sorted."""
    folder = import_module(package).__path__
    return tuple(sorted(module.name for module in iter_modules(folder) if not module.name.startswith("_")))


NEEDED = {"method": ("Options", "step"), "dataset": ("Options", "open_split"), "backbone": ("build",)}
"""By kind, what every plugin defines."""


def load(package: str, kind: str, name: str) -> ModuleType:
    """Import the plugin ``name``.

    Args:
        package: dotted name of the folder, e.g. ``"wsolkit.methods"``.
        kind: what a plugin of this folder is, for the error message.
        name: the plugin's file name without ``.py``.

    Raises:
        RecipeError: if the folder has no such file; the message lists those it has. Or if the file does
            not define what it should.
    """
    if name not in names(package):
        raise unknown(kind, name, names(package))
    module = import_module(f"{package}.{name}")
    lacking = [needed for needed in NEEDED.get(kind, ()) if not hasattr(module, needed)]
    if lacking:
        raise RecipeError(f"{module.__file__} lacks {' and '.join(lacking)}; docs/extending.md shows a whole {kind}.")
    return module


def file_hash(package: str, kind: str, name: str) -> str:
    """A short hash of a plugin's file, to see whether it has changed; arguments as for `load`."""
    source = load(package, kind, name).__file__ or ""
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()[:12]


def parse_options(options_type: type, values: Mapping[str, Any], owner: str) -> Any:
    """Build a plugin's frozen ``Options`` from plain values.

    Args:
        options_type: a pydantic dataclass that forbids unknown keys.
        values: names and plain values, as they stand in a recipe's JSON.
        owner: who takes the options, for the error message (``"method 'alignment'"``).

    Raises:
        RecipeError: for an unknown name, a wrong type or a value out of range, naming each.
    """
    try:
        return TypeAdapter(options_type).validate_json(json.dumps(dict(values)))
    except ValidationError as error:
        known = sorted(field.name for field in dataclasses.fields(options_type))
        said = explain(error, known)
        knows = f"It knows: {', '.join(known)}." if known else "It has no options."
        raise RecipeError(f"Options of {owner}: {said}. {knows}") from None


SHOWN = 80
"""Characters of a rejected value that an error shows."""


def explain(error: ValidationError, known: Sequence[str] = ()) -> str:
    """One line that names each rejected field, the value received and what was expected.

    Args:
        error: from pydantic.
        known: the fields that there are, to suggest the nearest for an unknown one.
    """
    items = error.errors()
    # Of a value that may also be a fixed word: an object was not meant to be that word.
    meant = [item for item in items if item["type"] != "literal_error" or not isinstance(item["input"], dict)]
    return "; ".join(_explain_one(item, known) for item in meant or items)


def _explain_one(item: Mapping[str, Any], known: Sequence[str]) -> str:
    # pydantic names the class of a nested object besides its field; fields are in small letters.
    path = [str(part) for part in item["loc"] if not str(part)[:1].isupper()]
    name = ".".join(path) or "value"
    if item["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        near = nearest(path[-1], known)
        return f"unknown name {name!r}" + (f" (did you mean {near!r}?)" if near else "")
    if item["type"] in {"missing", "missing_argument"}:
        return f"{name!r} is missing"
    said = f"{item['msg'][0].lower()}{item['msg'][1:]}"
    if item["type"] == "json_invalid":  # what was received is the whole text
        return said
    received = repr(item["input"])
    return f"{name} = {received if len(received) <= SHOWN else received[:SHOWN] + ' ...'}: {said}"
