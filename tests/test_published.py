import csv
from pathlib import Path

import pandas as pd
import pytest

from wsolkit import methods, published
from wsolkit.errors import RecipeError
from wsolkit.training.recipes import Recipe

COLUMNS = ["table", "dataset", "backbone", "method", "venue", "branch", "metric", "delta", "value"]
LOC = ["top1_loc", "top5_loc", "gt_known_loc"]
"""The columns of Tables 1, 2, 3, 5, 6 and 7."""

BOX = ["max_box_acc", "max_box_acc", "max_box_acc", "max_box_acc_v2"]
"""The columns of Table 4, at IoU 0.3, 0.5 and 0.7, and their mean."""

EXPERIMENTS = [("CUB", "VGG16"), ("CUB", "ResNet50"), ("ImageNet-1K", "VGG16"), ("ImageNet-1K", "ResNet50")]
OURS_BY_TABLE = {"1": "ours", "5": "CAM", "6": "Attentive Dropout + Align.", "7": "drop + sim + norm"}
"""The row of each table that is the whole method on CUB with VGG16."""

TABLE_4 = "CAM | HaS | SPG | ADL | CutMix | Ki et al. | HaS + PaS | CALM | ADL + IVR | ours"

METHODS = [
    (
        *("1", "CUB", "VGG16", LOC),
        "SLT-Net | ORNet | FAM | CAM | ADL | DANet | EIL | MEIL | DGL | Ki et al. | Bae et al. | Pan et al. | ours",
    ),
    ("2", "CUB", "ResNet50", LOC, "CAM | ADL | CutMix | DGL | Ki et al. | Bae et al. | ours"),
    (
        *("3", "ImageNet-1K", "VGG16", LOC),
        "CAM | ACoL | ADL | CutMix | I2C | EIL | MEIL | Ki et al. | DGL | Bae et al. | Pan et al. | ours",
    ),
    ("3", "ImageNet-1K", "ResNet50", LOC, "ADL | CutMix | Ki et al. | Bae et al. | I2C | DGL | ours"),
    *(("4", *experiment, BOX, TABLE_4) for experiment in EXPERIMENTS),
    ("5", "CUB", "VGG16", LOC, "CAM | F | S"),
    ("6", "CUB", "VGG16", LOC, "Align. | EIL + Align. | Attentive Dropout + Align."),
    ("7", "CUB", "VGG16", LOC, "vanilla | drop | sim | sim + norm | drop + sim | drop + sim + norm"),
    ("A1", "OpenImages", "VGG16", ["pxap"], "CAM | ADL | CutMix | CAM+PaS | ADL+IVR | CALM | ours"),
]
"""Every block of every table, its rows in the order of the print."""

TABLES = sorted({block[0] for block in METHODS})

