import numpy as np
import pytest
import torch

from wsolkit.metrics import BoxMeter, PixelMeter, in_top_k, threshold_range, top_k_loc


def blob(level: float = 1.0, x0: int = 4, y0: int = 6, x1: int = 13, y1: int = 15, size: int = 20) -> np.ndarray:
    score = np.zeros((size, size))
    score[y0 : y1 + 1, x0 : x1 + 1] = level
    return score


TRUE = np.array([[4, 6, 14, 16]])
"""The very box that `blob` yields, with the benchmark's ends."""


def test_a_perfect_map_scores_one_at_every_threshold():
    meter = BoxMeter(threshold_step=0.1)
    ious = meter.update(blob()[None], [TRUE])
    assert ious.tolist() == [[1.0] * 10]
    result = meter.compute()
    assert result["max_box_acc"] == {0.3: 1.0, 0.5: 1.0, 0.7: 1.0}
    assert result["max_box_acc_v2"] == 1.0
    assert result["best_threshold"] == {0.3: 0.0, 0.5: 0.0, 0.7: 0.0}
    assert result["curve"].shape == (10, 3)
    assert result["n_images"] == 1


def test_constant_and_empty_maps_give_the_zero_box():
    ious = BoxMeter(threshold_step=0.25).update(np.stack([np.zeros((20, 20)), np.ones((20, 20))]), [TRUE, TRUE])
    assert ious[0].tolist() == [0.0] * 4
    # A map of ones is foreground at every cut-off below 255: the whole image, 11 x 11 of 20 x 20 pixels.
    assert ious[1] == pytest.approx([121 / 400] * 4)


def test_nested_levels_by_hand():
    """A weak large square with a strong small one inside: each threshold has the box of its level."""
    score = np.maximum(blob(0.4, 2, 2, 17, 17), blob(1.0, 6, 6, 9, 9))
    meter = BoxMeter((0.5, 0.9), threshold_step=0.2)
    ious = meter.update(score[None], [np.array([[6, 6, 10, 10]])])
    assert ious[0] == pytest.approx([25 / 289, 25 / 289, 1, 1, 1])
    assert meter.compute()["best_threshold"] == {0.5: pytest.approx(0.4), 0.9: pytest.approx(0.4)}
    assert meter.compute()["curve"].tolist() == [[0, 0], [0, 0], [1, 1], [1, 1], [1, 1]]


def test_each_iou_threshold_has_its_own_best_score_threshold():
    first = np.maximum(blob(0.4, 2, 2, 17, 17), blob(1.0, 6, 6, 9, 9))
    second = np.maximum(blob(0.8, 2, 2, 17, 17), blob(1.0, 6, 6, 9, 9))
    meter = BoxMeter((0.3, 0.9), threshold_step=0.3)
    # Best at IoU 0.3 and at 0.9 differ: boxes 16 wide are right for the first truth, 4 wide for the second.
    meter.update(np.stack([first, second]), [np.array([[2, 2, 18, 18]]), np.array([[6, 6, 10, 10]])])
    curve = meter.compute()["curve"]
    assert curve.tolist() == [[0.5, 0.5], [0.5, 0.5], [0.0, 0.0], [0.5, 0.5]]
    assert meter.compute()["max_box_acc"] == {0.3: 0.5, 0.9: 0.5}


def test_all_contours_or_the_largest_alone():
    score = np.maximum(blob(1.0, 0, 0, 9, 9), blob(1.0, 14, 14, 17, 17))
    truth = [np.array([[14, 14, 18, 18]])]
    assert BoxMeter(threshold_step=0.5, contours="all").update(score[None], truth).tolist() == [[1.0, 1.0]]
    assert BoxMeter(threshold_step=0.5, contours="largest").update(score[None], truth).tolist() == [[0.0, 0.0]]


def test_any_true_box_counts():
    truths = np.array([[0, 0, 1, 1], [4, 6, 14, 16]])
    assert BoxMeter(threshold_step=0.5).update(blob()[None], [truths]).tolist() == [[1.0, 1.0]]


def test_batches_do_not_matter_and_reset_forgets():
    maps = np.stack([blob(), blob(0.5, 0, 0, 5, 5), np.zeros((20, 20))])
    whole, parts = BoxMeter(threshold_step=0.1), BoxMeter(threshold_step=0.1)
    whole.update(maps, [TRUE] * 3)
    for score in maps:
        parts.update(torch.from_numpy(score[None]), [TRUE])
    assert (whole.compute()["curve"] == parts.compute()["curve"]).all()
    whole.reset()
    whole.update(maps[:1], [TRUE])
    assert whole.compute()["max_box_acc_v2"] == 1.0


