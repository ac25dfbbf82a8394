import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import tiny_recipe
from wsolkit import methods, published
from wsolkit.errors import RecipeError
from wsolkit.study import claims, plots, quantities, tables
from wsolkit.study.claims import (
    Claim,
    Comparison,
    check,
    describe,
    experiment,
    judge,
    published_claims,
    scoreboard,
    together,
)
from wsolkit.study.statistics import Effect
from wsolkit.system.plugins import parse_options
from wsolkit.training import profiles

FULL, VANILLA = experiment("drop", "sim", "norm"), experiment()


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
    ],
)
def test_verdicts_by_hand(effect, relation, margin, verdict):
    assert judge(effect, relation, margin) == verdict


def test_a_difference_too_small_to_count_refutes_an_improvement():
    assert judge(Effect(0.004, -0.008, 0.016), "above", 0.0, negligible=0.02) == "not reproduced"
    assert judge(Effect(0.008, -0.002, 0.018), "above", 0.0, negligible=0.02) == "inconclusive"
    assert judge(Effect(-0.01, -0.02, 0.0), "above", 0.0, negligible=0.02) == "not reproduced"
    assert judge(Effect(0.01, -0.002, 0.022), "above", 0.0, negligible=0.02) == "inconclusive"
    assert judge(Effect(0.01, 0.002, 0.018), "above", 0.0, negligible=0.02) == "reproduced"
    assert judge(Effect(0.05, 0.03, 0.07), "above", 0.05, negligible=0.02) == "inconclusive"
    assert judge(Effect(0.01, -0.002, 0.018), "within", 0.01, negligible=0.02) == "inconclusive"


@given(st.floats(0, 0.02), st.floats(0.0001, 0.02))
def test_no_hair_turns_a_claim_into_its_opposite(difference, half_width):
    """Two intervals of one width whose verdicts are opposite lie a quarter of it apart, at least."""
    first = judge(Effect(difference, difference - half_width, difference + half_width), "above", 0.0, 0.02)
    for moved in (difference - 0.49 * half_width, difference + 0.49 * half_width):
        second = judge(Effect(moved, moved - half_width, moved + half_width), "above", 0.0, 0.02)
        assert {first, second} != {"reproduced", "not reproduced"}


def test_a_claim_holds_if_all_its_parts_do():
    assert together(["reproduced", "reproduced"]) == "reproduced"
    assert together(["reproduced", "inconclusive"]) == "inconclusive"
    assert together(["inconclusive", "not reproduced", "reproduced"]) == "not reproduced"
    assert together(["not measured", "not reproduced"]) == "not measured"


@dataclasses.dataclass(frozen=True)
class FakeRun:
    """A run of an experiment that took a minute."""

    side: tuple
    seed: int

    def info(self):
        return {"seconds": 60}


class FakeStudy:
    """A study whose runs need no training; ``available`` limits the seeds of some experiments."""

    def __init__(self, study, values, seeds=(0, 1, 2)):
        self.profile, self.recipe, self.seeds, self.values = study.profile, study.recipe, seeds, values
        self.available, self.listed, self.asked = {}, [], []

    def seeds_up_to(self, count):
        return range(count)

    def train_at(self, experiments, seeds, train):
        self.asked.append(set(experiments))
        known = [
            side for side in experiments if len(seeds[side]) <= self.available.get(side, 12) and side in self.values
        ]
        return {side: [FakeRun(side, seed) for seed in seeds[side]] for side in known}

    def list_runs(self, runs):
        self.listed = runs


@pytest.fixture
def known(study, monkeypatch):
    """Evidence from arrays: the full method localizes 90% of the images, vanilla 50%."""
    rng = np.random.default_rng(0)
    hits = {FULL: rng.random((12, 400)) < 0.9, VANILLA: rng.random((12, 400)) < 0.5}
    fake = FakeStudy(study, hits)

    def evidence(runs, quantity):
        values = np.stack([fake.values[run.side][run.seed] for run in runs])
        if "every threshold" in quantity:
            # At the third threshold both are right equally often, at the fourth always, and at the fifth never.
            curves = values[..., None] * np.array([1, 1, 1, 1, 0])
            curves[..., 2] = np.roll(fake.values[VANILLA][: len(runs)], int(runs[0].side == FULL), axis=1)
            curves[..., 3] = 1
            return curves
        return values

    monkeypatch.setattr(claims, "measure", lambda study: evidence)
    return fake


