import dataclasses

import numpy as np
import pytest

from tests.conftest import tiny_recipe
from wsolkit.errors import RecipeError
from wsolkit.study import claims, plots, tables
from wsolkit.study.claims import Claim, Comparison, Evidence, check, experiment, judge, scoreboard, together
from wsolkit.study.statements import statements
from wsolkit.study.statistics import Effect
from wsolkit.training import profiles

GOOD, BAD = experiment("drop", "sim", "norm"), experiment()


@pytest.mark.parametrize(
    ("effect", "relation", "margin", "verdict"),
    [
        (Effect(0.1, 0.05, 0.15), "above", 0.0, "reproduced"),
        (Effect(0.1, -0.01, 0.15), "above", 0.0, "inconclusive"),
        (Effect(-0.1, -0.2, -0.05), "above", 0.0, "not reproduced"),
        (Effect(0.1, 0.05, 0.15), "above", 0.05, "inconclusive"),
        (Effect(0.02, 0.01, 0.05), "above", 0.05, "not reproduced"),
        (Effect(0.0, 0.0, 0.0), "above", 0.0, "not reproduced"),
        (Effect(0.0, -0.01, 0.01), "within", 0.013, "reproduced"),
        (Effect(0.0, -0.02, 0.01), "within", 0.013, "inconclusive"),
        (Effect(-0.1, -0.2, -0.05), "within", 0.013, "not reproduced"),
        (None, "above", 0.0, "not measured"),
    ],
)
def test_verdicts_by_hand(effect, relation, margin, verdict):
    assert judge(effect, relation, margin, seeds=3) == verdict


def test_one_seed_settles_nothing():
    assert judge(Effect(0.1, 0.05, 0.15), "above", 0.0, seeds=1) == "inconclusive"


def test_a_claim_holds_if_all_its_parts_do():
    assert together(["reproduced", "reproduced"]) == "reproduced"
    assert together(["reproduced", "inconclusive"]) == "inconclusive"
    assert together(["inconclusive", "not reproduced", "reproduced"]) == "not reproduced"
    assert together(["not measured", "not reproduced"]) == "not measured"


class Known(Evidence):
    """Evidence from arrays: GOOD localizes 90% of the images, BAD 50%."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self._runs = {(GOOD, False): [None] * 3, (BAD, False): [None] * 3}
        self._data = {GOOD: rng.random((3, 400)) < 0.9, BAD: rng.random((3, 400)) < 0.5}

    def values(self, experiment, quantity, few):
        if "every threshold" in quantity:
            # At the third threshold both are as often right, at the fourth always, and at the fifth never.
            hits = self._data[experiment][..., None] * np.array([1, 1, 1, 1, 0])
            hits[..., 2] = np.roll(self._data[BAD], int(experiment == GOOD), axis=1)
            hits[..., 3] = 1
            return hits
        return self._data[experiment]


def test_a_true_statement_is_reproduced_and_a_false_one_is_not():
    true = Claim("ours is better", "here", "Ours localizes more.", (Comparison(GOOD, BAD),))
    false = Claim("vanilla is better", "nowhere", "Vanilla localizes more.", (Comparison(BAD, GOOD),))
    equal = Claim(
        "they are alike", "nowhere", "No difference.", (Comparison(GOOD, BAD, relation="within", margin=0.1),)
    )
    absent = Claim("unknown", "nowhere", "About runs that are not there.", (Comparison(experiment("drop"), BAD),))
    checked = check([true, false, equal, absent], Known())
    verdicts = checked.set_index("claim")["verdict"].to_dict()
    assert verdicts == {
        "ours is better": "reproduced",
        "vanilla is better": "not reproduced",
        "they are alike": "not reproduced",
        "unknown": "not measured",
    }
    by_claim = checked.set_index("claim")
    assert by_claim.loc["ours is better", "difference"] == -by_claim.loc["vanilla is better", "difference"]
    assert 0.3 < by_claim.loc["ours is better", "difference"] < 0.5
    board = scoreboard(checked)
    assert "points" in board["measured"].iloc[0]
    html = tables.verdicts(board.set_index("claim"), "claims").to_html()
    assert "✗ not reproduced" in html
    figure = plots.verdict_bars(board, "smoke")
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    counts = [text.get_text() for text in figure.axes[0].texts]
    assert dict(zip(named, counts, strict=True)) == {"reproduced": "1", "not reproduced": "2", "not measured": "1"}


def test_of_curves_the_threshold_with_the_least_advantage_decides():
    comparison = Comparison(GOOD, BAD, "box accuracy at every threshold")
    effects = Known().effects(comparison)
    # The fourth and the fifth threshold tell nothing.
    assert [effect.difference > 0 for effect in effects] == [True, True, False]
    checked = check([Claim("everywhere", "Fig. A1", "Above at every threshold.", (comparison,))], Known())
    assert checked["verdict"].tolist() == ["inconclusive"]
    assert checked["difference"].tolist() == [0]


def test_an_unknown_quantity_is_refused():
    with pytest.raises(RecipeError, match="Unknown quantity 'gt_loc'"):
        Claim("x", "y", "z", (Comparison(GOOD, BAD, "gt_loc"),))


def test_the_papers_statements_are_many_and_each_can_be_trained(study):
    demo = dataclasses.replace(study, profile=profiles.get("demo"))
    listed = statements(demo)
    assert len(listed) >= 15
    assert len({claim.name for claim in listed}) == len(listed)
    for experiments in claims.wanted(listed).values():
        assert len({demo.recipe(**each).key for each in experiments.values()}) > 3


def test_only_what_should_change_little_is_compared_at_the_few_seeds_of_the_sweeps():
    swept = experiment("drop", "sim", "norm", drop_prob=1.0)
    assert claims.at_few_seeds(Comparison(GOOD, swept, relation="within"))
    assert not claims.at_few_seeds(Comparison(GOOD, swept))
    assert not claims.at_few_seeds(Comparison(GOOD, experiment(dataset="CUB"), relation="within"))


def test_tables_are_credited_with_what_they_print(study):
    by_name = {claim.name: claim for claim in statements(dataclasses.replace(study, profile=profiles.get("demo")))}
    metrics = {name: [part.quantity for part in claim.comparisons] for name, claim in by_name.items()}
    assert metrics["better on CUB, VGG16"] == list(tables.METRIC_NAMES)
    # Tab. 2 has a dash for the GT-known Loc of CAM, and Tab. 3 has no CAM with ResNet50.
    assert metrics["better on CUB, ResNet50"] == ["top1_loc", "top5_loc"]
    assert "better on ImageNet-1K, ResNet50" not in metrics
    assert "better at every IoU on ImageNet-1K, ResNet50" in metrics


def test_quantities_come_from_reports_and_pictures(study):
    recipes = [tiny_recipe(seed=seed) for seed in (0, 1)]
    runs = study.store.get_all(recipes)
    evidence = Evidence(study, {(GOOD, False): runs})
    for name in claims.QUANTITIES:
        values = evidence.values(GOOD, name, False)
        assert values.shape[0] == 2
        assert np.isfinite(values).all(), name
    assert evidence.values(GOOD, "gt_known_loc", False).mean(1).tolist() == pytest.approx(
        [run.report().rate("gt_known_loc") for run in runs]
    )
    curves = evidence.values(GOOD, "box accuracy at every threshold", False)
    report = runs[0].report().curves.query("map == 'cam'").sort_values(["iou_threshold", "threshold"])
    assert curves[0].mean(0).tolist() == pytest.approx(report["value"].tolist())
    assert evidence.values(GOOD, "pxap", False).shape == (2, 1)
