import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from wsolkit import cli
from wsolkit.errors import DataError
from wsolkit.study import compare
from wsolkit.study.study import TIDY
from wsolkit.system import folders

#: The same numbers by three seeds, as one machine and another might find them.
VALUES = {"vanilla": [0.50, 0.52, 0.54], "ours": [0.80, 0.81, 0.82], "centred box": [0.6]}


def results(folder, values, verdict="reproduced", notebook="table7_ablation"):
    folder.mkdir(exist_ok=True)
    rows = [
        {
            "table": notebook,
            "row": row,
            "metric": "gt_known_loc",
            "value": value,
            "count": 100,
            "seed": seed,
            "dataset": "CUB",
        }
        for row, group in values.items()
        for seed, value in enumerate(group)
    ]
    table = pd.DataFrame(rows).reindex(columns=[*TIDY, "dataset"]).assign(notebook=notebook)
    table.to_csv(folder / f"{notebook}.csv", index=False)
    pd.DataFrame({"claim": ["drop helps"], "verdict": [verdict]}).to_csv(folder / "claims_summary.csv", index=False)
    made = pd.DataFrame({"recipe": ["a"], "device": ["cpu"], "processor": ["Abacus AVX9"], "torch": ["2.9"]})
    made.to_csv(folder / "table7_ablation_runs.csv", index=False)
    return folder


def states(first, second):
    return compare.numbers(first, second).set_index("number")["state"].rename(lambda number: number.split(", ")[1])


def test_numbers_are_equal_within_or_outside(tmp_path):
    first = results(tmp_path / "first", VALUES)
    other = {"vanilla": [0.51, 0.52, 0.55], "ours": [0.70, 0.71, 0.72], "centred box": [0.6]}
    found = states(first, results(tmp_path / "second", other))
    assert found.to_dict() == {"vanilla": "within", "ours": "outside", "centred box": "equal"}
    assert set(states(first, first)) == {"equal"}
    assert compare.made_on(first) == ["cpu, Abacus AVX9, 2.9"]


def test_a_setting_is_called_alike_whether_those_beside_it_are_whole_or_not(tmp_path):
    for name, settings in (("first", [0.5, 1]), ("second", [1])):
        folder = results(tmp_path / name, {"swept": [0.7] * len(settings)})
        table = pd.read_csv(folder / "table7_ablation.csv").assign(seed=0, setting=settings)
        table.to_csv(folder / "table7_ablation.csv", index=False, float_format="%.10g")
    found = compare.numbers(tmp_path / "first", tmp_path / "second")
    assert found["state"].tolist() == ["equal"]


def test_what_was_not_measured_in_either_folder_is_equal(tmp_path):
    first = results(tmp_path / "first", {"ours": [np.nan]})
    assert set(states(first, first)) == {"equal"}


@pytest.mark.parametrize("content", [b"", b"row,value\nours,\xe9\n", b"row,value\nours,many\n"])
def test_a_file_that_is_no_table_is_named(tmp_path, content):
    folder = results(tmp_path / "first", VALUES)
    (folder / "mine.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"mine\.csv cannot be read as a table"):
        compare.numbers(folder, folder)


def test_a_number_with_one_repetition_borrows_the_deviation_of_its_kind(tmp_path):
    first = results(tmp_path / "first", VALUES | {"swept": [0.70]})
    near = results(tmp_path / "near", VALUES | {"swept": [0.72]})
    far = results(tmp_path / "far", VALUES | {"swept": [0.90]})
    assert states(first, near)["swept"] == "within"
    assert states(first, far)["swept"] == "outside"


def test_where_nothing_of_its_kind_has_more_it_borrows_that_of_its_metric(tmp_path):
    """As a sweep of single runs does, beside a table of the same metric."""
    made = {name: results(tmp_path / name, VALUES) for name in ("first", "near", "far")}
    for folder, value in zip(made.values(), (0.70, 0.72, 0.90), strict=True):
        results(folder, {"swept": [value]}, notebook="fig8_sensitivity")
    assert states(made["first"], made["near"])["swept"] == "within"
    assert states(made["first"], made["far"])["swept"] == "outside"


def test_what_has_no_seeds_must_be_equal(tmp_path):
    first = results(tmp_path / "first", {"centred box": [0.6]})
    assert states(first, results(tmp_path / "second", {"centred box": [0.61]})).item() == "outside"


def test_an_interval_holds_another_machines_number_as_often_as_it_says(tmp_path):
    rng, names = np.random.default_rng(0), [f"row {n}" for n in range(400)]
    one, other = ({name: rng.normal(0.5, 0.02, 3) for name in names} for _ in range(2))
    found = compare.numbers(results(tmp_path / "first", one), results(tmp_path / "second", other))
    assert 0.02 < (found["state"] == "outside").mean() < 0.08
    assert not compare.beyond_chance(found)


def test_verdicts_may_change_but_not_contradict_each_other(tmp_path):
    first, open_, opposite, unmeasured = (
        results(tmp_path / name.replace(" ", ""), VALUES, name)
        for name in ("reproduced", "inconclusive", "not reproduced", "not measured")
    )
    assert len(compare.verdicts(first, open_)) == 1
    assert compare.contradictory(compare.verdicts(first, open_)).empty
    assert len(compare.contradictory(compare.verdicts(first, opposite))) == 1
    assert compare.verdicts(first, first).empty
    assert compare.verdicts(first, unmeasured).empty


def test_the_command_fails_where_two_folders_disagree(tmp_path):
    first, second = results(tmp_path / "first", VALUES), results(tmp_path / "second", VALUES, "not reproduced")
    same = CliRunner().invoke(cli.app, ["compare", str(first), str(first)])
    assert same.exit_code == 0
    assert "3 of 3 numbers (100.0%) agree within their intervals; 0 verdicts contradict each other, " in same.output
    assert "each other, 0 are open in one folder only" in same.output
    differ = CliRunner().invoke(cli.app, ["compare", str(first), str(second)])
    assert differ.exit_code == 1
    assert "1 verdicts contradict each other, 0 are open in one folder only" in differ.output
    brief = CliRunner().invoke(cli.app, ["compare", str(first), str(second), "--brief"])
    assert (brief.exit_code, brief.output.count("\n")) == (0, 1)


def test_folders_that_cannot_be_compared_are_named(tmp_path):
    first = results(tmp_path / "first", VALUES)
    with pytest.raises(DataError, match="has no tables of results"):
        compare.numbers(first, tmp_path)
    other = results(tmp_path / "second", {"another row": [0.5]})
    with pytest.raises(DataError, match="no number in common"):
        compare.numbers(first, other)
    with pytest.raises(DataError, match="not in a clone"):
        compare.committed(tmp_path, tmp_path)
    with pytest.raises(DataError, match="no committed results of .*never"):
        compare.committed(folders.PACKAGE.parent / "figures" / "never", tmp_path)


def test_committed_results_are_read_from_the_clone(tmp_path):
    demo = folders.PACKAGE.parent / "figures" / "demo"
    found = compare.numbers(compare.committed(demo, tmp_path), compare.committed(demo, tmp_path))
    assert len(found) > 100
    assert set(found["state"]) == {"equal"}
