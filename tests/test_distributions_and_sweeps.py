import pandas as pd
import pytest

from wsolkit.study import plots, sweeps
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


def test_foreground_stays_above_background():
    best = {**profiles.get("demo").recipe().method_options, "tau_fg": 0.3, "tau_bg": 0.2}
    assert all(value > 0.2 for option, value in sweeps.settings(best) if option == "tau_fg")
    assert all(value < 0.3 for option, value in sweeps.settings(best) if option == "tau_bg")


def test_the_best_setting_is_the_run_of_the_tables(study):
    experiments = sweeps.experiments(study, "CUB", "VGG16")
    best = study.recipe()
    recipes = {key: study.recipe(**each) for key, each in experiments.items()}
    same = [option for (option, _), recipe in recipes.items() if recipe == best]
    assert same == list(sweeps.SWEEPS)
    assert len({recipe.key for recipe in recipes.values()}) == len(recipes) - len(same) + 1


def test_sensitivity_has_a_panel_a_hyperparameter():
    symbols = {"lambda_sim": "λ sim", "drop_prob": "p"}
    points = pd.DataFrame(
        {
            "option": ["lambda_sim", "lambda_sim", "lambda_sim", "drop_prob"],
            "setting": [0.3, 0.1, 0.3, 0.5],
            "value": [0.7, 0.4, 0.5, 0.6],
            "chosen": [True, False, True, True],
            "paper": [0.2, 0.2, 0.2, 0.9],
        }
    )
    first, second = plots.sensitivity(points, symbols, columns=2).axes
    assert first.lines[0].get_xdata().tolist() == [0.1, 0.3]
    assert first.lines[0].get_ydata().tolist() == pytest.approx([40, 60])
    assert (first.get_xlabel(), second.get_xlabel()) == ("λ sim", "p")
    # The paper's best is drawn where it lies in the range.
    assert len(first.get_lines()) > len(second.get_lines())