def test_a_true_claim_is_reproduced_and_a_false_one_is_not(known):
    full = "drop + sim + norm"
    listed = [
        Claim("ours is better", "here", "Ours localizes more.", full, "vanilla"),
        Claim("vanilla is better", "nowhere", "Vanilla localizes more.", "vanilla", full),
        Claim("they are alike", "nowhere", "No difference.", full, "vanilla", relation="within", margin=0.1),
        Claim("unknown", "nowhere", "About runs that do not exist.", "drop", "vanilla"),
    ]
    checked = check(listed, known)
    by_claim = checked.set_index("claim")
    assert by_claim["verdict"].to_dict() == {
        "ours is better": "reproduced",
        "vanilla is better": "not reproduced",
        "they are alike": "not reproduced",
        "unknown": "not measured",
    }
    assert by_claim.loc["ours is better", "difference"] == -by_claim.loc["vanilla is better", "difference"]
    assert 0.3 < by_claim.loc["ours is better", "difference"] < 0.5
    board = scoreboard(checked)
    assert "points" in board["measured"].iloc[0]
    assert board["measured"].iloc[-1] == "gt_known_loc: drop against vanilla: not measured"
    html = tables.verdicts(board.set_index("claim"), "claims").to_html()
    assert "✗ not reproduced" in html
    figure = plots.verdict_bars(board, "smoke")
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    counts = [text.get_text() for text in figure.axes[0].texts]
    assert dict(zip(named, counts, strict=True)) == {"reproduced": "1", "not reproduced": "2", "not measured": "1"}


def test_of_curves_the_threshold_with_the_least_advantage_decides(known):
    claim = Claim("x", "Fig. A1", "Above.", "drop + sim + norm", "vanilla", quantity="box accuracy at every threshold")
    evidence = claims.measure(known)
    sides = ([FakeRun(side, seed) for seed in range(3)] for side in (FULL, VANILLA))
    pairs = claims.curves(*(evidence(runs, "at every threshold") for runs in sides))
    # The fourth and the fifth threshold mean nothing.
    assert [(ours.mean() - baseline.mean()) > 0 for ours, baseline in pairs] == [True, True, False]
    checked = check([claim], known)
    assert checked["verdict"].tolist() == ["inconclusive"]
    assert checked["difference"].tolist() == [0]


def test_the_scoreboard_shows_the_part_that_decided(known):
    parts = Claim("x", "y", "z", ["drop + sim + norm", "vanilla"], ["vanilla", "drop + sim + norm"], margin=0.05)
    [row] = scoreboard(check([parts], known)).to_dict("records")
    assert row["verdict"] == "not reproduced"
    assert row["measured"].startswith("gt_known_loc: vanilla against drop + sim + norm: -")
    assert row["measured"].endswith(" points, claimed: above 5 points, 3 repetitions (shown: one of 2 parts)")


def slight(known):
    """Ours is better by as little as three seeds cannot show, but more can."""
    rng = np.random.default_rng(3)
    gain = rng.normal(0.05, 0.03, (12, 1)) + rng.normal(0, 0.02, (12, 400))
    known.values = {FULL: gain, VANILLA: np.zeros((12, 400)), experiment("sim"): gain - 0.002}
    return Claim("slight", "", "", "drop + sim + norm", "vanilla")


def test_repetitions_go_to_what_is_open_until_it_is_decided(known):
    sure = Claim("sure", "", "", "vanilla", "drop + sim + norm", relation="within", margin=1.0)
    plan = claims.Plan((3, 4, 6, 9, 12), budget=1e6)
    checked = check([slight(known), sure], known, plan).set_index("claim")
    assert checked["verdict"].tolist() == ["reproduced", "reproduced"]
    assert checked.loc["sure", "seeds"] == 3 < checked.loc["slight", "seeds"] <= 12
    again = check([slight(known), sure], known, plan).set_index("claim")
    assert again.equals(checked)
    assert len(known.listed) == 2 * checked.loc["slight", "seeds"]


def test_all_runs_of_a_look_are_asked_for_together(known):
    """So that they can be trained side by side."""
    claim = slight(known)
    known.values[experiment("sim")] = np.random.default_rng(0).permuted(known.values[FULL])
    other = Claim("open", "", "", "drop + sim + norm", "sim", relation="within", margin=0.002)
    check([claim, other], known, claims.Plan((3, 4, 6), budget=1e6))
    assert known.asked[:2] == [{FULL, VANILLA, experiment("sim")}] * 2
    assert len(known.asked) == 3


def test_a_budget_ends_the_repetitions(known):
    open_for_ever = Claim("open", "", "", "drop + sim + norm", "sim", relation="within", margin=0.002)
    slight(known)
    known.values[experiment("sim")] = np.random.default_rng(0).permuted(known.values[FULL])
    none, some, all_of_it = (
        check([open_for_ever], known, claims.Plan((3, 4, 6, 9, 12), budget))["seeds"].item() for budget in (0, 5, 1e6)
    )
    assert none == 3
    assert some == 6  # two runs of a minute at 4 seeds, four more at 6: then the budget of 5 is spent
    assert all_of_it == 12