@pytest.mark.parametrize(
    ("maps", "boxes", "message"),
    [
        (np.full((1, 4, 4), np.nan), [TRUE], r"with NaN .1 of 1 maps, first: map 0"),
        (np.full((1, 4, 4), 1.5), [TRUE], "outside"),
        (np.zeros((4, 4)), [TRUE], r"\(N, H, W\)"),
        (np.zeros((1, 4, 4), np.uint8), [TRUE], "float score maps"),
        (np.zeros((2, 4, 4)), [TRUE], "2 score maps and boxes of 1"),
        (np.zeros((1, 4, 4)), [np.zeros((0, 4), int)], "k >= 1"),
        (np.zeros((1, 4, 4)), [np.zeros((1, 4))], "integer array"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_added(maps, boxes, message):
    meter = BoxMeter()
    with pytest.raises(ValueError, match=message):
        meter.update(maps, boxes)
    with pytest.raises(ValueError, match="No image"):
        meter.compute()


@pytest.mark.parametrize("arguments", [{"contours": "most"}, {"iou_thresholds": (0.0,)}, {"threshold_step": 1.0}])
def test_a_bad_protocol_is_refused(arguments):
    with pytest.raises(ValueError, match="xpected"):
        BoxMeter(**arguments)


def test_thresholds_stop_below_one():
    assert len(threshold_range(0.001)) == 1000
    assert threshold_range(0.25).tolist() == [0, 0.25, 0.5, 0.75]


def test_pxap_by_hand():
    """Bins of 0.5: [0, .5), [.5, 1), [1, 2), [2, 3]. From high to low, precision 1, 2/3, 3/5 at recall 1/3, 2/3, 1."""
    meter = PixelMeter(0.5)
    meter.update(np.array([[[1.0, 0.6, 0.6, 0.2, 0.1, 0.9]]]), np.array([[[1, 1, 0, 1, 0, 255]]]))
    result = meter.compute()
    assert result["pxap"] == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3 + 1 / 3 * 3 / 5, rel=1e-12)


def test_pxap_limits():
    mask = np.array([[[1, 1, 0, 0]]])
    for scores, expected in (([1.0, 1.0, 0.0, 0.0], 1.0), ([0.3, 0.3, 0.3, 0.3], 0.5)):
        meter = PixelMeter(0.01)
        meter.update(np.array([[scores]]), mask)
        assert meter.compute()["pxap"] == pytest.approx(expected, rel=1e-12)


def test_pixel_meter_batches_and_reset():
    generator = np.random.default_rng(0)
    maps, masks = generator.random((6, 5, 5)), generator.choice([0, 1, 255], (6, 5, 5))
    whole, parts = PixelMeter(0.05), PixelMeter(0.05)
    whole.update(maps, masks)
    for score, mask in zip(maps, masks, strict=True):
        parts.update(score[None], mask[None])
    assert whole.compute()["pxap"] == parts.compute()["pxap"]
    before = whole.compute()["pxap"]
    whole.reset()
    with pytest.raises(ValueError, match="foreground"):
        whole.compute()
    whole.update(maps, masks)
    assert whole.compute()["pxap"] == before


def test_pixel_meter_refuses_other_values():
    with pytest.raises(ValueError, match="255"):
        PixelMeter().update(np.zeros((1, 2, 2)), np.full((1, 2, 2), 7))
    with pytest.raises(ValueError, match="shape"):
        PixelMeter().update(np.zeros((1, 2, 2)), np.zeros((1, 3, 3)))


def test_in_top_k_and_top_k_loc_by_hand():
    logits = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
    labels = np.array([1, 1, 0])
    assert in_top_k(logits, labels, 1).tolist() == [True, False, False]
    assert in_top_k(logits, labels, 2).tolist() == [True, True, False]
    assert in_top_k(logits, labels, 5).tolist() == [True, True, True]
    equal = np.zeros((3, 3))
    assert in_top_k(equal, np.array([0, 1, 2]), 1).tolist() == [True, False, False]
    with pytest.raises(ValueError, match="NaN among the logits"):
        in_top_k(np.full((1, 3), np.nan), np.array([0]), 1)
    ious = np.array([0.5, 0.9, 0.49])
    assert top_k_loc(ious, logits, labels, 1) == pytest.approx(1 / 3)
    assert top_k_loc(ious, logits, labels, 2) == pytest.approx(2 / 3)
