import numpy as np
import pandas as pd
import pytest
import torch

from tests.test_evaluation import Oracle, Squares
from wsolkit.study import distributions, plots
from wsolkit.training.evaluation import one_per_class, raw_maps


def test_cells_count_by_their_centre():
    # Cells of 4 pixels: centres at 2, 6, 10, 14.
    inside = distributions.cells_in_boxes(np.array([[5, 1, 11, 7]]), 16, (4, 4))
    assert np.argwhere(inside).tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    two = distributions.cells_in_boxes(np.array([[0, 0, 3, 3], [12, 12, 15, 15]]), 16, (4, 4))
    assert np.argwhere(two).tolist() == [[0, 0], [3, 3]]
    assert not distributions.cells_in_boxes(np.array([[3, 3, 5, 5]]), 16, (4, 4)).any()


def test_similarity_inside_boxes_is_that_of_the_boxes_cells():
    data, model = Squares(), Oracle()
    found = distributions.similarity_in_boxes(model, data)
    # One channel, weights 1 and -1: the similarity is 1 on bright squares, and -1 for the image of the second class.
    assert [set(np.round(each, 6)) for each in found] == [{1.0}] * 4 + [{-1.0}]
    assert [each.size for each in found] == [10 * 15] * 5


def test_norms_are_those_of_the_maps():
    data, model = Squares(), Oracle()
    raw = raw_maps(model, data, range(5), "norm")
    assert distributions.largest_norms(model, data).tolist() == raw.amax((1, 2)).tolist()
    scaled = distributions.normalised_norms(model, data)
    assert (scaled.min(), scaled.max()) == (0, 1)
    torch.testing.assert_close(torch.from_numpy(scaled) * raw.amax((1, 2), keepdim=True), raw)


def test_histogram_by_hand():
    edges = np.array([0.0, 0.5, 1.0])
    frame = distributions.histogram({"a": [np.array([0.1, 0.2, 0.7, 0.8]), np.array([0.1, 0.2, 0.3, 2.0])]}, edges)
    assert frame["density"].tolist() == pytest.approx([(1.0 + 1.5) / 2, (1.0 + 0.0) / 2])
    assert frame["spread"].tolist() == pytest.approx([np.std([1.0, 1.5], ddof=1), np.std([1.0, 0.0], ddof=1)])
    single = distributions.histogram({"a": [np.array([0.1])]}, edges)
    assert single["spread"].isna().all()
    axis = plots.histograms({"F": frame.assign(line="ours")}, {"F": "norm"}, plots.METHOD_COLOURS).axes[0]
    assert (axis.get_title(), axis.get_xlabel()) == ("F", "norm")


def test_pictures_are_the_first_of_each_class():
    assert one_per_class(Squares(), 2) == [0, 4]


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