PRINTED = [
    ("1", "CUB", "VGG16", "SLT-Net", "67.8 - 87.6"),
    ("1", "CUB", "VGG16", "ORNet", "67.74 80.77 86.19"),
    ("1", "CUB", "VGG16", "FAM", "69.26 - 89.26"),
    ("1", "CUB", "VGG16", "CAM", "44.15 52.16 56.00"),
    ("1", "CUB", "VGG16", "MEIL", "57.46 - -"),
    ("1", "CUB", "VGG16", "Ki et al.", "57.50 - -"),
    ("1", "CUB", "VGG16", "Bae et al.", "58.96 - 76.30"),
    ("1", "CUB", "VGG16", "Pan et al.", "60.27 72.45 77.29"),
    ("1", "CUB", "VGG16", "ours", "70.83 88.07 93.17"),
    ("2", "CUB", "ResNet50", "CAM", "46.91 53.57 -"),
    ("2", "CUB", "ResNet50", "ADL", "57.40 - 71.99"),
    ("2", "CUB", "ResNet50", "DGL", "60.82 70.50 74.65"),
    ("2", "CUB", "ResNet50", "ours", "73.16 86.68 91.60"),
    ("3", "ImageNet-1K", "VGG16", "CAM", "42.80 54.86 -"),
    ("3", "ImageNet-1K", "VGG16", "I2C", "47.41 58.51 63.90"),
    ("3", "ImageNet-1K", "VGG16", "Ki et al.", "47.20 - -"),
    ("3", "ImageNet-1K", "VGG16", "ours", "49.94 63.25 68.92"),
    ("3", "ImageNet-1K", "ResNet50", "ADL", "48.23 - 61.04"),
    ("3", "ImageNet-1K", "ResNet50", "I2C", "54.83 64.60 68.50"),
    ("3", "ImageNet-1K", "ResNet50", "ours", "53.76 65.75 69.89"),
    ("4", "CUB", "VGG16", "CAM", "96.8 73.1 21.2 63.7"),
    ("4", "CUB", "ResNet50", "SPG", "92.2 68.2 20.8 60.4"),
    ("4", "ImageNet-1K", "VGG16", "ADL", "80.8 60.9 37.8 59.9"),
    ("4", "ImageNet-1K", "ResNet50", "CutMix", "83.7 65.2 41.0 63.3"),
    ("4", "CUB", "VGG16", "HaS + PaS", "- - - 61.2"),
    ("4", "CUB", "ResNet50", "CALM", "- - - 71.0"),
    ("4", "ImageNet-1K", "ResNet50", "ADL + IVR", "- - - 65.1"),
    ("4", "CUB", "VGG16", "ours", "99.3 93.2 47.8 80.1"),
    ("4", "CUB", "ResNet50", "ours", "99.4 90.4 38.0 75.9"),
    ("4", "ImageNet-1K", "VGG16", "ours", "84.8 69.2 45.9 66.6"),
    ("4", "ImageNet-1K", "ResNet50", "ours", "86.7 71.1 48.3 68.7"),
    ("5", "CUB", "VGG16", "CAM", "70.83 88.07 93.17"),
    ("5", "CUB", "VGG16", "F", "69.90 86.68 91.96"),
    ("5", "CUB", "VGG16", "S", "70.38 87.64 93.13"),
    ("6", "CUB", "VGG16", "Align.", "62.27 77.48 81.93"),
    ("6", "CUB", "VGG16", "EIL + Align.", "66.10 82.21 86.78"),
    ("6", "CUB", "VGG16", "Attentive Dropout + Align.", "70.83 88.07 93.17"),
    ("7", "CUB", "VGG16", "vanilla", "46.95 57.23 60.74"),
    ("7", "CUB", "VGG16", "drop", "54.35 70.37 75.06"),
    ("7", "CUB", "VGG16", "sim", "56.66 71.38 76.10"),
    ("7", "CUB", "VGG16", "sim + norm", "62.27 77.48 81.93"),
    ("7", "CUB", "VGG16", "drop + sim", "63.00 79.93 85.35"),
    ("7", "CUB", "VGG16", "drop + sim + norm", "70.83 88.07 93.17"),
    ("A1", "OpenImages", "VGG16", "CAM", "58.3"),
    ("A1", "OpenImages", "VGG16", "CAM+PaS", "59.6"),
    ("A1", "OpenImages", "VGG16", "ours", "63.7"),
]
"""Typed from the paper a second time, digit by digit, so that a slip in either copy shows."""


