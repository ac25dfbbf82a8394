import numpy as np
import pytest

from wsolkit.study.statistics import paired_effect


def test_identical_methods_have_no_effect():
    hits = np.random.default_rng(0).random((3, 50)) < 0.5
    effect = paired_effect(hits, hits)
    assert (effect.difference, effect.low, effect.high) == (0, 0, 0)
    assert not effect.clear


def test_a_certain_gain_has_no_width():
    effect = paired_effect(np.ones((2, 30)), np.zeros((2, 30)))
    assert (effect.difference, effect.low, effect.high) == pytest.approx((1, 1, 1), rel=1e-12)
    assert effect.clear


def test_pairing_takes_out_what_both_share():
    rng = np.random.default_rng(1)
    hard = rng.random((1, 400)) < 0.5
    baseline = np.repeat(hard, 3, 0)
    ours = baseline | (rng.random((3, 400)) < 0.1)
    paired = paired_effect(ours, baseline)
    shuffled = paired_effect(ours, rng.permuted(baseline, axis=1))
    assert paired.clear
    assert paired.high - paired.low < (shuffled.high - shuffled.low) / 2


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Images are drawn from a population with a mean gain of 0.1; seeds do not differ."""
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(200):
        gain = np.repeat(rng.normal(0.1, 1, (1, 200)), 3, 0)
        effect = paired_effect(gain, np.zeros_like(gain), resamples=400, seed=trial)
        covered += effect.low <= 0.1 <= effect.high
    assert 180 <= covered <= 199


def test_seeds_that_disagree_widen_the_interval():
    images = np.zeros((3, 100))
    agree, disagree = images + 0.2, images + np.array([[0.0], [0.2], [0.4]])
    narrow, wide = (paired_effect(values, images) for values in (agree, disagree))
    assert narrow.difference == pytest.approx(wide.difference)
    assert wide.high - wide.low > 0.2 > narrow.high - narrow.low


def test_what_does_not_pair_up_is_refused():
    with pytest.raises(ValueError, match="one shape"):
        paired_effect(np.zeros((3, 10)), np.zeros((2, 10)))
