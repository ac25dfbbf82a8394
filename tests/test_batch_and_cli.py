import json
import re
import tempfile
from pathlib import Path

import nbformat
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from wsolkit.errors import DataError, RecipeError, TrainingError
from wsolkit.reproduce import notebooks, runner
from wsolkit.system import folders
from wsolkit.training import run_store
from wsolkit.training.recipes import Recipe

TABLE7 = folders.notebooks_root() / "table7_ablation.ipynb"

PARAMETERS = """
profile: str = None  # a profile
seeds: list[int] = None  # seeds
scale: float = 1.0  # a number
out_root: str = None  # a folder
data_root: str = None  # data
"""


def write_notebook(folder: Path, name: str, *cells: str, parameters: str | None = PARAMETERS) -> Path:
    """A notebook as other editors write it, without a kernel's name."""
    notebook = nbformat.v4.new_notebook()
    if parameters is not None:
        notebook.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    notebook.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def test_find_knows_all_notebooks_and_suggests():
    assert notebooks.find(["table7_ablation"]) == [TABLE7]
    assert {"00_tour", "table7_ablation"} <= {path.stem for path in notebooks.find()}
    with pytest.raises(RecipeError, match="Unknown notebook 'table7'. Did you mean 'table7_ablation'"):
        notebooks.find(["table7"])


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(PLAIN)
def test_settings_are_json_where_they_can_be(value):
    assert notebooks.parse_settings([f" name ={json.dumps(value)}"]) == {"name": value}


def test_settings_that_are_no_json_are_text_as_paths_are():
    given = ["profile=smoke", "name=a=b", "weights=2979", "images=1e5", "data_root=null", "deep=" + 10**5 * "["]
    parsed = notebooks.parse_settings(given)
    assert parsed.pop("deep").startswith("[[[")
    assert parsed == {"profile": "smoke", "name": "a=b", "weights": "2979", "images": "1e5", "data_root": None}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["seeds"], "'seeds': expected name=value"),
        (["=1"], "expected name=value"),
        (["a=1", " a=2"], "a twice"),
        *((["scale=" + text], "expected finite") for text in ("NaN", "-Infinity", "1e999", "[1, NaN]", '{"x": [NaN]}')),
    ],
)
def test_settings_that_mean_nothing_are_refused(given, said):
    with pytest.raises(RecipeError, match=f"--set.*{said}"):
        notebooks.parse_settings(given)


@pytest.mark.parametrize(
    ("declared", "good", "bad"),
    [
        ("scale: float = 1.0  # a number", [2, 0.5, None], ["big", float("nan"), True, [1.0]]),
        ("scale: float | None = None", [2.5, None], ["x", float("inf")]),
        ("scale: Optional[float] = None", [2.5, None], ["x"]),
        ("scale: 'typing.Optional[float]' = None", [2.5, None], ["x"]),
        ("scale: list[str] | None = None", [["a"], [], None], ["a", [1]]),
        ("scale: list[int] = [0]", [[1, 2], None], [1, ["a"], [float("nan")]]),
        ("scale: dict[str, list[float]] = {}", [{"a": [1.0]}], [{"a": 1.0}]),
        ("scale: Literal['a', 'b'] = 'a'", ["b"], ["c"]),
        ("scale: tuple[int, ...] = (1,)", [[1, 2]], [["x"]]),
        ("scale: bool = False", [True], [1, "true"]),
        ("scale: int = 3", [4, None], [4.5, True, "4"]),
        ("scale: str = 'a=b'  # with = and # in it", ["c=d"], [123, ["x"]]),
        ("scale: (\n    float\n) = (\n    1.0\n)", [2.0], ["x"]),
        ("scale = 1.0", [2.0, "big", [1]], [float("nan"), [{"a": float("inf")}]]),
        ("scale: float", [2.0], ["x"]),
    ],
)
def test_values_are_compared_with_the_types_that_a_notebook_declares(tmp_path, declared, good, bad):
    notebook = write_notebook(tmp_path, "one", parameters=f"first: str = 'x=y'\n{declared}\n")
    for value in good:
        assert notebooks.check_parameters(notebook, {"scale": value}) == {"scale": value}
    for value in bad:
        with pytest.raises(RecipeError, match=r"Parameter scale = .* of one: expected "):
            notebooks.check_parameters(notebook, {"scale": value})


