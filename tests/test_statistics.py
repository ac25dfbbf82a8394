from pathlib import Path

import numpy as np
import pytest

from tests import interval_coverage
from wsolkit.study.claims import judge
from wsolkit.study.statistics import CONFIDENCE, confidence_at, half_width, looks, paired_effect

DOCS = Path(__file__).parents[1] / "docs" / "statistics.md"


def test_identical_methods_have_no_effect():
    hits = np.random.default_rng(0).random((3, 50)) < 0.5
    effect = paired_effect(hits, hits)
    assert (effect.difference, effect.low, effect.high) == (0, 0, 0)
    assert not effect.clear


def test_a_certain_gain_has_no_width():
    effect = paired_effect(np.ones((2, 30)), np.zeros((2, 30)))
    assert (effect.difference, effect.low, effect.high) == pytest.approx((1, 1, 1), rel=1e-12)
    assert effect.clear


def test_an_interval_by_hand():
    """Three seeds with means 1, 2, 3 and no difference between images: 2 +- t(2) * 1 / sqrt(3)."""
    effect = paired_effect(np.array([[1.0], [2.0], [3.0]]) + np.zeros((3, 4)), np.zeros((3, 4)))
    assert effect.high - 2 == pytest.approx(4.302653 / 3**0.5)
    assert effect.low == pytest.approx(4 - effect.high)


def test_the_interval_of_a_mean_by_hand():
    half = half_width(np.array([2.0, 2.0, np.nan]), np.array([3, 12, 1]))
    assert half == pytest.approx([4.3027 * 2 / 3**0.5, 2.2010 * 2 / 12**0.5, 0.0], rel=1e-4)


def test_images_count_where_seeds_agree():
    """Two seeds alike, images 0 and 2 in turn: 1 +- t(7) * sqrt(8 / 7) / sqrt(8)."""
    effect = paired_effect(np.tile([0.0, 2.0], (2, 4)), np.zeros((2, 8)))
    assert effect.high - 1 == pytest.approx(2.364624 * (8 / 7) ** 0.5 / 8**0.5)


def test_one_seed_shows_nothing_of_the_chance_between_trainings():
    effect = paired_effect(np.ones((1, 30)), np.zeros((1, 30)))
    assert (effect.difference, effect.low, effect.high) == (1, -np.inf, np.inf)
    assert not effect.clear


def test_pairing_takes_out_what_both_share():
    rng = np.random.default_rng(1)
    hard = rng.random((1, 400)) < 0.5
    baseline = np.repeat(hard, 3, 0)
    ours = baseline | (rng.random((3, 400)) < 0.1)
    paired = paired_effect(ours, baseline)
    shuffled = paired_effect(ours, rng.permuted(baseline, axis=1))
    assert paired.clear
    assert paired.high - paired.low < (shuffled.high - shuffled.low) / 2


def test_what_does_not_pair_up_is_refused():
    with pytest.raises(ValueError, match="one shape"):
        paired_effect(np.zeros((3, 10)), np.zeros((2, 10)))


def test_intervals_cover_and_the_docs_say_how_often():
    lines = interval_coverage.table().splitlines()
    shares = [float(cell.split("%")[0]) for line in lines[2:] for cell in line.split("|")[2:-1]]
    error = 100 * (CONFIDENCE * (1 - CONFIDENCE) / interval_coverage.REPEATS) ** 0.5
    assert min(shares) > 100 * CONFIDENCE - 3 * error
    assert all(line in DOCS.read_text() for line in lines), (
        "run `python -m tests.interval_coverage`, and copy the table"
    )


def test_looks_grow_up_to_the_most():
    assert looks(3, 12) == [3, 6, 12]
    assert looks(3, 3) == looks(5, 3) == [3]
    assert looks(1, 5) == [1, 2, 4, 5]


def test_the_looks_together_spend_the_error_of_one():
    at = looks(3, 12)
    assert sum(1 - confidence_at(look, at) for look in range(len(at))) == pytest.approx(1 - CONFIDENCE)
    assert 1 - confidence_at(1, at, tests=10) == pytest.approx((1 - confidence_at(1, at)) / 10)
    assert confidence_at(0, [3]) == CONFIDENCE


@pytest.mark.parametrize(
    ("relation", "truth", "margin"), [("above", 0.0, 0.0), ("above", 5.0, 5.0), ("within", 2.0, 2.0)]
)
@pytest.mark.parametrize("world", ["seeds decide", "both alike"])
def test_a_claim_that_is_just_not_true_is_called_reproduced_no_more_often_than_asked(relation, truth, margin, world):
    """At every look up to twelve seeds; an interval of 95% leaves 2.5% on either side."""
    rng, at, repeats, called = np.random.default_rng(0), looks(3, 12), 600, 0
    for _ in range(repeats):
        gain = interval_coverage.draw(rng, interval_coverage.WORLDS[world], at[-1], truth)
        none = np.zeros_like(gain)
        for look, count in enumerate(at):
            effect = paired_effect(gain[:count], none[:count], confidence_at(look, at))
            if judge(effect, relation, margin) == "reproduced":
                called += 1
                break
    nominal = (1 - CONFIDENCE) / 2
    assert called / repeats < nominal + 2 * (nominal * (1 - nominal) / repeats) ** 0.5
    assert called > 0 or relation == "within"  # the rule does look


def test_a_claim_of_many_parts_is_refuted_no_more_often_than_asked():
    """Ten parts, all of them just true: none of the looks at any of them may often say the opposite."""
    rng, at, repeats, parts, refuted = np.random.default_rng(1), looks(3, 12), 150, 10, 0
    world = interval_coverage.WORLDS["seeds decide"]
    for _ in range(repeats):
        gains = [interval_coverage.draw(rng, world, at[-1], 0.0) for _ in range(parts)]
        refuted += any(
            judge(paired_effect(gain[:n], gain[:n] * 0, confidence_at(look, at, parts)), "above", 0.0)
            == "not reproduced"
            for look, n in enumerate(at)
            for gain in gains
        )
    assert refuted / repeats < 0.025 + 2 * (0.025 * 0.975 / repeats) ** 0.5
