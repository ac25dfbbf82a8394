import dataclasses
import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import tiny_recipe
from tests.test_evaluation import Squares
from wsolkit import published
from wsolkit.errors import RecipeError
from wsolkit.study import plots, tables
from wsolkit.study.study import TIDY
from wsolkit.system.folders import notebooks_root
from wsolkit.training import evaluation
from wsolkit.training.evaluation import Evaluation, one_per_class

ABLATION = ["vanilla", "drop", "sim", "sim + norm", "drop + sim", "drop + sim + norm"]


@dataclass(frozen=True)
class Judged:
    """What a table needs of a run: a report in which the given images are localized by the given maps."""

    hits: dict[str, list[bool]]
    seed: int = 0

    def made(self):
        return {"seed": self.seed, "recipe": "123456789012", "version": "1", "commit": "1e5"}

    def report(self):
        parts, rates = [], []
        for kind, hits in self.hits.items():
            images = {"map": kind, "iou_0.5": np.where(hits, 0.9, 0.1), "top1": hits, "top5": True}
            parts.append(pd.DataFrame(images))
            metrics = [*tables.METRIC_NAMES, *tables.V2_NAMES]
            rates.append(pd.DataFrame({"map": kind, "metric": metrics, "value": np.mean(hits)}))
        return Evaluation(pd.concat(rates), pd.concat(parts), pd.DataFrame())


def run(*hits: int, seed: int = 0, **others) -> Judged:
    return Judged({"cam": [bool(hit) for hit in hits], **others}, seed)


def measured(values: dict, metrics, **block) -> pd.DataFrame:
    where = {"dataset": "CUB", "backbone": "VGG16"} | block
    rows = [{"row": row, "seed": seed, "value": value, **where} for (row, seed), value in values.items()]
    return pd.concat([pd.DataFrame(rows).assign(metric=metric) for metric in metrics])


@pytest.fixture
def summary() -> pd.DataFrame:
    values = {("vanilla", 0): 0.5, ("vanilla", 1): 0.7, ("sim", 0): 0.8, ("sim", 1): 0.8}
    box = measured({("whole image", np.nan): 0.25}, ["gt_known_loc", "max_box_acc_v2"])
    rows = pd.concat([measured(values, tables.METRIC_NAMES), box])
    return tables.summarise(rows, published.table("7"), list(tables.METRIC_NAMES))


def test_summary_by_hand(summary):
    block = summary.xs(("CUB", "VGG16"), level=tables.BLOCK)
    row = block.loc[("vanilla", "gt_known_loc")]
    assert row["mean_pct"] == pytest.approx(60)
    assert row["sd_pct"] == pytest.approx(np.sqrt(200))
    assert (row["seeds"], row["paper_pct"]) == (2, 60.74)
    assert row["difference_pct"] == pytest.approx(60 - 60.74)
    fixed = block.loc[("whole image", "gt_known_loc")]
    assert fixed["mean_pct"] == pytest.approx(25)
    assert np.isnan([fixed["sd_pct"], fixed["paper_pct"], block.loc[("drop + sim", "gt_known_loc"), "mean_pct"]]).all()
    assert list(summary.index.unique("row")) == [*ABLATION, "whole image"]
    assert set(summary.index.unique("metric")) == set(tables.METRIC_NAMES)


def test_a_row_that_only_another_block_prints_stands_where_it_does_there():
    block = {"dataset": "ImageNet-1K", "backbone": "ResNet50"}
    rows = measured({("CAM", 0): 0.5, ("ours", 0): 0.7, ("whole image", 0): 0.1}, tables.METRIC_NAMES, **block)
    summary = tables.summarise(rows, published.table("3"), list(tables.METRIC_NAMES))
    printed = published.table("3").query("backbone == 'ResNet50'")["method"].unique()
    assert "CAM" not in printed
    shown = summary.xs(tuple(block.values()), level=tables.BLOCK).index.unique("row")
    assert list(shown) == ["CAM", *printed, "whole image"]


