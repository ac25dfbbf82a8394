import pytest
import torch

from wsolkit.erasing import AttentiveDropout, attended_cells

FEATURES = torch.tensor([[[[1.0, 0.5], [0.9, 0.0]], [[3.0, 1.5], [2.5, 0.0]]]])
"""Channel means 2, 1, 1.7, 0: relative to the largest 1, 0.5, 0.85, 0."""


def seeded(seed: int):
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.rand(shape, generator=generator)


def test_attended_cells_by_hand():
    assert attended_cells(FEATURES, 0.8).tolist() == [[[[True, False], [True, False]]]]
    assert attended_cells(FEATURES, 0.5).tolist() == [[[[True, False], [True, False]]]]
    assert attended_cells(FEATURES, 0.49).tolist() == [[[[True, True], [True, False]]]]
    assert not attended_cells(torch.zeros(1, 2, 2, 2), 0.8).any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_diverged_image_is_not_erased_and_the_others_are(value):
    both = torch.cat([FEATURES, FEATURES])
    both[0, 0, 1, 1] = value
    assert attended_cells(both, 0.8).flatten(1).sum(1).tolist() == [0, 2]


def test_certain_dropout_zeroes_exactly_the_attended_cells_over_all_channels():
    before = FEATURES.clone()
    dropped = AttentiveDropout(0.8, 1.0)(FEATURES)
    assert dropped.tolist() == [[[[0.0, 0.5], [0.0, 0.0]], [[0.0, 1.5], [0.0, 0.0]]]]
    assert (before == FEATURES).all()


def test_dropout_is_the_identity_in_evaluation_and_at_probability_zero():
    assert AttentiveDropout(0.8, 1.0).eval()(FEATURES) is FEATURES
    assert (AttentiveDropout(0.8, 0.0)(FEATURES) == FEATURES).all()


def test_dropout_is_seeded_and_drops_about_the_right_share():
    features = torch.ones(50, 3, 10, 10)
    first, again, other = (AttentiveDropout(0.5, 0.3)(features, seeded(seed)) for seed in (5, 5, 6))
    assert (first == again).all()
    assert (first != other).any()
    # 5,000 cells: the share has a deviation of 0.0065.
    assert (first == 0).float().mean().item() == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("pair", [(80, 0.5), (0.8, 50), (-0.1, 0.5), (0.8, float("nan")), ("0.8", 0.5), (None, 0.5)])
def test_shares_out_of_range_are_refused_with_their_value(pair):
    with pytest.raises(ValueError, match=r"drop_(threshold|prob) = "):
        AttentiveDropout(*pair)
    with pytest.raises(ValueError, match=r"\(B, C, H, W\), received \(2, 2\)"):
        attended_cells(FEATURES[0, 0], 0.8)
