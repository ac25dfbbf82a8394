import pandas as pd
import pytest

from wsolkit.study import plots


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
