"""Notebooks as files: which there are, the parameters that they declare, and whether given values fit them."""

import ast
import json
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from wsolkit.errors import DataError, RecipeError, WsolkitError, require_known, turned_into
from wsolkit.study.study import chosen_profile
from wsolkit.system import folders
from wsolkit.system.plugins import explain

if TYPE_CHECKING:
    from nbformat import NotebookNode

#: Parameters that name files or folders, in any notebook; kernels run in another folder than the shell.
PATHS = ("data_root", "out_root", "images", "weights", "classes")

#: What a batch of all notebooks starts with, because it is read first, and ends with, because it needs the rest.
FIRST, LAST = ("00_tour", "table7_ablation"), ("claims",)

#: What runs only if it is named: how the profiles' hyperparameters were chosen, which no other notebook needs.
NAMED_ONLY = ("tuning",)

#: Names that the annotation of a parameter may use.
TYPES: Mapping[str, Any] = {kind.__name__: kind for kind in (str, int, float, bool, list, tuple, dict)} | {
    name: getattr(typing, name) for name in ("Any", "Dict", "List", "Literal", "Optional", "Sequence", "Tuple", "Union")
}


class NotebookError(WsolkitError):
    """A notebook whose file cannot be read, or whose parameters cannot be told; others can still be run."""


def find(names: Sequence[str] = ()) -> list[Path]:
    """Notebooks by name, in that order; without names all of them, the quickest results first.

    Raises:
        RecipeError: for an unknown name.
        WsolkitError: if there are no notebooks.
    """
    files = (path for path in folders.notebooks_root().glob("*.ipynb") if path.is_file() and path.name[0] != ".")
    known = {path.stem: path for path in sorted(files, key=_order)}
    if not known:
        raise WsolkitError(f"No notebook found in {folders.notebooks_root()}. Set WSOLKIT_HOME to the project.")
    for name in names:
        require_known("notebook", name, known)
    return [known[name] for name in names or known]


def _order(path: Path) -> tuple[int, str]:
    """What is read first, then tables, then figures, then the user's own, then what needs the rest."""
    name = path.stem
    if name in FIRST:
        return FIRST.index(name) - len(FIRST), name
    return 3 if name in LAST else 0 if name.startswith("table") else 1 if name.startswith("fig") else 2, name


def read(notebook: Path) -> "NotebookNode":
    """A notebook's content in today's format.

    Raises:
        NotebookError: if the file is no notebook, or a damaged one.
    """
    from nbformat import convert, reader

    advice = f"Restore it, or remove it from {notebook.parent}."
    with turned_into(NotebookError, f"{notebook.name} cannot be read as a notebook", advice):
        with notebook.open(encoding="utf-8") as file:
            content = convert(reader.read(file), 4)
        for cell in content.cells:
            _ = cell.cell_type, cell.source.splitlines(), cell.metadata.items()
    return content


def code_cells(notebook: Path) -> "list[NotebookNode]":
    """The code cells of a notebook; raises as `read`."""
    return [cell for cell in read(notebook).cells if cell.cell_type == "code"]


def takes_parameters(cell: "NotebookNode") -> bool:
    """Whether papermill puts parameters behind this cell."""
    return "parameters" in (cell.metadata.get("tags") or ())


