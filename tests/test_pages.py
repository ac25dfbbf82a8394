"""Executed notebooks as pages, the gallery, and the tour's sliders where no kernel runs."""

import dataclasses
import re

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from wsolkit.reproduce import gallery, pages
from wsolkit.reproduce.pages import WIDGET_VIEW
from wsolkit.training import profiles


def displayed(**data: str) -> nbformat.NotebookNode:
    kinds = {"view": WIDGET_VIEW, "jpeg": "image/jpeg", "plain": "text/plain"}
    return nbformat.v4.new_output("display_data", {kinds[name]: value for name, value in data.items()})


@pytest.fixture
def notebook(tmp_path):
    made = nbformat.v4.new_notebook()
    made.metadata["widgets"] = {"state": {}}
    made.cells = [
        nbformat.v4.new_markdown_cell("# A title\n\nWith $w \\cdot F_u$, `$HOME` and\n\n$$\\mathcal S$$"),
        nbformat.v4.new_code_cell("2", outputs=[displayed(view="x", jpeg="AAAA", plain="y"), displayed(view="z")]),
    ]
    nbformat.write(made, tmp_path / "table0.ipynb")
    return tmp_path / "table0.ipynb"


def shown(markdown: str, tmp_path) -> str:
    """What a page shows of a markdown cell."""
    cell = nbformat.v4.new_markdown_cell(markdown)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "ü #1.ipynb")
    return pages.write_page(tmp_path / "ü #1.ipynb", "index.html").read_text()


def test_formulas_become_mathml_and_code_stays(tmp_path):
    text = "So $w \\cdot F_u$, but `$HOME` and\n\n```\n$a$\n```\n$$x$$\n\\begin{align}a&=1\\end{align}"
    made = shown(text, tmp_path)
    assert made.count("<math") == 3
    assert made.count('display="block"') == 2
    assert "<code>$HOME</code>" in made
    assert 'href="index.html#%C3%BC%20%231"' in made


def test_a_formula_that_cannot_be_converted_is_shown_as_code(tmp_path):
    assert "<code>&lt;b&gt; \\foo{</code>" in shown("Say $<b> \\foo{$.", tmp_path)


def test_widgets_leave_their_pictures():
    one, two = nbformat.v4.new_code_cell(outputs=[displayed(view="x", jpeg="A"), displayed(view="z")]), None
    two = nbformat.v4.new_notebook(cells=[one], metadata={"widgets": {}})
    cleaned, _ = pages.still_widgets(two, {})
    assert [dict(output.data) for output in cleaned.cells[0].outputs] == [{"image/jpeg": "A"}]
    assert "widgets" not in cleaned.metadata


def test_a_page_needs_no_network(notebook):
    text = pages.write_page(notebook, "index.html").read_text()
    assert "<math" in text
    assert WIDGET_VIEW not in text
    assert "data:image/jpeg" in text
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {"http://www.w3.org/1998/Math/MathML"}
    assert 'href="index.html#table0"' in text


def test_the_gallery_links_notebooks_and_names_runs(notebook, tmp_path):
    pages.write_page(notebook, gallery.PAGE)
    (tmp_path / "table0.png").write_bytes(b"")
    measured = {"row": "<b>", "metric": "gt_known_loc", "mean_pct": 1.234, "seeds": 3}
    pd.DataFrame([{"row": "another's"}, measured]).to_csv(tmp_path / "table0_summary.csv", index=False)
    made = {"recipe": "012345678901", "seed": 3, "commit": "1e5", "torch": "2.9", "device": "cpu"}
    pd.DataFrame([made]).to_csv(tmp_path / "table0_runs.csv", index=False)
    other = tmp_path / "other.ipynb"
    text = gallery.write(tmp_path, "smoke", [notebook, other]).read_text()
    assert "1 of 2 notebooks have results" in text
    assert '<a href="table0.html"><img src="table0.png"' in text
    assert '<a href="table0.html">made here</a>' in text
    assert "&lt;b&gt;" in text
    assert text.index("&lt;b&gt;") < text.index("another's")
    assert ">GT-known Loc<" in text
    assert "these numbers mean nothing" in text
    assert "mean nothing" not in gallery.write(tmp_path, "demo", [notebook]).read_text()
    assert ">mean %<" in text
    assert ">1.23<" in text
    assert ">3<" in text
    assert "made from 1 run</summary>" in text
    assert ">012345678901<" in text
    assert "runs trained at commit 1e5, with PyTorch 2.9 on cpu" in text
    assert "wsolkit reproduce other --profile smoke" in text


def test_a_study_names_the_runs_behind_its_pictures(study, tiny):
    study.runs([tiny, tiny])
    named = pd.read_csv(study.out / "notebook_runs.csv", dtype=str)
    assert named["recipe"].tolist() == [tiny.key]
    assert {"seed", "commit", "dataset", "method", "torch", "device"} <= set(named)
    assert study.train({}) == {}
    assert not (study.out / "notebook_runs.csv").exists()


def test_a_figure_says_what_its_profile_has_to_say(study, tmp_path):
    plain = dataclasses.replace(study, profile=profiles.get("demo"), out=tmp_path)
    for each in (study, plain):
        each.save_figure(Figure())
    said, bare = (np.asarray(Image.open(each.out / "notebook.png")) for each in (study, plain))
    assert "mean nothing" in study.profile.caveat
    assert np.array_equal(said[: len(bare)], bare)
    assert (said[len(bare) :] < 200).any()
    study.save_figure(Figure(), "other", of_profile=False)
    assert np.array_equal(np.asarray(Image.open(study.out / "notebook_other.png")), bare)