def test_a_table_of_several_blocks_keeps_their_numbers_apart(study):
    blocks = [("CUB", "VGG16"), ("CUB", "ResNet50"), ("ImageNet-1K", "VGG16"), ("ImageNet-1K", "ResNet50")]
    runs = {("ImageNet-1K", "VGG16", "ours"): [run(1, 0)], ("CUB", "ResNet50", "ours"): [run(1, 1)]}
    table = study.table("4", runs, fixed_boxes=False)
    by_key = table.summary.sort_index()
    means = by_key["mean_pct"]
    assert means["CUB", "ResNet50", "ours", "max_box_acc_v2"] == 100
    assert means["ImageNet-1K", "VGG16", "ours", "max_box_acc_v2"] == 50
    assert np.isnan(means["CUB", "VGG16", "ours", "max_box_acc_v2"])
    assert by_key["paper_pct"]["CUB", "ResNet50", "ours", "max_box_acc_0.7"] == 38.0
    assert list(table.summary.index.droplevel(["row", "metric"]).unique()) == blocks
    html = table._repr_html_()
    assert "38.0" in html
    assert "nan" not in html.lower()
    assert len(plots.table_bars(table).axes) == 4 * 4
    with pytest.raises(RecipeError, match=r"several blocks.*'CUB', 'VGG16', 'ours'"):
        study.table("4", {"ours": [run(1)]})


def test_one_call_writes_a_table_and_shows_it_beside_the_papers(study):
    runs = {"vanilla": [run(0, 0, 1, 1), run(0, 0, 0, 1, seed=1)], "sim": [run(0, 1, 1, 1), run(1, 1, 1, 1, seed=1)]}
    table = study.table("7", runs, baseline="vanilla", steps={"sim": ("sim", "vanilla")}, fixed_boxes=False)
    html = table._repr_html_()
    printed = published.table("7").query("method == 'sim' and metric == 'gt_known_loc'")["value"].item()
    for text in ("87.5 ± 17.7", f"{printed:.2f}", f"{87.5 - printed:+.1f}", "+50.0 [", "GT-known Loc above vanilla"):
        assert text in html, text
    assert "Tab. 7, profile smoke, seeds [0, 1]" in html
    assert "nan" not in html.lower()
    assert "+50.0 [" in table.compared("what sim adds").to_html()
    rows, summary, effects = (
        pd.read_csv(study.out / f"notebook{part}.csv", dtype={"recipe": str, "table": str, "commit": str})
        for part in ("", "_summary", "_effects")
    )
    assert list(rows.columns)[:10] == list(TIDY)
    first = rows.query("row == 'sim' and metric == 'gt_known_loc'").iloc[0]
    assert (first["value"], first["count"], first["recipe"], first["table"]) == (0.75, 4, "123456789012", "7")
    judged = summary.dropna(subset="effect_pct")
    assert judged[["row", "metric", "effect_pct"]].to_numpy().tolist() == [["sim", "gt_known_loc", 50.0]]
    assert effects.set_index("row")["effect_pct"].to_dict() == {"sim": 50.0}


def test_another_map_and_other_metrics_can_be_judged(study):
    runs = dict.fromkeys(["CAM", "S"], [run(0, 0, similarity=[True, False])])
    table = study.table("5", runs, metrics=["max_box_acc_v2"], map_kinds={"S": "similarity"}, fixed_boxes=False)
    assert table.summary["mean_pct"].droplevel(["dataset", "backbone", "metric"]).to_dict() == {"CAM": 0, "S": 50}
    step = {"S": ("S", "CAM", "top1_loc")}
    found = study.table("5", runs, map_kinds={"S": "similarity"}, steps=step, fixed_boxes=False).effects
    assert found["effect_pct"].tolist() == [50]
    with pytest.raises(KeyError, match="typo"):
        study.table("5", runs, metrics=["typo"])
    with pytest.raises(RecipeError, match="Unknown row.*'gone'"):
        study.table("5", runs, baseline="gone", fixed_boxes=False)


