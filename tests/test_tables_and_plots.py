import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tests.conftest import tiny_recipe
from wsolkit import plots, published, tables


@pytest.fixture
def rows() -> pd.DataFrame:
    values = {("vanilla", 0): 0.5, ("vanilla", 1): 0.7, ("sim", 0): 0.8, ("sim", 1): 0.8}
    parts = [
        pd.DataFrame({"table": "7", "row": row, "metric": list(tables.METRIC_NAMES), "value": value, "seed": seed})
        for (row, seed), value in values.items()
    ]
    box = pd.DataFrame({"table": "7", "row": ["whole image"], "metric": "gt_known_loc", "value": [0.25]})
    return tables.concatenate([*parts, box])


@pytest.fixture
def summary(rows) -> pd.DataFrame:
    return tables.summarise(rows, published.table("7"))


def test_summary_by_hand(summary):
    row = summary.loc["vanilla", "gt_known_loc"]
    assert row["mean_pct"] == pytest.approx(60)
    assert row["sd_pct"] == pytest.approx(np.sqrt(200))
    assert (row["seeds"], row["paper_pct"]) == (2, 60.74)
    assert row["difference_pct"] == pytest.approx(60 - 60.74)
    fixed = summary.loc["whole image", "gt_known_loc"]
    assert fixed["mean_pct"] == pytest.approx(25)
    assert np.isnan(fixed["sd_pct"])
    assert np.isnan(fixed["paper_pct"])


def test_the_shown_table_has_ours_the_papers_and_the_effect(summary):
    effect = pd.DataFrame(
        {"effect_pct": [20.0], "low_pct": [-1.0], "high_pct": [41.0], "clear": [False]},
        index=pd.Index(["sim"], name="row"),
    )
    shown = tables.beside_paper(summary, effect, "Tab. 7 in smoke")
    html = shown.to_html()
    assert "Tab. 7 in smoke" in html
    for text in ("60.0 ± 14.1", "60.74", "-0.7", "+20.0 [-1.0, +41.0]", "whole image", "25.0"):
        assert text in html
    assert "nan" not in html.lower()


def test_effects_compare_hits_image_by_image(store):
    runs = {
        row: [store.get(tiny_recipe(seed=seed, method_options={"lambda_sim": weight})) for seed in (0, 1)]
        for row, weight in (("a", 0.0), ("b", 2.0))
    }
    effect = tables.effects(runs, {"b above a": ("b", "a")}).loc["b above a"]
    rates = {row: np.mean([run.report().rate("gt_known_loc") for run in group]) for row, group in runs.items()}
    assert effect["effect_pct"] == pytest.approx((rates["b"] - rates["a"]) * 100)
    assert effect["low_pct"] <= effect["effect_pct"] <= effect["high_pct"]


def test_effect_lines_say_what_chance_explains():
    effect = pd.DataFrame(
        {"effect_pct": [2.0, 0.5], "low_pct": [1.0, -0.4], "high_pct": [3.0, 1.2], "clear": [True, False]},
        index=["norm, given sim", "norm, given both"],
    )
    html = tables.effect_lines(effect, "What a term adds").to_html()
    for text in ("+2.0 [+1.0, +3.0]", "yes", "+0.5 [-0.4, +1.2]", "no: the interval holds 0"):
        assert text in html


def test_rows_of_a_run_are_traceable(store, tiny):
    rows = tables.run_rows("7", "ours", store.get(tiny), ["gt_known_loc", "top1_loc"])
    assert rows["metric"].tolist() == ["gt_known_loc", "top1_loc"]
    assert set(rows["recipe"]) == {tiny.key}
    assert set(rows["seed"]) == {0}
    assert set(rows["count"]) == {8}


def texts(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))}


def test_the_ablation_figure_shows_every_number(summary):
    trained, fixed = summary.loc[["vanilla", "sim"]], summary.loc[["whole image"]]
    figure = plots.ablation(trained, fixed, tables.METRIC_NAMES, "smoke")
    assert len(figure.axes) == 3
    widths = [patch.get_width() for patch in figure.axes[2].patches]
    assert widths == pytest.approx([60, 80])
    marks = figure.axes[2].lines[-2].get_xdata(), figure.axes[2].lines[-1].get_xdata()
    assert [60.74, 76.10] in [list(mark) for mark in marks]
    assert [25, 25] in [pytest.approx(list(mark)) for mark in marks]
    assert "GT-known Loc" in texts(figure)
    assert any("smoke" in text for text in texts(figure))


def test_grids_draw_every_image_map_and_box():
    image, box = np.zeros((16, 16, 3), np.uint8), np.array([[2, 3, 10, 12]])
    columns = {"CAM": [np.eye(16)] * 2, "norm": [np.eye(16)] * 2}
    figure = plots.map_grid([image] * 2, columns, [box] * 2, {"CAM": [box] * 2}, ["first", "second"])
    assert len(figure.axes) == 6
    assert [len(axis.patches) for axis in figure.axes] == [1, 2, 1] * 2
    patch = figure.axes[0].patches[0]
    assert (patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height()) == (1.5, 2.5, 8, 9)
    sheet = plots.samples([image] * 10, ["bird"] * 10, [box] * 10)
    assert sum(len(axis.images) for axis in sheet.axes) == 10