def parse_settings(settings: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """Parse ``name=value`` texts. A value is read as JSON if it is JSON, otherwise as text, as paths always are.

    Args:
        settings: the texts.
        option: the option that they were given to, for the error message.

    Raises:
        RecipeError: for a text without ``=``, a name given twice, or a number that is not finite.
    """
    parsed: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals or not name:
            raise RecipeError(f"{option} {setting!r}: expected name=value, for example {option} seeds=[0,1].")
        if name in parsed:
            raise RecipeError(f"{option} gives {name} twice, the second time {text!r}; give it once.")
        try:
            parsed[name] = text if name in PATHS and text != "null" else json.loads(text)
        except (ValueError, RecursionError):
            parsed[name] = text
        try:
            json.dumps(parsed[name], allow_nan=False)
        except ValueError:
            raise RecipeError(
                f"{option} {setting}: expected finite numbers. As text it needs quotes: {name}={json.dumps(text)}."
            ) from None
    return parsed


def declared(notebook: Path) -> dict[str, str]:
    """The parameters that a notebook declares, and the annotation of each; ``Any`` where it has none.

    Raises:
        NotebookError: if the file is damaged, has no cell tagged ``parameters``, or that cell cannot be understood.
    """
    tagged = list(filter(takes_parameters, code_cells(notebook)))
    if not tagged:
        raise NotebookError(
            f"{notebook.name} has no code cell tagged 'parameters', so it cannot be given a profile. Add that tag to a "
            "cell (in JupyterLab: Property Inspector, Common Tools) with lines such as: profile: str = None  # its name"
        )
    found: dict[str, str] = {}
    try:
        for statement in ast.parse(tagged[0].source, "their cell").body:
            annotation = ast.unparse(statement.annotation) if isinstance(statement, ast.AnnAssign) else "Any"
            for target in getattr(statement, "targets", [getattr(statement, "target", None)]):
                if isinstance(target, ast.Name):
                    if target.id in found:
                        raise ValueError(f"{target.id} is declared twice; keep one of the lines")
                    found[target.id] = annotation
    except (SyntaxError, ValueError) as error:
        raise NotebookError(f"The parameters of {notebook.name} cannot be parsed: {error}.") from None
    return found


def check_parameters(notebook: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Compare parameters with those that a notebook declares.

    Returns:
        What to give to the notebook: all of ``given``, but ``profile`` only if the notebook declares it; others find
        the profile in their environment.

    Raises:
        RecipeError: for a name that the notebook does not declare, or a value of another type.
        NotebookError: if the notebook's parameters cannot be told.
    """
    known = declared(notebook)
    wanted = {name: value for name, value in given.items() if name in known or name != "profile"}
    for name, value in wanted.items():
        require_known(f"parameter of {notebook.stem}", name, known)
        received = f"Parameter {name} = {value!r} of {notebook.stem}"
        if (adapter := _adapter(known[name])) is None:
            raise RecipeError(f"{received}: its type {known[name]} is not made of {', '.join(TYPES)}.")
        if reason := _mismatch(adapter, value):
            # What was perhaps meant: the value as text, or as the only item of a list.
            likely = [each for each in (json.dumps(value), [value]) if not _mismatch(adapter, each)]
            hint = f", e.g. --set '{name}={json.dumps(likely[0])}'" if likely else ""
            raise RecipeError(f"{received}: expected {known[name]}{hint} ({reason}).")
    return wanted


def _adapter(annotation: str) -> TypeAdapter | None:
    """A check for values of the annotated type, or None; no check at all if that is not a plain type."""
    plain = annotation.replace("typing.", "").strip("'\"")
    try:
        # Without parentheses it can call nothing.
        kind: Any = eval(plain, {"__builtins__": {}}, dict(TYPES)) if re.fullmatch(r"[\w\[\]., |'\"]+", plain) else None
        adapter = TypeAdapter(kind | None, config=ConfigDict(strict=True, allow_inf_nan=False))
        adapter.validate_python(None)  # a name inside quotes is looked up only now
        return adapter
    except Exception:  # whatever a wrong annotation does
        return None


def _mismatch(adapter: TypeAdapter, value: Any) -> str | None:
    """Why a value is not of a type; None if it is."""
    try:
        adapter.validate_json(json.dumps(value, allow_nan=False))
    except ValidationError as error:
        return explain(error).split(":", 1)[-1].strip()
    except (ValueError, TypeError):
        return "numbers must be finite, and values plain"
    return None


def complete(parameters: Mapping[str, Any], profile: str | None) -> dict[str, Any]:
    """The parameters with the profile's name and with absolute paths, which mean the same in every process.

    Raises:
        RecipeError: for two profiles, or an unknown one.
        DataError: for data or pictures that do not exist.
    """
    named = parameters.get("profile")
    if profile and named and profile != named:
        raise RecipeError(f"Two profiles were given, {profile!r} and {named!r}; give one.")
    given = {**parameters, "profile": chosen_profile(profile or named).name}
    for name in PATHS:
        if given.get(name) is not None:
            path = Path(given[name]).expanduser().resolve()
            # Weights may also be a run's key, which is no path; a folder to write to may not exist yet.
            given[name] = str(path) if path.exists() or name == "out_root" else str(given[name])
    for name, wanted in {"data_root": "the folder or zip of the data", "images": "a folder of pictures"}.items():
        if given.get(name) and not Path(given[name]).exists():
            raise DataError(f"{name} = {given[name]} does not exist. Give {wanted}.")
    return given


def variables(profile: str) -> dict[str, str]:
    """Environment variables of a notebook's process: the profile, and folders by absolute paths."""
    paths = {
        "WSOLKIT_HOME": folders.home(),
        "WSOLKIT_RUNS": folders.runs_root(),
        "WSOLKIT_CACHE": folders.cache_or_off(),
        "WSOLKIT_OUT": folders.figures_root(),
        "WSOLKIT_WEIGHTS": folders.weights_root().resolve(),
    }
    return {name: str(path) for name, path in paths.items()} | {"WSOLKIT_PROFILE": profile}
