import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from wsolkit.study import sweeps
from wsolkit.training import profiles


def test_the_papers_sweeps_hold_what_its_text_names():
    best = profiles.get("paper").recipe().method_options
    settings = sweeps.settings(best)
    by_option = {option: [v for o, v in settings if o == option] for option in sweeps.SWEEPS}
    assert 4.0 in by_option["lambda_drop"]
    assert {0.6, 0.7, 0.8, 0.9} <= set(by_option["drop_threshold"])
    assert 1.0 in by_option["drop_prob"]
    assert by_option["lambda_norm"] == [0.05, 0.1, 0.15, 0.2, 0.25]
    assert all(4 <= len(values) <= 6 for values in by_option.values())
    assert all(best[option] in values for option, values in by_option.items())


@given(fg=st.floats(0.01, 1), bg=st.floats(0, 0.99), weight=st.floats(0, 100), share=st.floats(0, 1))
def test_sweeps_stay_where_the_method_allows(fg, bg, weight, share):
    assume(float(f"{bg:.4g}") < bg + 1e-3 < fg)
    best = dict.fromkeys(("lambda_sim", "lambda_norm", "lambda_drop"), weight)
    best |= {"tau_fg": fg, "tau_bg": bg, "drop_threshold": share, "drop_prob": share}
    for option, value in sweeps.settings(best):
        assert value >= 0
        assert value <= 1 or option.startswith("lambda")
        assert {**best, option: value}["tau_bg"] < {**best, option: value}["tau_fg"]
    values = [value for option, value in sweeps.settings(best) if option == "drop_prob"]
    assert values == sorted({0.25, 0.5, 0.75, 1.0, float(f"{share:.4g}")})


def test_the_best_setting_is_the_run_of_the_tables(study):
    pairs = [("CUB", "VGG16"), ("CUB", "ResNet50")]
    experiments = sweeps.experiments(study, pairs, every=True)
    best = study.recipe()
    recipes = {key: study.recipe(**each) for key, each in experiments.items() if key[1] == "VGG16"}
    assert len(experiments) == 2 * len(recipes)
    usual = sweeps.experiments(study, pairs)  # the profile has the ends alone of the second pair
    assert usual.keys() < experiments.keys()
    assert {key for key in usual if key[1] == "VGG16"} == recipes.keys()
    same = [option for (_, _, option, _), recipe in recipes.items() if recipe == best]
    assert same == list(sweeps.SWEEPS)
    assert len({recipe.key for recipe in recipes.values()}) == len(recipes) - len(same) + 1


def test_points_are_the_rates_of_the_runs(study):
    experiments = sweeps.experiments(study, [("CUB", "VGG16")])
    best = study.recipe().method_options["drop_prob"]
    few = {key: each for key, each in experiments.items() if key[2:] in {("drop_prob", best), ("drop_prob", 1.0)}}
    trained = study.train(few, [0])
    points = sweeps.points(study, trained)
    assert points["chosen"].tolist() == [True, False]
    assert points["setting"].tolist() == [best, 1.0]
    assert points["value"].tolist() == [group[0].report().rate("gt_known_loc") for group in trained.values()]
    assert (points["paper"] == 0.5).all()


@pytest.mark.parametrize(
    ("option", "best", "every"),
    [
        ("lambda_drop", 3.0, [1, 2, 3, 4, 5]),
        ("drop_threshold", 0.7, [0.6, 0.7, 0.8, 0.9]),
        ("tau_bg", 0.9, [0.8, 0.85, 0.9, 0.95, 1]),
    ],
)
def test_a_sweep_surrounds_the_best_setting_and_may_keep_the_ends_alone(option, best, every):
    assert sweeps.SWEEPS[option].settings(best) == pytest.approx(every)
    assert sweeps.SWEEPS[option].settings(best, only_ends=True) == pytest.approx([every[0], best, every[-1]])
