"""House rules for notebooks, on their JSON; nbval and the batch run them."""

import ast
import re

import nbformat
import pytest

from wsolkit.system.folders import notebooks_root

NOTEBOOKS = sorted(notebooks_root().glob("*.ipynb"))
PARAMETER = re.compile(r"\w+: [\w\[\]]+ = .+  # .+")
STANDARD = {"profile", "seeds", "device", "data_root", "out_root"}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def code(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_it_is_small_and_names_the_projects_kernel(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size <= 300_000
    assert notebook.metadata.kernelspec.name == "wsolkit"
    assert "papermill" not in notebook.metadata
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")


def test_the_first_code_cell_declares_the_standard_parameters(code):
    assert code[0].metadata.tags == ["parameters"]
    lines = code[0].source.splitlines()
    assert all(PARAMETER.fullmatch(line) for line in lines), lines
    assert {line.split(":")[0] for line in lines} >= STANDARD
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1


def test_cells_are_thin(code):
    for cell in code:
        assert len(cell.source.splitlines()) <= 15, cell.source
        kinds = {type(node) for node in ast.walk(ast.parse(cell.source))}
        assert not kinds & {ast.FunctionDef, ast.ClassDef, ast.Try, ast.While, ast.Global}, cell.source
        assert not re.search(r"^\s*[!%]|filterwarnings", cell.source, re.MULTILINE), cell.source


def test_it_was_executed_from_top_to_bottom_without_an_error(code):
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]


def test_it_holds_outputs_of_the_demo_and_no_path_of_a_machine(code):
    outputs = [output for cell in code for output in cell.outputs]
    text = "\n".join(str(output.get("text", output.get("data", {}).get("text/plain", ""))) for output in outputs)
    assert {*re.findall(r"profile (\w+):", text)} == {"demo"}
    assert not re.search(r"(^|[\s'\"(])((/[\w.-]+){2,}|[A-Z]:\\)", text, re.MULTILINE)


def test_something_is_compared_and_it_has_stored_output(code):
    checked = [cell for cell in code if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert checked
    assert all(cell.outputs and cell.execution_count for cell in checked)


def test_file_names_are_the_names_that_the_notebook_gives(path, code):
    assert any(f'open_study("{path.stem}"' in cell.source for cell in code)


def test_it_reads_like_a_chapter(path):
    """Why, what to look at, what came out, what to do next; the tour has an order of its own."""
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    first = cells[0].source
    assert path.stem == "00_tour" or re.search(r"\*\*(Why|For whom)", first)
    assert path.stem in ("00_tour", "evaluate_your_own") or "**Look at:**" in first
    assert re.search("What to see|The table", text)
    assert re.search("^## (What to change next|Where to go from here)", text, re.MULTILINE)