@pytest.mark.parametrize("stretched", [1, 1000])
def test_what_is_no_rate_is_judged_by_its_size(known, stretched):
    """A tenth of a per cent either way is no effect, whatever the unit; a third is one."""
    rng = np.random.default_rng(0)
    largest = rng.uniform(8, 12, (12, 400))
    changed = {"sim": 1 + rng.normal(0, 0.001, (12, 400)), "drop": 4 / 3}
    known.values = {VANILLA: stretched * largest}
    known.values |= {experiment(name): stretched * largest * factor for name, factor in changed.items()}
    listed = [Claim(name, "", "", name, "vanilla", quantity="largest F") for name in changed]
    checked = check(listed, known).set_index("claim")
    assert checked["verdict"].to_dict() == {"sim": "not reproduced", "drop": "reproduced"}
    assert checked["negligible"].to_numpy() == pytest.approx(0.02 * stretched * largest[:3].mean())


def test_a_look_that_is_not_trained_leaves_the_one_before(known):
    """With ``train`` off an experiment counts at a look if all of its runs are there."""
    claim, known.available = slight(known), {FULL: 4, VANILLA: 3}
    found = check([claim], known, claims.Plan((3, 4, 6), 1e6), train=False)
    assert found[["seeds", "verdict"]].to_numpy().tolist() == [[3, "inconclusive"]]


def test_a_plan_is_the_profiles_unless_one_is_given(study):
    assert claims.plan(study).at == (2,)
    assert claims.plan(study, max_seeds=5, budget_minutes=3.0) == claims.Plan((2, 4, 5), 3.0)
    assert claims.plan(study, max_seeds=1).at == (2,)


WRITTEN = {"name": "mine", "where": "here", "text": "Mine.", "ours": "sim", "baseline": "vanilla"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metric": "pxap"}, "unknown name 'metric'"),
        ({"ours": {"lambda_sim": "highest"}}, "all but the best"),
        ({"ours": {"lambda_sim": 1.0, "lambda_drop": 1.0}}, "at most 1 item"),
        ({"ours": {"lambda_simm": 1.0}}, "Did you mean 'lambda_sim'"),
        ({"quantity": "gt_loc"}, "Unknown quantity 'gt_loc'"),
        ({"baseline_quantity": "gt_loc"}, "Unknown quantity 'gt_loc'"),
        ({"relation": "below"}, "'above' or 'within'"),
        ({"margin": "two points"}, "margin"),
        ({"block": {"datasets": "CUB"}}, "'dataset' or 'backbone'"),
        ({"block": {"dataset": "CUBS"}}, "Did you mean 'CUB'"),
    ],
)
def test_a_mistake_in_a_claim_is_refused(study, change, said):
    with pytest.raises(RecipeError, match=said):
        parse_options(Claim, WRITTEN | change, "claim 'mine'").comparisons(study)


def test_a_missing_field_is_named():
    with pytest.raises(RecipeError, match="claim 'mine'.*'baseline' is missing"):
        parse_options(Claim, {key: WRITTEN[key] for key in ("name", "where", "text", "ours")}, "claim 'mine'")


def test_a_claim_by_hand(study):
    written = {
        "ours": ["sim", {"drop_threshold": [0.6, 0.8]}],
        "baseline": {"lambda_drop": "next above the best"},
        "quantity": ["gt_known_loc of F", "pxap"],
        "baseline_quantity": ["gt_known_loc", "top1_loc"],
        "relation": "within",
        "margin": 0.05,
        "block": {"backbone": "VGG16"},
    }
    here = {"backbone": "VGG16"}
    assert study.recipe().method_options["drop_threshold"] == 0.8
    strong = experiment("drop", "sim", "norm", lambda_drop=4.0, **here)
    assert parse_options(Claim, WRITTEN | written, "claim 'mine'").comparisons(study) == [
        Comparison(ours, strong, *quantities, "within", 0.05)
        for ours in (experiment("sim", **here), experiment("drop", "sim", "norm", drop_threshold=0.6, **here))
        for quantities in (("gt_known_loc of F", "gt_known_loc"), ("pxap", "top1_loc"))
    ]


@pytest.fixture(params=["smoke", "demo", "photos", "paper"])
def listed(request, study):
    """A study of each profile, with its claims by name."""
    of_profile = dataclasses.replace(study, profile=profiles.get(request.param))
    found = claims.published_claims(of_profile)
    assert len({claim.name for claim in found}) == len(found)
    return of_profile, {claim.name: claim.comparisons(of_profile) for claim in found}


def test_every_profile_checks_the_papers_claims(listed):
    study, by_name = listed
    counts = len(by_name), sum(map(len, by_name.values()))
    assert (
        counts == {"smoke": (38, 122), "demo": (38, 121), "photos": (33, 111), "paper": (38, 122)}[study.profile.name]
    )
    for part in (part for parts in by_name.values() for part in parts):
        for side in (part.ours, part.baseline):
            study.recipe(**dict(side))  # each can be trained


