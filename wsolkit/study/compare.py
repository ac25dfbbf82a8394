"""Two folders of results side by side, number by number: does what one machine found come out again on another?"""

import io
import subprocess
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from wsolkit.errors import DataError, turned_into
from wsolkit.study.statistics import CONFIDENCE
from wsolkit.study.study import RUNS_PART, TIDY
from wsolkit.system import folders

#: What a row says of one repetition; all else tells which number it is.
OF_REPETITION = {"value", "count", "seed", "recipe", "version", "commit", "spread"}

#: Differences below this are rounding.
ROUNDING = 1e-9

#: Chance with which two folders that agree are said to differ.
ALARM = 0.001

#: The verdicts of the claims.
VERDICTS = "claims_summary.csv"


def numbers(first: Path, second: Path) -> pd.DataFrame:
    """Every number over repetitions that both folders have, and how the two agree.

    Numbers of single pictures and bins of histograms are left out: they have no repetitions.

    Args:
        first: a folder of results, as ``figures/demo``.
        second: another.

    Returns:
        One row a number: ``notebook, number, first, second, half_width, state``; the middle three in the unit of the
        number. The state is ``"equal"``; ``"within"``, where the difference is inside the 95% interval of what
        repetitions with other seeds would give; or ``"outside"``.

    Raises:
        DataError: if a folder has no tables, or the two have no number in common.
    """
    mine, others = _tables(first), _tables(second)
    shared = mine.keys() & others.keys()
    sides = ([_by_number(tables[name]) for name in shared] for tables in (mine, others))
    parts = [one.add_suffix("_1").join(two.add_suffix("_2"), how="inner") for one, two in zip(*sides, strict=True)]
    both = pd.concat(parts) if parts else pd.DataFrame()
    if both.empty:
        raise DataError(f"{first} and {second} have no number in common. Give two folders of the same profile.")
    found = _agreement(both.reset_index())
    return found.sort_values(["notebook", "number"], ignore_index=True)


def verdicts(first: Path, second: Path) -> pd.DataFrame:
    """The claims that both folders measured, with different verdicts: ``claim, first, second``."""
    if not all((folder / VERDICTS).is_file() for folder in (first, second)):
        return pd.DataFrame(columns=["claim", "first", "second"])
    both = [pd.read_csv(folder / VERDICTS, index_col="claim")["verdict"] for folder in (first, second)]
    table = pd.DataFrame({"first": both[0], "second": both[1]}).replace("not measured", None).dropna()
    return table[table["first"] != table["second"]].reset_index()


def contradictory(changed: pd.DataFrame) -> pd.DataFrame:
    """Of changed verdicts those that say the opposite: reproduced, and not reproduced."""
    opposite = {"reproduced", "not reproduced"}
    return changed[[{*pair} == opposite for pair in zip(changed["first"], changed["second"], strict=True)]]


def beyond_chance(found: pd.DataFrame) -> bool:
    """Whether more numbers lie outside their intervals than chance allows."""
    return (found["state"] == "outside").sum() > stats.binom.ppf(1 - ALARM, len(found), 1 - CONFIDENCE)


def in_one_line(found: pd.DataFrame, changed: pd.DataFrame) -> str:
    """The whole comparison in a sentence."""
    agree = (found["state"] != "outside").sum()
    said = f"{agree:,} of {len(found):,} numbers ({100 * agree / len(found):.1f}%) agree within their intervals"
    opposite = len(contradictory(changed))
    return f"{said}; {opposite} verdicts contradict each other, {len(changed) - opposite} are open in one folder only"


def by_notebook(found: pd.DataFrame) -> pd.DataFrame:
    """How many numbers of each notebook are equal, within and outside."""
    counts = found.groupby(["notebook", "state"]).size().unstack(fill_value=0)
    return counts.reindex(columns=["equal", "within", "outside"], fill_value=0).reset_index()


