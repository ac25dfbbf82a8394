import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tests.conftest import tiny_recipe
from wsolkit import published
from wsolkit.study import plots, tables
from wsolkit.training.evaluation import Evaluation


def measured(values: dict, metrics, **block) -> pd.DataFrame:
    where = {"dataset": "CUB", "backbone": "VGG16"} | block
    parts = [
        pd.DataFrame({"row": row, "metric": list(metrics), "value": value, "seed": seed}).assign(**where)
        for (row, seed), value in values.items()
    ]
    return tables.concatenate(parts)


@pytest.fixture
def rows() -> pd.DataFrame:
    values = {("vanilla", 0): 0.5, ("vanilla", 1): 0.7, ("sim", 0): 0.8, ("sim", 1): 0.8}
    box = measured({("whole image", np.nan): 0.25}, ["gt_known_loc", "max_box_acc_v2"])
    return tables.concatenate([measured(values, tables.METRIC_NAMES), box])


@pytest.fixture
def summary(rows) -> pd.DataFrame:
    return tables.summarise(rows, published.table("7"))


def test_summary_by_hand(summary):
    block = tables.block(summary)
    row = block.loc[("vanilla", "gt_known_loc")]
    assert row["mean_pct"] == pytest.approx(60)
    assert row["sd_pct"] == pytest.approx(np.sqrt(200))
    assert (row["seeds"], row["paper_pct"]) == (2, 60.74)
    assert row["difference_pct"] == pytest.approx(60 - 60.74)
    fixed = block.loc[("whole image", "gt_known_loc")]
    assert fixed["mean_pct"] == pytest.approx(25)
    assert np.isnan(fixed["sd_pct"])
    assert np.isnan(fixed["paper_pct"])
    untrained = block.loc[("drop + sim", "gt_known_loc")]
    assert np.isnan(untrained["mean_pct"])
    assert untrained["paper_pct"] == 85.35


def test_rows_stand_in_the_order_of_the_print_and_ours_alone_at_the_end(summary):
    printed = ["vanilla", "drop", "sim", "sim + norm", "drop + sim", "drop + sim + norm"]
    assert list(summary.index.unique("row")) == [*printed, "whole image"]
    assert set(summary.index.unique("metric")) == set(tables.METRIC_NAMES)


def test_a_row_that_only_another_block_prints_stands_where_it_does_there():
    block = {"dataset": "ImageNet-1K", "backbone": "ResNet50"}
    rows = measured({("CAM", 0): 0.5, ("ours", 0): 0.7, ("whole image", 0): 0.1}, tables.METRIC_NAMES, **block)
    shown = list(tables.block(tables.summarise(rows, published.table("3")), **block).index.unique("row"))
    printed = published.table("3").query("backbone == 'ResNet50'")["method"].unique()
    assert "CAM" not in printed
    assert shown == ["CAM", *printed, "whole image"]


def test_each_block_of_a_table_keeps_its_own_numbers():
    parts = []
    for number, (dataset, backbone) in enumerate([("CUB", "ResNet50"), ("ImageNet-1K", "VGG16")]):
        value = {("ours", 0): 0.1 * (number + 1)}
        parts.append(measured(value, tables.V2_NAMES, dataset=dataset, backbone=backbone))
    summary = tables.summarise(tables.concatenate(parts), published.table("4"))
    assert tables.block(summary, "CUB", "ResNet50").loc[("ours", "max_box_acc_0.7"), "paper_pct"] == 38.0
    assert tables.block(summary, "ImageNet-1K", "VGG16").loc[("ours", "max_box_acc_v2"), "mean_pct"] == pytest.approx(
        20
    )
    assert np.isnan(tables.block(summary, "CUB", "VGG16").loc[("ours", "max_box_acc_v2"), "mean_pct"])
    order = list(dict.fromkeys(summary.index.droplevel(["row", "metric"])))
    assert order == [("CUB", "VGG16"), ("CUB", "ResNet50"), ("ImageNet-1K", "VGG16"), ("ImageNet-1K", "ResNet50")]
    html = tables.beside_paper(summary, tables.V2_NAMES, "Tab. 4").to_html()
    assert "38.0" in html
    assert "nan" not in html.lower()
    assert isinstance(plots.table_bars(summary, tables.V2_NAMES, "smoke"), Figure)


def test_the_shown_table_has_ours_the_papers_and_the_effect(summary):
    effect = pd.DataFrame(
        {"effect_pct": [20.0], "low_pct": [-1.0], "high_pct": [41.0], "clear": [False]},
        index=pd.Index(["sim"], name="row"),
    )
    shown = tables.beside_paper(tables.block(summary), tables.METRIC_NAMES, "Tab. 7 in smoke", effect)
    html = shown.to_html()
    assert "Tab. 7 in smoke" in html
    for text in ("60.0 ± 14.1", "60.74", "-0.7", "+20.0 [-1.0, +41.0]", "whole image", "25.0"):
        assert text in html
    assert "nan" not in html.lower()


