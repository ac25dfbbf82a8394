"""Notebooks as files: which there are, the parameters that they declare, and the runs that they would ask for."""

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from wsolkit.errors import DataError, RecipeError, WsolkitError, unknown
from wsolkit.study.study import PLAN_VARIABLE, Planned, chosen_profile
from wsolkit.system import folders
from wsolkit.system.processes import environment
from wsolkit.system.registry import explain
from wsolkit.training.recipes import Recipe

PARAMETER_TYPES: Mapping[str, type | UnionType] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list[int]": list[int],
    "list[float]": list[float],
    "list[str]": list[str],
}
"""Types that a parameter may have; ``None`` always means "the default of the profile"."""


PATHS = ("data_root", "out_root", "images", "weights", "classes")
"""Parameters that name files or folders, in whatever notebook; kernels run in another folder than the shell."""

FIRST, LAST = ("00_tour", "table7_ablation"), ("claims",)
"""What a batch of all notebooks begins with, since it is read first, and ends with, since it needs the rest."""


def find(names: Sequence[str] = ()) -> list[Path]:
    """Notebooks by name, in that order; all of them if none is named, the quickest results first.

    Raises:
        RecipeError: for an unknown name.
        WsolkitError: if there are no notebooks.
    """
    known = {path.stem: path for path in sorted(folders.notebooks_root().glob("*.ipynb"), key=_order)}
    if not known:
        raise WsolkitError(
            f"No notebook found in {folders.notebooks_root()}. Set WSOLKIT_HOME to the project's folder."
        )
    for name in names:
        if name not in known:
            raise unknown("notebook", name, known)
    return [known[name] for name in names or known]


def _order(path: Path) -> tuple[int, str]:
    """What is read first, then tables, then figures, then the user's own, then what needs the rest."""
    name = path.stem
    if name in FIRST:
        return FIRST.index(name) - len(FIRST), name
    kinds = ("table", "fig")
    kind = next((number for number, begun in enumerate(kinds) if name.startswith(begun)), len(kinds))
    return len(kinds) + 1 if name in LAST else kind, name


def parse_settings(settings: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """``name=value`` texts to parameters; a value is read as JSON where it is JSON, else as text, as paths always are.

    Args:
        settings: the texts.
        option: that they were given to, for the error message.

    Raises:
        RecipeError: for a text without ``=``.
    """
    parsed = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name.strip():
            raise RecipeError(f"{option} {setting!r}: expected name=value, for example --set seeds=[0,1].")
        try:
            parsed[name.strip()] = text if name.strip() in PATHS and text != "null" else json.loads(text)
        except ValueError:
            parsed[name.strip()] = text
    return parsed


def check_parameters(notebook: Path, given: Mapping[str, Any]) -> None:
    """Compare parameters with those that a notebook declares.

    Raises:
        RecipeError: for a name that the notebook does not declare, or a value of another type.
    """
    import papermill

    declared = papermill.inspect_notebook(str(notebook))
    for name, value in given.items():
        if name not in declared:
            raise unknown(f"parameter of {notebook.stem}", name, declared)
        kind = declared[name]["inferred_type_name"]
        if kind not in PARAMETER_TYPES:
            raise RecipeError(f"{notebook.stem} declares {name}: {kind}; expected one of {', '.join(PARAMETER_TYPES)}.")
        wanted: Any = PARAMETER_TYPES[kind] | None  # a type that is known at run time only
        try:
            TypeAdapter(wanted, config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError as error:
            reason = explain(error).split(":", 1)[-1].strip()
            example = f", e.g. {name}=[0]" if kind == "list[int]" else ""
            received = f"Parameter {name} = {value!r} of {notebook.stem}"
            raise RecipeError(f"{received}: expected {kind}{example} ({reason}).") from None


def complete(parameters: Mapping[str, Any], profile: str | None) -> dict[str, Any]:
    """The parameters with the profile's name and with absolute paths, which mean the same in every process.

    Raises:
        RecipeError: for two profiles, or an unknown one.
        DataError: for data or pictures that are not there.
    """
    named = parameters.get("profile")
    if profile and named and profile != named:
        raise RecipeError(f"Two profiles were given, {profile!r} and {named!r}; give one.")
    given = {**parameters, "profile": chosen_profile(profile or named).name}
    for name in PATHS:
        if given.get(name) is not None:
            path = Path(given[name]).expanduser().resolve()
            # Weights may also be a run's key, which is no path; a folder to write to need not be there yet.
            given[name] = str(path) if path.exists() or name == "out_root" else str(given[name])
    for name, wanted in {"data_root": "the folder or zip of the data", "images": "a folder of pictures"}.items():
        if given.get(name) and not Path(given[name]).exists():
            raise DataError(f"{name} = {given[name]} does not exist. Give {wanted}.")
    return given


def recipes_of(notebook: Path, parameters: Mapping[str, Any]) -> list[Recipe]:
    """The recipes that one notebook asks for, in its order; empty where it asks for none.

    The notebook's own cells are run, in this process, until it comes to its runs; a notebook asks for all at once.
    """
    import nbformat

    namespace: dict[str, Any] = {}
    try:
        with environment({PLAN_VARIABLE: "1"}), contextlib.redirect_stdout(io.StringIO()):
            for cell in nbformat.read(notebook, as_version=4).cells:
                if cell.cell_type == "code":
                    exec(compile(cell.source, notebook.name, "exec"), namespace)
                    if "parameters" in cell.metadata.get("tags", ()):
                        namespace |= parameters
    except Planned as planned:
        return planned.recipes
    return []