@pytest.mark.parametrize(
    "kind", ["np.float32", "__import__('os').abort()", "Mine", "'", "list[Mine]", "list['Mine']", "lambda: 1", "3 | 4"]
)
def test_a_type_that_cannot_be_given_is_named_and_not_evaluated(tmp_path, kind):
    notebook = write_notebook(tmp_path, "one", parameters=f"scale: ({json.dumps(kind)}) = None\nother: int = 1\n")
    assert notebooks.check_parameters(notebook, {"other": 1}) == {"other": 1}
    with pytest.raises(RecipeError, match="Parameter scale = 1 of one: its type"):
        notebooks.check_parameters(notebook, {"scale": 1})


@pytest.mark.parametrize(
    ("kind", "given", "hint"), [("str", 123, '"123"'), ("list[int]", 1, "[1]"), ("str", True, '"true"')]
)
def test_an_error_shows_what_was_perhaps_meant(tmp_path, kind, given, hint):
    notebook = write_notebook(tmp_path, "one", parameters=f"text: {kind} = None\n")
    with pytest.raises(RecipeError, match=re.escape(f"--set 'text={hint}'")):
        notebooks.check_parameters(notebook, {"text": given})


def test_names_are_compared_with_those_that_the_notebook_declares(tmp_path):
    notebook = write_notebook(tmp_path, "one", parameters="seeds: list[int] = None\n")
    with pytest.raises(RecipeError, match="Unknown parameter of one 'seed'. Did you mean 'seeds'"):
        notebooks.check_parameters(notebook, {"seed": 1})
    # One that works with no profile of its own finds it in its environment.
    assert notebooks.check_parameters(notebook, {"seeds": [1], "profile": "smoke"}) == {"seeds": [1]}


DAMAGED = {
    "empty": b"",
    "cut": b'{"cells": [',
    "list": b"[]",
    "null": b"null",
    "latin": '{"nbformat": 4, "metadata": {"title": "\xe4"}, "cells": []}'.encode("latin-1"),
    "no_cells": b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
    "bad_cells": b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [1, null]}',
    "future": b'{"nbformat": 9, "nbformat_minor": 0, "metadata": {}, "cells": []}',
    "text": b'{"nbformat": "four", "metadata": {}, "cells": []}',
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named(tmp_path, name):
    (tmp_path / f"{name}.ipynb").write_bytes(DAMAGED[name])
    with pytest.raises(notebooks.NotebookError, match=f"{name}.ipynb cannot be read as a notebook"):
        notebooks.declared(tmp_path / f"{name}.ipynb")


@given(st.binary(max_size=60) | st.from_regex(r'\{"(nbformat|cells)": .*\}', fullmatch=True).map(str.encode))
def test_any_other_file_is_no_notebook(content):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x.ipynb").write_bytes(content)
        with pytest.raises(notebooks.NotebookError):
            notebooks.declared(Path(folder) / "x.ipynb")


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (None, "no code cell tagged 'parameters'"),
        ("profile: str = ", "cannot be parsed"),
        ("%magic", "cannot be parsed"),
        ("profile: str = 'a'\nprofile = 'b'", "profile is declared twice"),
    ],
)
def test_parameters_that_cannot_be_told_are_named(tmp_path, parameters, said):
    with pytest.raises(notebooks.NotebookError, match=f"one.ipynb.*{said}"):
        notebooks.declared(write_notebook(tmp_path, "one", parameters=parameters))


