import pytest

from wsolkit import published
from wsolkit.errors import RecipeError
from wsolkit.recipes import Recipe

TABLE_7 = {
    "vanilla": (46.95, 57.23, 60.74),
    "drop": (54.35, 70.37, 75.06),
    "sim": (56.66, 71.38, 76.10),
    "sim + norm": (62.27, 77.48, 81.93),
    "drop + sim": (63.00, 79.93, 85.35),
    "drop + sim + norm": (70.83, 88.07, 93.17),
}
"""Typed from the paper a second time, so that a slip in either copy shows."""


def test_table_7_is_the_papers():
    table = published.table("7")
    assert list(table) == ["table", "dataset", "backbone", "method", "venue", "branch", "metric", "delta", "value"]
    for method, values in TABLE_7.items():
        rows = table[table["method"] == method].set_index("metric")["value"]
        assert rows[["top1_loc", "top5_loc", "gt_known_loc"]].tolist() == list(values)
    assert len(table) == 18


def test_the_gains_that_the_text_states_follow_from_table_7():
    """Sec. 5.4: drop +7.4 Top-1 and +14.32 GT; sim +9.71 Top-1 and +15.36 GT."""
    value = published.table("7").set_index(["method", "metric"])["value"]
    for method, metric, gain in (
        ("drop", "top1_loc", 7.40),
        ("drop", "gt_known_loc", 14.32),
        ("sim", "top1_loc", 9.71),
        ("sim", "gt_known_loc", 15.36),
    ):
        assert value[method, metric] - value["vanilla", metric] == pytest.approx(gain, abs=0.006)


def test_an_unknown_table_is_refused():
    with pytest.raises(RecipeError, match="Unknown table '99'. Known: 7"):
        published.table("99")


def test_hyperparameters_of_cub_vgg16_are_the_papers():
    values = published.hyperparameters("CUB", "VGG16")
    expected = {"lambda_sim": 0.5, "lambda_norm": 0.15, "lambda_drop": 3, "tau_fg": 0.6, "tau_bg": 0.1}
    expected |= {"drop_threshold": 0.8, "drop_prob": 0.5, "epochs": 70, "warm_epochs": 20, "batch_size": 64}
    expected |= {"lr_former": 4e-3, "lr_latter": 2e-2, "lr_decay_epochs": (41, 61), "weight_decay": 5e-4}
    assert {name: values[name] for name in expected} == expected


def test_the_source_decides_where_paper_and_released_code_differ():
    paper, released = (published.hyperparameters("CUB", "ResNet50", source) for source in ("paper", "released"))
    assert (paper["lambda_sim"], paper["lambda_norm"], paper["weight_decay"]) == (0.6, 0.07, 5e-4)
    assert (released["lambda_sim"], released["lambda_norm"], released["weight_decay"]) == (0.5, 0.05, 1e-4)
    differing = {name for name, value in paper.items() if value != released[name]}
    assert differing == {"lambda_sim", "lambda_norm", "weight_decay", "nesterov"}
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