def test_right_needs_the_box_and_for_top_k_the_class():
    images = pd.DataFrame(
        {
            "map": ["cam"] * 3 + ["norm"] * 3,
            "iou_0.5": [0.5, 0.6, 0.4, 0.9, 0.1, 0.1],
            "iou_0.7": [0.8, 0.1, 0.1, 0.1, 0.1, 0.7],
            "top1": [True, False, True] * 2,
            "top5": [True] * 6,
        }
    )
    report = Evaluation(pd.DataFrame(), images, pd.DataFrame())
    assert tables.right(report).tolist() == [True, True, False]
    assert tables.right(report, "top1_loc").tolist() == [True, False, False]
    assert tables.right(report, "top5_loc", "norm").tolist() == [True, False, False]
    assert tables.right(report, "max_box_acc_0.7", "norm").tolist() == [False, False, True]


def test_effects_compare_hits_image_by_image(store):
    runs = {
        row: [store.get(tiny_recipe(seed=seed, method_options={"lambda_sim": weight})) for seed in (0, 1)]
        for row, weight in (("a", 0.0), ("b", 2.0))
    }
    for metric in ("gt_known_loc", "top1_loc", "max_box_acc_0.3"):
        effect = tables.effects(runs, {"b above a": ("b", "a")}, metric).loc["b above a"]
        rates = {row: np.mean([run.report().rate(metric) for run in group]) for row, group in runs.items()}
        assert effect["effect_pct"] == pytest.approx((rates["b"] - rates["a"]) * 100)
        assert effect["low_pct"] <= effect["effect_pct"] <= effect["high_pct"]


def test_tidy_rows_name_what_made_them(store):
    run = store.get(tiny_recipe())
    rows = tables.run_rows("5", "S", run, ["gt_known_loc", "max_box_acc_v2"], map_kind="similarity")
    assert rows["value"].tolist() == [run.report().rate(metric, "similarity") for metric in rows["metric"]]
    assert set(rows["recipe"]) == {run.recipe.key}
    assert (rows["count"] == 8).all()
    fixed = tables.fixed_box_rows("5", store.machine, run.recipe)
    assert set(fixed["row"]) == {"whole image", "centred box"}
    v2 = fixed[fixed["metric"] == "max_box_acc_v2"].set_index("row")["value"]
    each = fixed[fixed["metric"].str.startswith("max_box_acc_0")].groupby("row")["value"].mean()
    assert v2.to_dict() == pytest.approx(each.to_dict())


def test_table_bars_show_every_row_and_the_fixed_boxes_as_lines(summary):
    figure = plots.table_bars(summary, tables.METRIC_NAMES, "smoke")
    assert len(figure.axes) == 3
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [row for row in summary.index.unique("row") if row != "whole image"]
    widths = [bar.get_width() for bar in figure.axes[2].patches]
    assert widths[0] == pytest.approx(60)
    texts = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert "whole image" in texts
    assert any(text.startswith("here (smoke)") for text in texts)


def test_threshold_curves_mark_the_highest_point_and_the_papers():
    curves = pd.DataFrame({"panel": "IoU ≥ 0.5", "line": "ours", "threshold": [0.0, 0.5], "value": [0.2, 0.6]})
    paper = pd.DataFrame({"panel": ["IoU ≥ 0.5"], "line": ["ours"], "value": [93.2]})
    axis = plots.threshold_curves(curves.assign(spread=[0.1, np.nan]), paper=paper).axes[0]
    line, dot, printed = axis.lines
    assert line.get_ydata().tolist() == [20, 60]
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (0.5, 60)
    assert printed.get_ydata()[0] == 93.2


def test_map_grid_has_a_row_an_image():
    images = [np.zeros((8, 8, 3), np.uint8)] * 2
    boxes = [np.array([[1, 1, 4, 4]])] * 2
    figure = plots.map_grid(images, {"CAM": [np.eye(8)] * 2, "F": [np.eye(8)] * 2}, boxes, {"CAM": boxes}, ["a", "b"])
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 6
    assert [len(axis.patches) for axis in figure.axes] == [1, 2, 1] * 2


def test_box_grid_has_a_row_a_method():
    images = [np.zeros((8, 8, 3), np.uint8)] * 3
    boxes = [np.array([[1, 1, 4, 4]])] * 3
    figure = plots.box_grid(images, boxes, {"vanilla": boxes, "ours": boxes})
    assert len(figure.axes) == 6
    assert [len(axis.patches) for axis in figure.axes] == [2] * 6
    assert figure.axes[3].get_ylabel() == "ours"


def test_samples_show_every_image():
    figure = plots.samples([np.zeros((8, 8, 3), np.uint8)] * 3, ["a", "b", "c"], [np.array([[1, 1, 4, 4]])] * 3)
    assert [axis.get_title() for axis in figure.axes[:3]] == ["a", "b", "c"]
