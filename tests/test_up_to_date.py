"""A notebook that would come out the same is not executed again; any reason why it might not is noticed."""

import pytest

from tests.test_batch_and_cli import write_notebook
from wsolkit.reproduce import notebooks, up_to_date

SHOWS = """
import pandas as pd
from wsolkit.study import open_study
study = open_study("shows", profile, seeds, out_root=out_root)
runs = study.train({"vanilla": {"losses": ()}})
study.save_table(pd.DataFrame({"a": [1]}, index=["x"]), "numbers")
"""

SHOWN = """
profile: str = None
seeds: list[int] = None
data_root: str = None
out_root: str = None
images: str = None
"""


@pytest.mark.slow
def test_only_what_would_come_out_the_same_is_left_alone(wsolkit, tmp_path, monkeypatch):
    monkeypatch.setenv("WSOLKIT_HOME", str(tmp_path / "home"))
    notebook = write_notebook(tmp_path / "home" / "notebooks", "shows", SHOWS, parameters=SHOWN)
    folder = tmp_path / "out" / "smoke"
    call = ("reproduce", "shows", "--profile", "smoke", "--set", "seeds=[0]", "--out-root", tmp_path / "out")
    outputs = [wsolkit(*call)[1], wsolkit(*call)[1], wsolkit(*call, "--again")[1]]
    assert [output.split()[0] for output in outputs] == ["done", "unchanged", "done"]
    assert "0 done, 1 unchanged, 0 skipped, 0 failed" in outputs[1]
    given = notebooks.check_parameters(
        notebook, notebooks.complete({"seeds": [0], "out_root": str(tmp_path / "out")}, "smoke")
    )

    def unchanged(**parameters) -> bool:
        return up_to_date.holds(notebook, folder / "shows.ipynb", given | parameters)

    assert unchanged()
    assert not unchanged(seeds=[1])
    assert not unchanged(images=str(tmp_path))  # nobody knows what is there now
    (run,) = (tmp_path / "runs").glob("*/run.json")
    for file in (notebook, run, folder / "shows_numbers.csv", folder / "shows.html"):
        before = file.read_bytes()
        file.write_bytes(before + b" ")
        assert not unchanged(), file
        file.unlink()
        assert not unchanged(), file
        file.write_bytes(before)
    assert unchanged()
