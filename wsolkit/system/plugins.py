"""Folders as registries: a data set, backbone or method is one file, and the file's name is its name."""

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

from pydantic import ConfigDict, TypeAdapter, ValidationError

from wsolkit.errors import RecipeError, nearest, require_known

#: Configuration of every ``Options`` class: unknown names and wrong types are refused.
STRICT = ConfigDict(extra="forbid", strict=True)

#: By kind, what every plug-in defines.
REQUIRED = {"method": ("Options", "step"), "dataset": ("Options", "open_split"), "backbone": ("build",)}

#: Characters of a rejected value that an error shows.
SHOWN = 80


@cache
def names(package: str) -> tuple[str, ...]:
    """Names of the plug-ins in a package: its modules without a leading underscore, sorted."""
    folder = import_module(package).__path__
    return tuple(sorted(module.name for module in iter_modules(folder) if not module.name.startswith("_")))


def load(package: str, kind: str, name: str) -> ModuleType:
    """Import the plug-in ``name``.

    Args:
        package: dotted name of the folder, e.g. ``"wsolkit.methods"``.
        kind: what a plug-in of this folder is, e.g. ``"method"``.
        name: the plug-in's file name without ``.py``.

    Raises:
        RecipeError: if the folder has no such file (the message lists those it has), or the file lacks something that
            every plug-in defines.
    """
    require_known(kind, name, names(package))
    module = import_module(f"{package}.{name}")
    lacking = [required for required in REQUIRED[kind] if not hasattr(module, required)]
    if lacking:
        raise RecipeError(f"{module.__file__} lacks {' and '.join(lacking)}; docs/extending.md shows a whole {kind}.")
    return module


def file_hash(module: ModuleType) -> str:
    """A short hash of a plug-in's file, which shows whether it has changed."""
    return hashlib.sha256(Path(module.__file__ or "").read_bytes()).hexdigest()[:12]


def parse_options(options_type: type, values: Mapping[str, Any], owner: str) -> Any:
    """Build a plug-in's frozen ``Options`` from plain values.

    Args:
        options_type: a pydantic dataclass that forbids unknown keys.
        values: names and plain values, as in a recipe's JSON.
        owner: whose options they are, for the error message (``"method 'bridging'"``).

    Raises:
        RecipeError: naming each option that is unknown, of the wrong type or out of range.
    """
    try:
        return TypeAdapter(options_type).validate_json(json.dumps(dict(values)))
    except ValidationError as error:
        known = sorted(field.name for field in dataclasses.fields(options_type))
        takes = f"It takes: {', '.join(known)}." if known else "It has no options."
        raise RecipeError(f"Options of {owner}: {explain(error, known)}. {takes}") from None


def explain(error: ValidationError, known: Sequence[str] = ()) -> str:
    """One line that names each rejected field, the value received and what was expected.

    Args:
        error: from pydantic.
        known: all valid field names, to suggest the nearest one for an unknown name.
    """
    items = error.errors()
    # A field may take either a fixed word or an object; an object that was given did not mean the word.
    meant = [item for item in items if item["type"] != "literal_error" or not isinstance(item["input"], dict)]
    return "; ".join(_explain_one(item, known) for item in meant or items)


def _explain_one(item: Mapping[str, Any], known: Sequence[str]) -> str:
    # Besides a field, pydantic names the class of a nested object; fields are in lower case.
    path = [str(part) for part in item["loc"] if not str(part)[:1].isupper()]
    name = ".".join(path) or "value"
    if item["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        near = nearest(path[-1], known)
        return f"unknown name {name!r}" + (f" (did you mean {near!r}?)" if near else "")
    if item["type"] in {"missing", "missing_argument"}:
        return f"{name!r} is missing"
    message = f"{item['msg'][0].lower()}{item['msg'][1:]}"
    if item["type"] == "json_invalid":  # the input is the whole text
        return message
    received = repr(item["input"])
    return f"{name} = {received if len(received) <= SHOWN else received[:SHOWN] + ' ...'}: {message}"