def test_boxes_that_never_look_end_each_block(study):
    trained = study.store.get(tiny_recipe())
    table = study.table("5", {"CAM": [trained]})
    assert list(table.summary.index.unique("row"))[-2:] == ["whole image", "centred box"]
    rows = pd.read_csv(study.out / "notebook.csv").query("row == 'whole image'").set_index("metric")
    assert (rows["count"] == 8).all()
    each = rows["value"][[f"max_box_acc_{delta}" for delta in (0.3, 0.5, 0.7)]]
    assert rows["value"]["max_box_acc_v2"] == pytest.approx(each.mean())
    assert study.test_data(trained).split == "test"


def test_pictures_with_small_objects_are_judged_apart(study, store, tiny):
    trained = store.get(tiny)
    test = store.machine.open(tiny, "test")
    small = store.machine.source(tiny, "test").box_shares() <= 0.3
    assert 0 < small.sum() < len(test)
    careful = dataclasses.replace(study, profile=dataclasses.replace(study.profile, judged_share=0.3))
    table = careful.table("7", {"vanilla": [trained]})
    html = table._repr_html_()
    assert "GT-known Loc, box ≤ 30%" in html
    rows = pd.read_csv(study.out / "notebook.csv").query("metric == @tables.SMALL").set_index("row")["value"]
    assert rows["vanilla"] == pytest.approx(tables.right(trained.report())[small].mean())
    assert rows["whole image"] == pytest.approx((evaluation.fixed_box_ious(test, 0.0) >= 0.5)[small].mean())
    assert "box ≤" not in study.table("7", {"vanilla": [trained]})._repr_html_()


def test_right_needs_the_box_and_for_top_k_the_class():
    images = {
        "map": ["cam"] * 3 + ["norm"] * 3,
        "iou_0.5": [0.5, 0.6, 0.4, 0.9, 0.1, 0.1],
        "iou_0.7": [0.8, 0.1, 0.1, 0.1, 0.1, 0.7],
        "top1": [True, False, True] * 2,
        "top5": [True] * 6,
    }
    report = Evaluation(pd.DataFrame(), pd.DataFrame(images), pd.DataFrame())
    assert tables.right(report).tolist() == [True, True, False]
    assert tables.right(report, "top1_loc").tolist() == [True, False, False]
    assert tables.right(report, "top5_loc", "norm").tolist() == [True, False, False]
    assert tables.right(report, "max_box_acc_0.7", "norm").tolist() == [False, False, True]


@given(st.lists(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=3, max_size=3), min_size=1, max_size=3))
def test_an_effect_is_the_difference_of_the_rates_inside_its_interval(seeds):
    judged = {
        ("CUB", "VGG16", row): [(run(*(pair[number] for pair in each)), "cam") for each in seeds]
        for number, row in enumerate("ab")
    }
    found = tables.effects(judged, {"b above a": tuple(reversed(judged))}).loc["b above a"]
    a, b = (np.mean([pair[number] for each in seeds for pair in each]) for number in (0, 1))
    assert found["effect_pct"] == pytest.approx((b - a) * 100)
    assert found["low_pct"] - 1e-9 <= found["effect_pct"] <= found["high_pct"] + 1e-9
    assert found["clear"] == (found["low_pct"] > 0 or found["high_pct"] < 0)


def test_table_bars_show_every_row_and_the_fixed_boxes_as_lines(summary):
    table = tables.Table("Tab. 7", "smoke", tables.METRIC_NAMES, summary, pd.DataFrame())
    figure = plots.table_bars(table)
    assert len(figure.axes) == 3
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ABLATION
    assert figure.axes[2].patches[0].get_width() == pytest.approx(60)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["here (smoke), mean and 95% interval over seeds", "paper (real data)", "whole image"]