def made_on(folder: Path) -> list[str]:
    """Processors and versions of PyTorch with which a folder's runs were trained."""
    runs = [pd.read_csv(path) for path in sorted(folder.glob(f"*_{RUNS_PART}.csv"))]
    known = pd.concat(runs) if runs else pd.DataFrame()
    named = known.reindex(columns=["device", "processor", "torch"]).drop_duplicates().fillna("processor not recorded")
    return sorted(", ".join(map(str, row)) for row in named.itertuples(index=False))


def committed(folder: Path, into: Path) -> Path:
    """A folder of the clone as it was last committed, written into another.

    Raises:
        DataError: if there is no clone, or the folder was never committed.
    """
    clone = folders.clone()
    where = folder.resolve()
    if clone is None or clone not in where.parents:
        raise DataError(f"{folder} is not in a clone of the project, so nothing is committed. Give two folders.")
    name = where.relative_to(clone).as_posix()
    command = ["git", "-C", str(clone), "archive", "--format=zip", "HEAD", name]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        raise DataError(f"git has no committed results of {name}, or does not answer. Give two folders.") from None
    zipfile.ZipFile(io.BytesIO(done.stdout)).extractall(into)
    return into / name


def _tables(folder: Path) -> dict[str, pd.DataFrame]:
    """The tidy tables of a folder by notebook, without that of the claims, which repeats others' numbers."""
    found = {}
    for path in sorted(folder.glob("*.csv")):
        with turned_into(DataError, f"{path} cannot be read as a table", "Make it anew, or remove it.", ValueError):
            # As they are written, so that a setting is called alike whether the others beside it are whole or not.
            found[path.stem] = pd.read_csv(path, dtype=defaultdict[str, type](lambda: str, value=float))
    tidy = {name: table for name, table in found.items() if set(TIDY) <= set(table) and name != "claims"}
    if not tidy:
        raise DataError(f"{folder} has no tables of results. Expected a folder such as figures/demo.")
    return tidy


def _by_number(table: pd.DataFrame) -> pd.DataFrame:
    """Mean, squared deviations and repetitions of every number, and which numbers are of a kind."""
    if "image_id" in table:
        table = table[table["image_id"].isna()]
    table = table[~table["metric"].isin({"density"})]
    names = [name for name in table if name not in OF_REPETITION]
    parts = table[names].astype(object).where(table[names].notna(), "").astype(str)
    kind = parts["table"] + ", " + parts["metric"]
    number = [", ".join(filter(None, row)) for row in parts.drop(columns="notebook").itertuples(index=False)]
    groups = table.assign(kind=kind, number=number).groupby(["notebook", "number"], sort=False)
    first = {"kind": ("kind", "first"), "metric": ("metric", "first")}
    squares = ("value", lambda values: values.var(ddof=0) * len(values))
    return groups.agg(mean=("value", "mean"), squares=squares, count=("value", "size"), **first)


def _agreement(both: pd.DataFrame) -> pd.DataFrame:
    squares, freedom = both["squares_1"] + both["squares_2"], both["count_1"] + both["count_2"] - 2
    known = own = pd.DataFrame({"squares": squares, "freedom": freedom})
    # A number with one repetition borrows the deviation of its kind, and if all of those have one, of its metric.
    for alike in ("kind_1", "metric_1"):
        known = known.where(known["freedom"] > 0, own.groupby(both[alike]).transform("sum"))
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(known["squares"] / known["freedom"] * (1 / both["count_1"] + 1 / both["count_2"]))
        half = (stats.t.ppf((1 + CONFIDENCE) / 2, known["freedom"]) * error).fillna(0.0)
    difference = (both["mean_1"] - both["mean_2"]).abs()
    same = (difference <= ROUNDING) | (both["mean_1"].isna() & both["mean_2"].isna())
    states = np.select([same, difference <= half], ["equal", "within"], "outside")
    columns = {"first": both["mean_1"], "second": both["mean_2"], "half_width": half, "state": states}
    return both[["notebook", "number"]].assign(**columns)