def test_paths_mean_the_same_in_the_kernels_folder(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    given = {"images": "photos", "weights": "4539", "out_root": "new", "model": "photos"}
    made = notebooks.complete(given, "smoke")
    here = {"images": str(tmp_path / "photos"), "out_root": str(tmp_path / "new")}
    assert made == {**given, **here, "profile": "smoke"}
    with pytest.raises(DataError, match="images = gone does not exist. Give a folder of pictures"):
        notebooks.complete({"images": "gone"}, "smoke")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project with two notebooks of its own: one that works, one that fails."""
    write_notebook(tmp_path / "home" / "notebooks", "good", "print(profile, scale)")
    write_notebook(tmp_path / "home" / "notebooks", "bad", "kept = 1", "1 / (kept - 1)", "print('never')")
    monkeypatch.setenv("WSOLKIT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


OPENS = "from wsolkit.study import open_study\nstudy = open_study('x', profile, [0])\n"
ENDS = OPENS + "runs = study.train({'ours': {}})\nprint(len(runs['ours']), study.jobs)"
COUNT = "with open('counts.txt', 'a') as file:\n    print(NAME, file=file)"


def test_every_notebook_of_a_batch_ends_in_a_line_that_says_how(tmp_path, monkeypatch, wsolkit):
    home = tmp_path / "mein Projekt ü {x} #1"
    folder = home / "notebooks"
    write_notebook(folder, "my own ü {y} #2", "%matplotlib inline", ENDS)
    write_notebook(folder, "plain", COUNT.replace("NAME", "'plain'"), "print(profile, scale)")
    write_notebook(folder, "no_runs", OPENS + COUNT.replace("NAME", "study.notebook"))
    write_notebook(
        folder, "bare", "from wsolkit.study import open_study", "print(open_study('x').profile.name)", parameters=""
    )
    write_notebook(folder, "bad", "kept = 1", "1 / (kept - 1)", "print('never')")
    write_notebook(folder, "exits", "import sys; sys.exit(0)", ENDS)
    write_notebook(folder, "dies", "import os\nif profile: os._exit(1)", ENDS)
    write_notebook(folder, "leaks", "import os; os.environ['WSOLKIT_LEAK'] = '1'", ENDS)
    write_notebook(folder, "sees", "import os; assert 'WSOLKIT_LEAK' not in os.environ", ENDS)
    write_notebook(folder, "claims", OPENS + "assert study.jobs == 2")
    write_notebook(folder, "untold", "print(1)", parameters=None)
    for name, content in DAMAGED.items():
        (folder / f"{name}.ipynb").write_bytes(content)
    (folder / "folder.ipynb").mkdir()
    for name, value in (("HOME", home), ("RUNS", "the runs"), ("CACHE", "the cache")):  # relative to the shell's folder
        monkeypatch.setenv(f"WSOLKIT_{name}", str(value))
    monkeypatch.chdir(tmp_path)
    code, out, errors = wsolkit("reproduce", "--profile", "smoke", "--jobs", "2")
    assert code == 1
    lines = re.findall(r"^(done|failed|skipped) +(\S.*?) +[\d.]+ s", out, re.MULTILINE)
    ended = {name: state for state, name in lines}
    good = {"my own ü {y} #2", "plain", "no_runs", "bare", "exits", "leaks", "sees", "claims"}
    assert ended == dict.fromkeys(good, "done") | dict.fromkeys(["bad", "dies", "untold", *DAMAGED], "failed")
    assert "bad failed: cell 4:\n1 / (kept - 1)\n\nZeroDivisionError: division by zero" in errors
    assert re.search(
        r"dies failed: cell 3:\nimport os\nif profile: os._exit\(1\)\n\nThe kernel died.*[Mm]emory", errors
    )
    assert "cell 3 ended it; 1 cells after that were not executed" in out
    assert "could not be planned (cell 3: SystemExit: 0)" in out
    assert "Traceback" not in errors
    assert sorted((folder / "counts.txt").read_text().split()) == ["plain", "x"]
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".ipynb") == ["counts.txt"]
    assert (tmp_path / "the runs").is_dir()
    executed = {name: nbformat.read(tmp_path / "figures" / "smoke" / f"{name}.ipynb", 4) for name in (*good, "bad")}
    assert executed["my own ü {y} #2"].cells[-1].outputs[0]["text"] == "1 1\n"
    assert executed["plain"].cells[-1].outputs[0]["text"] == "smoke 1.0\n"
    assert executed["bare"].cells[-1].outputs[0]["text"] == "smoke\n"
    assert not executed["bad"].cells[-1].outputs
    page = (tmp_path / "figures" / "smoke" / "index.html").read_text()
    assert "my%20own%20%C3%BC%20%7By%7D%20%232" in page
    assert "wsolkit reproduce untold --profile smoke" in page


TRANSPORT = "from ipykernel.kernelapp import IPKernelApp\nprint(IPKernelApp.instance().transport)"


@pytest.mark.skipif(not zmq.has("ipc"), reason="no socket files on this system")
@pytest.mark.parametrize(("folder", "transport"), [("short", "ipc"), ("l" + 200 * "o" + "ng", "tcp")])
def test_kernels_talk_over_files_where_their_names_fit(tmp_path, monkeypatch, folder, transport):
    write_notebook(tmp_path / "home" / "notebooks", "how", TRANSPORT)
    monkeypatch.setenv("WSOLKIT_HOME", str(tmp_path / "home"))
    # The test's own folder may be too deep for socket files already.
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / folder).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(Path(root) / folder))
        (outcome,) = runner.reproduce(["how"], "smoke", jobs=1)
    assert nbformat.read(outcome.executed, as_version=4).cells[-1].outputs[0]["text"] == f"{transport}\n"


WANTS = """
from wsolkit.study import open_study
study = open_study("wants", profile, seeds)
runs = study.train({"vanilla": {"losses": ()}, "ours": {}})
raise AssertionError("a plan goes no further")
"""


def test_missing_data_are_said_before_anything_begins(home, wsolkit, tmp_path, monkeypatch):
    monkeypatch.setattr("wsolkit.models.pretrained_file", lambda model, name: None)  # the weights are there
    write_notebook(home / "notebooks", "wants", WANTS)
    code, out, errors = wsolkit("reproduce", "wants", "--profile", "photos")
    assert (code, out) == (2, "")
    assert "imagewoof needs data_root" in errors
    assert "wsolkit data get imagewoof --data-root data" in errors
    assert not folders.runs_root().exists() or not list(folders.runs_root().iterdir())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "imagewoof2-320.tgz").write_bytes(b"")
    code, _, errors = wsolkit("reproduce", "wants", "--profile", "photos", "--data-root", tmp_path / "data")
    assert code == 2
    assert "imagewoof2-320.tgz is neither a folder nor a complete zip or tar file" in errors


def test_a_plan_and_a_rehearsal_from_the_shell(home, wsolkit, tmp_path):
    write_notebook(home / "notebooks", "wants", WANTS)
    code, out, _ = wsolkit("plan", "wants", "--profile", "smoke", "--set", "seeds=[3]", "--images-per-second", "10")
    assert code == 0
    assert "does not fit" not in out
    assert "2 unique runs: 0 done, 0 begun, 2 missing" in out
    assert "images left" in out
    code, out, _ = wsolkit("plan", "wants", "--profile", "smoke", "--gpu-memory", "0.01")
    assert "does not fit 0.01 GB: synthetic_birds, mini_vgg, vanilla: 32 images of 64 pixels need at least 0." in out
    code, out, errors = wsolkit("rehearse", "wants", "--profile", "smoke")
    assert code == 0, errors
    assert "2 distinct recipes rehearsed, 0 failed" in out
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "figures").exists()


LACKS = """
from wsolkit.study import open_study
open_study("lacks", profile, seeds).train({"x": {"dataset": "OpenImages"}})
"""


def test_a_notebook_whose_data_set_the_profile_lacks_is_skipped(home, wsolkit):
    write_notebook(home / "notebooks", "lacks", LACKS)
    code, out, _ = wsolkit("reproduce", "lacks", "good", "--profile", "photos")
    assert code == 0
    assert "skipped   lacks" in out
    assert "Profile 'photos' has no OpenImages" in out
    assert "1 done, 0 unchanged, 1 skipped, 0 failed" in out


def test_no_notebooks_are_an_error(tmp_path, monkeypatch, wsolkit):
    (tmp_path / "empty" / "notebooks").mkdir(parents=True)
    monkeypatch.setenv("WSOLKIT_HOME", str(tmp_path / "empty"))
    code, _, errors = wsolkit("reproduce", "--profile", "smoke")
    assert (code, "No notebook found" in errors) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reproduce", "--profile", "demmo"], "Unknown profile 'demmo'. Did you mean 'demo'"),
        (["reproduce", "god"], "Unknown notebook 'god'. Did you mean 'good'"),
        (["reproduce", "good", "--set", "sede=1"], "Unknown parameter of good 'sede'"),
        (["reproduce", "good", "--profile", "demo", "--set", "profile=smoke"], "Two profiles were given"),
        (["reproduce", "good", "--set", "out_root=x", "--set", "scale=[]"], "Parameter scale = [] of good"),
        (["reproduce", "good", "--data-root", "nowhere"], "nowhere does not exist"),
        (["reproduce", "good", "--set", "seeds=1"], "Parameter seeds = 1 of good: expected list[int]"),
        (["train", "nothing.json"], "nothing.json does not exist. Write one with"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(home, tmp_path, wsolkit, arguments, message):
    code, _, errors = wsolkit(*arguments)
    assert code == 2
    assert errors.startswith("Error: ")
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "figures").exists()


def test_an_interrupt_says_that_nothing_is_lost(home, wsolkit, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "reproduce", interrupt)
    code, _, errors = wsolkit("reproduce", "good")
    assert code == 130
    assert "the same command goes on from there" in errors


TRAINS = """
from wsolkit.study import open_study
study = open_study("trains", profile, seeds)
print(len(study.train({"one": {"losses": LOSSES}})["one"]))
"""


def test_runs_come_before_their_notebooks_and_a_failed_run_is_named(home, monkeypatch, caplog):

    write_notebook(home / "notebooks", "trains", TRAINS.replace("LOSSES", "()"))
    write_notebook(home / "notebooks", "trains_too", TRAINS.replace("LOSSES", "('sim',)"))
    monkeypatch.setattr(run_store, "_work", _no_similarity)
    caplog.set_level("INFO", logger="wsolkit")
    outcomes = runner.reproduce(["trains_too", "trains", "good"], "smoke", {"seeds": [0]}, jobs=2)
    failed, trained, plain = outcomes
    said = [line for line in caplog.messages if re.match(r"run \d", line)]
    assert len(said) == 2
    assert sum("no similarity here" in line for line in said) == 1
    assert sum(line.startswith("run 2 of 2 ") for line in said) == 1
    assert failed.failure.startswith("a run that it needs: no similarity here")
    assert (trained.failure, plain.failure) == (None, None)
    assert nbformat.read(trained.executed, as_version=4).cells[-1].outputs[0]["text"] == "1\n"


def _no_similarity(root, machine, recipe, wanted):
    from wsolkit.training.run_store import RunStore

    if '"lambda_sim": 0.0' not in recipe and '"bridging"' in recipe:
        raise TrainingError("no similarity here")
    RunStore(root, machine).get(Recipe.from_json(recipe))


def test_an_output_folder_that_cannot_be_written(home, tmp_path, wsolkit):
    (tmp_path / "file").write_text("")
    code, _, errors = wsolkit("reproduce", "good", "--profile", "smoke", "--out-root", tmp_path / "file")
    assert code == 2
    assert "Cannot write to" in errors