def test_threshold_curves_mark_the_highest_point_and_the_papers():
    curves = pd.DataFrame({"panel": "IoU ≥ 0.5", "line": "ours", "threshold": [0.0, 0.5], "value": [0.2, 0.6]})
    paper = pd.DataFrame({"panel": ["IoU ≥ 0.5"], "line": ["ours"], "value": [93.2]})
    axis = plots.threshold_curves(curves.assign(spread=[0.1, np.nan]), paper=paper).axes[0]
    line, dot, printed = axis.lines
    assert line.get_ydata().tolist() == [20, 60]
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (0.5, 60)
    assert printed.get_ydata()[0] == 93.2


def test_histograms_are_drawn_from_the_rows_of_their_csv():
    bins = {"table": "A2", "row": "ours", "low": [0.0, 0.5], "high": [0.5, 1.0], "value": [1.5, 0.5], "spread": np.nan}
    axis = plots.histograms(pd.DataFrame(bins), {"A2": ("largest norms", "norm")}, plots.METHOD_COLOURS).axes[0]
    assert (axis.get_title(), axis.get_xlabel()) == ("largest norms", "norm")
    drawn = axis.patches[0].get_data()
    assert (drawn.values.tolist(), drawn.edges.tolist()) == ([1.5, 0.5], [0, 0.5, 1])


def test_picture_grids_have_their_boxes_and_titles():
    images, boxes = [np.zeros((8, 8, 3), np.uint8)] * 2, [np.array([[1, 1, 4, 4]])] * 2
    grid = plots.map_grid(images, {"CAM": [np.eye(8)] * 2, "F": [np.eye(8)] * 2}, boxes, {"CAM": boxes}, ["a", "b"])
    assert [len(axis.patches) for axis in grid.axes] == [1, 2, 1] * 2
    assert [len(axis.images) for axis in grid.axes] == [1, 2, 2] * 2
    assert ([axis.get_title() for axis in grid.axes[:3]], grid.axes[3].get_ylabel()) == (["image", "CAM", "F"], "b")
    rows = plots.box_grid(images, boxes, {"vanilla": boxes, "ours": boxes}, ["a", "b"])
    assert [len(axis.patches) for axis in rows.axes] == [2] * 4
    assert (rows.axes[1].get_title(), rows.axes[2].get_ylabel()) == ("b", "ours")


def test_pictures_are_the_first_of_each_class():
    assert one_per_class(Squares(), 2) == [0, 4]


def test_figure_7_counts_a_cell_by_its_centre():
    """The notebook computes it in the open; its own cell is tried."""
    cells = json.loads((notebooks_root() / "fig7_histograms.ipynb").read_text(encoding="utf-8"))["cells"]
    (source,) = ("".join(cell["source"]) for cell in cells if cell["id"] == "inside")
    # Cells of 4 pixels have their centres at 2, 6, 10, 14.
    boxes = [[[5, 1, 11, 7]], [[0, 0, 3, 3], [12, 12, 15, 15]], [[3, 3, 5, 5]]]

    class Data(list):
        size = 16

    scope = {
        "np": np,
        "test": Data(SimpleNamespace(boxes=np.array(each)) for each in boxes),
        "similarity": {"vanilla": [np.arange(48.0).reshape(3, 4, 4)]},
    }
    exec(source, scope)
    assert scope["similar"]["vanilla"][0].tolist() == [1, 2, 5, 6, 16, 31]


def test_a_row_may_be_another_row_by_another_normalisation():
    assert tables.base_of("HaS + PaS") == ("HaS", "pas")
    assert tables.base_of("ADL+IVR") == ("ADL", "ivr")
    assert tables.base_of("drop + sim + norm") == ("drop + sim + norm", "cam")
    assert tables.base_of("ours") == ("ours", "cam")