def test_claims_about_other_methods_lose_those_whose_file_is_gone(study, monkeypatch):
    def named(name: str) -> list[str]:
        return [each.name for each in published_claims(study) if name in each.name]

    (claim,) = [each for each in published_claims(study) if "other methods, Tab. 4" in each.name]
    assert describe(claim.comparisons(study)[0]) == "max_box_acc_0.3: drop + sim + norm against HaS"
    monkeypatch.setattr(methods, "names", lambda: ("cam", "bridging", "eil", "spg"))
    assert [describe(part) for part in claim.comparisons(study)] == [
        f"max_box_acc_{delta}: drop + sim + norm against SPG" for delta in (0.3, 0.5, 0.7)
    ]
    monkeypatch.setattr(methods, "names", lambda: ("cam", "bridging", "eil"))
    assert named("other methods") == ["ours above other methods, Tab. 1"]


def test_claims_on_sweeps_are_about_settings_around_the_profiles_best(listed):
    study, by_name = listed
    best = study.recipe().method_options
    third, strong = (
        float(f"{best[name] * factor:.4g}") for name, factor in [("lambda_sim", 1 / 3), ("lambda_drop", 4 / 3)]
    )
    [norm, drop] = by_name["sim matters most"]
    assert norm.baseline == drop.baseline == experiment("drop", "sim", "norm", lambda_sim=third)
    assert by_name["drop can be too strong"] == [
        Comparison(FULL, experiment("drop", "sim", "norm", lambda_drop=strong))
    ]
    little = [part for name, parts in by_name.items() if "matters little" in name for part in parts]
    assert all((part.baseline, part.relation, part.margin) == (FULL, "within", 0.02) for part in little)
    assert FULL not in [part.ours for part in little]
    gammas = {dict(part.ours)["drop_threshold"] for part in by_name["gamma matters little"]}
    assert gammas == {0.7, 0.8, 0.9} - {best["drop_threshold"]}


def test_tables_are_credited_with_what_they_print(listed):
    """A claim on a table is about the metrics for which it prints both the CAM and the paper's method."""
    study, by_name = listed
    for number, dataset, backbone in [
        ("1", "CUB", "VGG16"),
        ("2", "CUB", "ResNet50"),
        ("3", "ImageNet-1K", "VGG16"),
        ("3", "ImageNet-1K", "ResNet50"),
    ]:
        printed = (
            published.table(number).query("backbone == @backbone and method in ['CAM', 'ours']").dropna(subset="value")
        )
        both = [metric for metric in tables.METRIC_NAMES if (printed["metric"] == metric).sum() == 2]
        if backbone not in study.profile.backbones:
            continue
        parts = by_name.get(f"better on {dataset}, {backbone}", [])
        assert [part.quantity for part in parts] == both
        assert len(by_name[f"better at every IoU on {dataset}, {backbone}"]) == 3


def test_cells_count_by_their_centre():
    # Cells of 4 pixels: centres at 2, 6, 10, 14.
    inside = quantities.cells_in_boxes(np.array([[5, 1, 11, 7]]), 16, (4, 4))
    assert np.argwhere(inside).tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    two = quantities.cells_in_boxes(np.array([[0, 0, 3, 3], [12, 12, 15, 15]]), 16, (4, 4))
    assert np.argwhere(two).tolist() == [[0, 0], [3, 3]]
    assert not quantities.cells_in_boxes(np.array([[3, 3, 5, 5]]), 16, (4, 4)).any()


def test_quantities_come_from_reports_and_pictures(study):
    recipes = [tiny_recipe(seed=seed) for seed in (0, 1)]
    runs = study.store.get_all(recipes)
    evidence = claims.measure(study)
    for name in quantities.QUANTITIES:
        values = evidence(runs, name)
        assert values.shape[0] == 2
        assert np.isfinite(values).all(), name
    assert evidence(runs, "gt_known_loc").mean(1).tolist() == pytest.approx(
        [run.report().rate("gt_known_loc") for run in runs]
    )
    curves = evidence(runs, "box accuracy at every threshold")
    report = runs[0].report().curves.query("map == 'cam'").sort_values(["iou_threshold", "threshold"])
    assert curves[0].mean(0).tolist() == pytest.approx(report["value"].tolist())
    assert evidence(runs, "pxap").shape == (2, 1)
    similarity, data = (
        quantities.Measured(study, runs[0]).raw["similarity"].numpy(),
        study.store.machine.open(recipes[0], "test"),
    )
    shares = evidence(runs, "share of negative S in boxes")[0]
    cells = similarity[0][quantities.cells_in_boxes(data[0].boxes, data.size, similarity[0].shape)]
    assert shares[0] == pytest.approx((cells < 0).mean())
