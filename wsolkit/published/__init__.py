"""The paper's numbers, typed in once from the paper, and its hyperparameters; read-only tables.

``table<N>.csv``: ``value`` in percent as printed, empty for a dash. ``hyperparameters.csv``: where each value comes
from (the paper's text, the released configuration, or the authors' later word). ``differences.csv``: where paper and
released code differ, which of them we follow, and the option that selects the other.
``eil.csv``: the schedule of EIL's authors. ``benchmark.csv``: what the WSOL benchmark tuned of other methods, second
hand (``docs/results.md`` says from where): ``option`` is our name, ``theirs`` the benchmark's, whose grid is in pixels.
"""

from importlib.resources import files

import pandas as pd

from wsolkit.errors import require_known

SOURCES = ("paper", "released", "authors")

#: OpenImages30k has no hyperparameters of its own: the paper uses those of ImageNet-1K (Appendix C.5).
SAME_AS = {"OpenImages": "ImageNet-1K"}


def table(number: str) -> pd.DataFrame:
    """A table of the paper in long form.

    Args:
        number: as the paper prints it, ``"7"`` or ``"A1"``.

    Returns:
        Columns ``table, dataset, backbone, method, venue, branch, metric, delta, value``; ``value`` in percent.

    Raises:
        RecipeError: if that table is not there.
    """
    folder = files(__name__)
    known = [file.name[5:-4] for file in folder.iterdir() if file.name.startswith("table")]
    require_known("table", number, known)
    text = {"table": str, "delta": str, "method": str}
    return pd.read_csv(folder / f"table{number}.csv", dtype=text, keep_default_na=False, na_values={"value": [""]})


def differences() -> pd.DataFrame:
    """Where paper and released code differ: ``topic, paper, released, here, option``."""
    return pd.read_csv(files(__name__) / "differences.csv", keep_default_na=False)


def hyperparameters(
    dataset: str, backbone: str, source: str = "paper"
) -> dict[str, float | int | bool | str | tuple[int, ...]]:
    """Published hyperparameters by the names that recipes and methods use.

    Args:
        dataset: ``"CUB"``, ``"ImageNet-1K"`` or ``"OpenImages"``.
        backbone: ``"VGG16"`` or ``"ResNet50"``.
        source: which source wins where several give a value: ``"paper"``, ``"released"`` or ``"authors"``.

    Raises:
        RecipeError: if nothing is published for that pair, or the source is unknown.
    """
    require_known("hyperparameter source", source, SOURCES)
    rows = pd.read_csv(files(__name__) / "hyperparameters.csv", dtype=str)
    pairs = rows["dataset"] + " with " + rows["backbone"]
    wanted = f"{SAME_AS.get(dataset, dataset)} with {backbone}"
    require_known("published experiment", wanted, set(pairs))
    rank = {source: len(SOURCES)} | {name: -number for number, name in enumerate(SOURCES) if name != source}
    ordered = rows[pairs == wanted].sort_values("source", key=lambda column: column.map(rank), kind="stable")
    return {name: _value(name, value) for name, value in zip(ordered["name"], ordered["value"], strict=True)}


def eil_schedule() -> dict[str, float | int | bool | str | tuple[int, ...]]:
    """The training schedule that EIL's own authors released for CUB with VGG16, as fields of a recipe."""
    rows = pd.read_csv(files(__name__) / "eil.csv", dtype=str)
    return {name: _value(name, value) for name, value in zip(rows["name"], rows["value"], strict=True)}


def _value(name: str, text: str) -> float | int | bool | str | tuple[int, ...]:
    if name == "lr_decay_epochs":
        return tuple(map(int, text.split()))
    if name == "nesterov":
        return text == "true"
    if name == "latter_part":
        return text
    return int(text) if name in {"epochs", "warm_epochs", "batch_size", "warm_batch_size"} else float(text)