def lines_of(number: str) -> list[dict[str, str]]:
    """The rows of a table's file as text, so that a dash and a trailing zero can be seen."""
    with (Path(published.__file__).parent / f"table{number}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def values_of(number: str, dataset: str = "CUB", backbone: str = "VGG16") -> pd.Series:
    """The values of a block by method, metric and delta, in the order of the print."""
    table = published.table(number)
    block = table[(table["dataset"] == dataset) & (table["backbone"] == backbone)]
    return block.set_index(["method", "metric", "delta"])["value"]


def test_every_table_of_the_paper_is_there():
    folder = Path(published.__file__).parent
    assert sorted(path.stem for path in folder.glob("table*.csv")) == [f"table{number}" for number in TABLES]
    assert TABLES == ["1", "2", "3", "4", "5", "6", "7", "A1"]


@pytest.mark.parametrize("number", TABLES)
def test_tables_share_one_form(number):
    table = published.table(number)
    assert list(table) == COLUMNS
    assert set(table["table"]) == {number}
    assert set(table["dataset"]) <= {"CUB", "ImageNet-1K", "OpenImages"}
    assert set(table["backbone"]) <= {"VGG16", "ResNet50"}
    assert set(table["metric"]) <= {*LOC, *BOX, "pxap"}
    assert set(table["delta"]) <= {"", "0.3", "0.5", "0.7"}
    assert ((table["delta"] != "") == (table["metric"] == "max_box_acc")).all()
    assert table["value"].dropna().between(0, 100).all()
    assert table["value"].dtype == float
    assert not table.duplicated(["dataset", "backbone", "method", "metric", "delta"]).any()


@pytest.mark.parametrize("number", TABLES)
def test_values_keep_the_digits_of_the_print(number):
    digits = 1 if number in {"4", "A1"} else 2
    odd = {row["value"] for row in lines_of(number) if row["value"] and len(row["value"].split(".")[1]) != digits}
    assert odd == ({"67.8", "87.6"} if number == "1" else set())


@pytest.mark.parametrize(("number", "dataset", "backbone", "metrics", "methods"), METHODS)
def test_rows_and_columns_stand_as_printed(number, dataset, backbone, metrics, methods):
    rows = [row for row in lines_of(number) if (row["dataset"], row["backbone"]) == (dataset, backbone)]
    expected = [(method, metric) for method in methods.split(" | ") for metric in metrics]
    assert [(row["method"], row["metric"]) for row in rows] == expected
    if metrics is BOX:
        assert [row["delta"] for row in rows] == ["0.3", "0.5", "0.7", ""] * (len(rows) // 4)


@pytest.mark.parametrize(
    ("number", "rows"),
    [("1", 39), ("2", 21), ("3", 57), ("4", 160), ("5", 9), ("6", 9), ("7", 18), ("A1", 7)],
)
def test_no_table_holds_more_than_the_print(number, rows):
    """Rows and columns of the print: 13 x 3, 7 x 3, 19 x 3, 10 x 16, 3 x 3, 3 x 3, 6 x 3 and 7 x 1."""
    assert len(published.table(number)) == rows


@pytest.mark.parametrize(("number", "dataset", "backbone", "method", "text"), PRINTED)
def test_values_are_the_papers(number, dataset, backbone, method, text):
    place = (dataset, backbone, method)
    rows = [row for row in lines_of(number) if (row["dataset"], row["backbone"], row["method"]) == place]
    assert " ".join(row["value"] or "-" for row in rows) == text


@pytest.mark.parametrize(
    ("number", "method", "venue"),
    [
        ("1", "SLT-Net", "CVPR '21"),
        ("1", "FAM", "ICCV '21"),
        ("1", "DGL", "ACM MM '20"),
        ("2", "DGL", "ACMMM '20"),
        ("2", "Bae et al.", "ECCV '20"),
        ("3", "I2C", "ECCV '20"),
        ("3", "Pan et al.", "CVPR '21"),
        ("4", "HaS + PaS", ""),
        ("4", "ours", "CVPR '22"),
        ("5", "S", "CVPR '22"),
        ("6", "EIL + Align.", "CVPR '22"),
        ("A1", "CALM", "ICCV '21"),
    ],
)
def test_venues_are_as_printed(number, method, venue):
    """The paper spells one venue in two ways; its own rows, printed without one, carry its own venue."""
    assert {row["venue"] for row in lines_of(number) if row["method"] == method} == {venue}


def test_only_table_1_has_methods_with_an_additional_branch():
    more = [row for number in TABLES for row in lines_of(number) if row["branch"] != "single"]
    assert {(row["table"], row["branch"]) for row in more} == {("1", "additional")}
    assert list(dict.fromkeys(row["method"] for row in more)) == ["SLT-Net", "ORNet", "FAM"]


@pytest.mark.parametrize(("number", "dataset", "backbone"), [block[:3] for block in METHODS])
def test_ours_is_best_where_the_paper_says_so(number, dataset, backbone):
    """Everywhere, bar Top-1 Loc on ImageNet-1K with ResNet50, "second best after I2C" (Sec. 5.2)."""
    wide = values_of(number, dataset, backbone).unstack(["metric", "delta"])
    best = wide.idxmax()
    if (number, dataset, backbone) == ("3", "ImageNet-1K", "ResNet50"):
        assert best.pop(("top1_loc", "")) == "I2C"
        assert wide["top1_loc", ""].nlargest(2).index.tolist() == ["I2C", "ours"]
    assert set(best) == {OURS_BY_TABLE.get(number, "ours")}


def test_the_second_best_of_table_3_are_those_underlined():
    for backbone, names in (("VGG16", ["Pan et al."] * 3), ("ResNet50", ["ours", "I2C", "DGL"])):
        wide = values_of("3", "ImageNet-1K", backbone).droplevel("delta").unstack("metric")
        assert [wide[metric].nlargest(2).index[1] for metric in LOC] == names


@pytest.mark.parametrize(
    ("section", "number", "backbone", "method", "over", "metric", "delta", "gain"),
    [
        ("5.2", "1", "VGG16", "ours", "Bae et al.", "top1_loc", "", 11.87),
        ("5.2", "1", "VGG16", "ours", "Bae et al.", "gt_known_loc", "", 16.87),
        ("5.2", "1", "VGG16", "ours", "FAM", "top1_loc", "", 1.57),
        ("5.2", "1", "VGG16", "ours", "FAM", "gt_known_loc", "", 3.91),
        ("5.2", "4", "VGG16", "ours", "Ki et al.", "max_box_acc", "0.7", 21.0),
        ("5.2", "4", "ResNet50", "ours", "Ki et al.", "max_box_acc", "0.7", 17.4),
        ("5.4", "7", "VGG16", "drop", "vanilla", "top1_loc", "", 7.40),
        ("5.4", "7", "VGG16", "drop", "vanilla", "gt_known_loc", "", 14.32),
        ("5.4", "7", "VGG16", "sim", "vanilla", "top1_loc", "", 9.71),
        ("5.4", "7", "VGG16", "sim", "vanilla", "gt_known_loc", "", 15.36),
    ],
)
def test_the_gains_that_the_text_states_follow(section, number, backbone, method, over, metric, delta, gain):
    value = values_of(number, "CUB", backbone)
    assert value[method, metric, delta] - value[over, metric, delta] == pytest.approx(gain, abs=1e-9), section


def test_the_margin_of_table_2_is_what_the_text_says_but_for_one():
    """Sec. 5.2: "outperforms the existing methods by a large margin (>13%p)".

    Known exception of the print: Top-1 Loc over DGL, 73.16 - 60.82 = 12.34; over Bae et al., 73.16 - 59.53 = 13.63.
    """
    wide = values_of("2", "CUB", "ResNet50").droplevel("delta").unstack("metric")
    margins = wide.loc["ours"] - wide.drop(index="ours")
    below = margins.stack().loc[lambda margin: margin <= 13]
    assert below.to_dict() == pytest.approx({("DGL", "top1_loc"): 12.34}, abs=1e-9)


def test_what_the_text_says_of_the_norm_loss_and_of_alignment():
    """Sec. 5.4: the norm loss adds more than 5 to every metric; alignment alone is above Pan et al. of Table 1."""
    ablation = values_of("7").droplevel("delta").unstack("metric")
    for terms in ("sim", "drop + sim"):
        assert (ablation.loc[f"{terms} + norm"] - ablation.loc[terms] > 5).all()
    pan = values_of("1").droplevel("delta").unstack("metric").loc["Pan et al."]
    assert (ablation.loc["sim + norm"] > pan).all()


def test_tables_agree_on_the_whole_method_and_on_alignment_alone():
    rows = {number: values_of(number)[method].tolist() for number, method in OURS_BY_TABLE.items()}
    assert rows == dict.fromkeys(OURS_BY_TABLE, [70.83, 88.07, 93.17])
    assert values_of("6")["Align."].tolist() == values_of("7")["sim + norm"].tolist()


@pytest.mark.parametrize(("number", "dataset", "backbone"), [block[:3] for block in METHODS if block[3] is LOC])
def test_top_1_is_at_most_top_5_and_that_at_most_gt_known(number, dataset, backbone):
    for _, row in values_of(number, dataset, backbone).groupby("method"):
        assert row.dropna().is_monotonic_increasing


@pytest.mark.parametrize(("dataset", "backbone"), EXPERIMENTS)
def test_a_stricter_iou_gives_a_lower_rate(dataset, backbone):
    for _, row in values_of("4", dataset, backbone).xs("max_box_acc", level="metric").groupby("method"):
        assert row.dropna().is_monotonic_decreasing


def test_means_of_table_4_are_those_of_the_three_rates():
    """Within 0.1: 0.05 for the rounding of the mean, and 0.05 for that of the three rates.

    Known exceptions of the print to 0.05, the rounding of the mean alone, both on ImageNet-1K with VGG16: ADL with
    (80.8 + 60.9 + 37.8) / 3 = 59.83, printed 59.9, and Ki et al. with (81.5 + 63.2 + 39.4) / 3 = 61.37, printed 61.3.
    """
    table = published.table("4")
    keys = ["dataset", "backbone", "method"]
    rates = table[table["metric"] == "max_box_acc"].groupby(keys)["value"].agg(["mean", "count"])
    printed = table[table["metric"] == "max_box_acc_v2"].set_index(keys)["value"]
    gaps = (rates.loc[rates["count"] == 3, "mean"] - printed).dropna().abs()
    assert len(gaps) == 28
    assert gaps.max() < 0.1
    beyond = set(gaps[gaps > 0.05].index)
    assert beyond == {("ImageNet-1K", "VGG16", "ADL"), ("ImageNet-1K", "VGG16", "Ki et al.")}


@pytest.mark.parametrize(
    ("number", "dataset", "backbone", "gap"),
    [
        ("1", *EXPERIMENTS[0], 0.03),
        ("2", *EXPERIMENTS[1], -1.2),
        ("3", *EXPERIMENTS[2], 0.28),
        ("3", *EXPERIMENTS[3], 1.21),
    ],
)
def test_gt_known_loc_and_the_rate_at_iou_one_half_differ_in_print(number, dataset, backbone, gap):
    """One and the same by definition, they agree on CUB with VGG16 only: 93.2 and 93.17.

    Known exceptions of the print: 90.4 and 91.60 (CUB, ResNet50), 69.2 and 68.92 (ImageNet-1K, VGG16), 71.1 and 69.89
    (ImageNet-1K, ResNet50). Appendix B selects the model of Table 4 on train-fullsup, and says nothing of the others.
    """
    rate = values_of("4", dataset, backbone)["ours", "max_box_acc", "0.5"]
    assert rate - values_of(number, dataset, backbone)["ours", "gt_known_loc", ""] == pytest.approx(gap, abs=1e-9)


def test_an_unknown_table_is_refused():
    with pytest.raises(RecipeError, match="Unknown table '99'. Known: 1, 2, 3, 4, 5, 6, 7, A1"):
        published.table("99")


def test_hyperparameters_of_cub_vgg16_are_the_papers():
    values = published.hyperparameters("CUB", "VGG16")
    expected = {"lambda_sim": 0.5, "lambda_norm": 0.15, "lambda_drop": 3, "tau_fg": 0.6, "tau_bg": 0.1}
    expected |= {"drop_threshold": 0.8, "drop_prob": 0.5, "epochs": 70, "warm_epochs": 20, "batch_size": 64}
    expected |= {"lr_former": 4e-3, "lr_latter": 2e-2, "lr_decay_epochs": (41, 61), "weight_decay": 5e-4}
    assert {name: values[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("dataset", "backbone", "sim", "norm", "drop", "tau_fg", "tau_bg", "gamma", "p", "former", "latter"),
    [
        ("CUB", "VGG16", 0.5, 0.15, 3, 0.6, 0.1, 0.8, 0.5, 4e-3, 2e-2),
        ("CUB", "ResNet50", 0.6, 0.07, 2, 0.4, 0.2, 0.8, 0.25, 2e-3, 2e-2),
        ("ImageNet-1K", "VGG16", 0.5, 0.2, 3, 0.5, 0.3, 0.8, 0.5, 2e-5, 1e-4),
        ("ImageNet-1K", "ResNet50", *[None] * 7, 1e-5, 1e-4),
    ],
)
def test_every_hyperparameter_that_the_text_states_is_listed_as_the_papers(
    dataset, backbone, sim, norm, drop, tau_fg, tau_bg, gamma, p, former, latter
):
    """Sec. 5.4, Appendix B and C.5; of ImageNet-1K with ResNet50 the text states only what it says of all.

    Without ``nesterov``, of which the text says nothing, and ``latter_part``, which is a name.
    """
    stated = {"lambda_sim": sim, "lambda_norm": norm, "lambda_drop": drop, "tau_fg": tau_fg, "tau_bg": tau_bg}
    stated |= {"drop_threshold": gamma, "drop_prob": p, "lr_former": former, "lr_latter": latter}
    stated |= {"momentum": 0.9, "weight_decay": 5e-4}
    rows = pd.read_csv(Path(published.__file__).parent / "hyperparameters.csv", dtype=str)
    rows = rows[(rows["dataset"] == dataset) & (rows["backbone"] == backbone) & (rows["source"] == "paper")]
    rows = rows[~rows["name"].isin(["nesterov", "latter_part"])]
    listed = {name: float(value) for name, value in zip(rows["name"], rows["value"], strict=True)}
    assert listed == {name: value for name, value in stated.items() if value is not None}


def test_the_source_decides_where_paper_and_released_code_differ():
    paper, released = (published.hyperparameters("CUB", "ResNet50", source) for source in ("paper", "released"))
    assert (paper["lambda_sim"], paper["lambda_norm"], paper["weight_decay"]) == (0.6, 0.07, 5e-4)
    assert (released["lambda_sim"], released["lambda_norm"], released["weight_decay"]) == (0.5, 0.05, 1e-4)
    differing = {name for name, value in paper.items() if value != released[name]}
    assert differing == {"lambda_sim", "lambda_norm", "weight_decay", "nesterov", "latter_part"}
    with pytest.raises(RecipeError, match="Unknown hyperparameter source 'code'"):
        published.hyperparameters("CUB", "VGG16", "code")


def test_every_name_is_a_field_of_a_recipe_or_an_option_of_the_method():
    from wsolkit.methods.bridging import Options

    known = {*Recipe.__dataclass_fields__, *Options.__dataclass_fields__}
    for pair in (("CUB", "VGG16"), ("CUB", "ResNet50"), ("ImageNet-1K", "VGG16"), ("ImageNet-1K", "ResNet50")):
        assert set(published.hyperparameters(*pair)) <= known


def test_defaults_are_the_papers_values_for_cub_and_vgg16():
    """They stand in signatures for a reader's sake; this keeps them from drifting apart."""
    from wsolkit.methods.bridging import Options

    values = published.hyperparameters("CUB", "VGG16")
    defaults = {name: getattr(Options(), name) for name in Options.__dataclass_fields__}
    fields = Recipe.__dataclass_fields__
    for name, value in values.items():
        assert value == (defaults[name] if name in defaults else fields[name].default), name


def test_differences_say_what_we_do():
    table = published.differences()
    assert list(table) == ["topic", "paper", "released", "here", "option"]
    assert (table != "").all().all()


def test_what_the_benchmark_tuned_are_options_of_its_methods():
    rows = pd.read_csv(Path(published.__file__).with_name("benchmark.csv"))
    named = rows.dropna(subset="option")
    for (method, _, _), group in named.groupby(["method", "dataset", "backbone"]):
        options = dict(zip(group["option"], group["value"], strict=True))
        assert methods.find(method, options).options.__dict__.items() >= options.items()
    assert set(rows["method"]) == {"has", "acol", "spg", "adl", "cutmix"}
    known = ["dataset", "backbone", "method", "theirs"]
    assert rows[rows.duplicated(known)]["theirs"].tolist() == ["cutmix_prob"], "two versions of anything else"
