import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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


@pytest.mark.parametrize("contours", ["all", "largest"])
def test_a_batch_without_images_adds_nothing(contours):
    meter = BoxMeter(threshold_step=0.1, contours=contours)
    meter.update(blob()[None], [TRUE])
    assert meter.update(torch.zeros(0, 20, 20), []).shape == (0, 10)
    assert meter.compute()["n_images"] == 1


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
        (np.zeros((1, 40, 50)), [np.array([[49, 29, 20, 10]])], "49, 29, 20, 10 of image 0"),
        (np.zeros((2, 20, 20)), [TRUE, np.array([[4, 6, 4, 6], [12, 15, 10, 18]])], "12, 15, 10, 18 of image 1"),
        (np.zeros((1, 16, 13)), [TRUE], "13 wide and 16 high"),
        (np.zeros((1, 20, 20)), [-TRUE[:, [2, 3, 0, 1]]], "inside its map"),
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


def test_pixel_meter_takes_bool_masks_and_refuses_other_values():
    maps, masks = np.random.default_rng(0).random((2, 5, 5)), np.random.default_rng(1).random((2, 5, 5)) < 0.5
    rates = []
    for each in (masks, torch.from_numpy(masks), masks.astype(np.uint8)):
        meter = PixelMeter()
        meter.update(maps, each)
        rates.append(meter.compute()["pxap"])
    assert len(set(rates)) == 1
    with pytest.raises(ValueError, match="255"):
        PixelMeter().update(np.zeros((1, 2, 2)), np.full((1, 2, 2), 7))
    for shape in ((1, 3, 3), (2, 2), (1, 1, 2, 2)):
        with pytest.raises(ValueError, match="shape"):
            PixelMeter().update(np.zeros((1, 2, 2)), np.zeros(shape))
    meter.reset()
    meter.update(maps, masks * 255)
    with pytest.raises(ValueError, match="255 means ignored"):
        meter.compute()


@settings(max_examples=100, deadline=None)
@given(corners=st.lists(st.integers(-3, 12), min_size=4, max_size=4))
def test_boxes_are_taken_exactly_if_they_lie_in_the_map_and_its_border(corners):
    x0, y0, x1, y1 = corners
    meter = BoxMeter(threshold_step=0.5)
    if 0 <= x0 <= x1 <= 9 and 0 <= y0 <= y1 <= 7:
        assert meter.update(np.ones((1, 7, 9)), [np.array([corners])]).max() <= 1
    else:
        with pytest.raises(ValueError, match="image cat"):
            meter.update(np.ones((1, 7, 9)), [np.array([corners])], ["cat"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_tensors_of_every_float_type_are_judged(dtype):
    score = torch.from_numpy(blob()[None]).to(dtype).requires_grad_()
    assert BoxMeter(threshold_step=0.5).update(score, [torch.from_numpy(TRUE)]).tolist() == [[1.0, 1.0]]
    pixels = PixelMeter(0.5)
    pixels.update(score, blob()[None] > 0)
    assert pixels.compute()["pxap"] == 1
    logits = torch.tensor([[0.0, 1.0]], dtype=dtype)
    assert top_k_loc(torch.ones(1, dtype=dtype), logits, torch.tensor([1]), 1) == 1


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [1, -1]}, "from 0 to 2, received -1"),
        ({"labels": [3, 1]}, "received 3"),
        ({"labels": [1]}, r"one integer label for each image"),
        ({"labels": 1}, r"one integer label for each image"),
        ({"labels": [1.0, 1.0]}, "of float64"),
        ({"labels": [True, False]}, "of bool"),
        ({"logits": np.zeros(3)}, r"logits \(N, K\)"),
        ({"k": 0}, "k = 0"),
        ({"k": 1.5}, "k = 1.5"),
        ({"ious": np.array([[0.6], [0.4]])}, r"received shape \(2, 1\)"),
        ({"ious": np.array([0.6])}, r"received shape \(1,\)"),
        ({"ious": np.array([0.6, np.nan])}, "NaN"),
        ({"ious": np.array([0.6, 40.0])}, "in .0, 1."),
        ({"ious": np.zeros(0), "logits": np.zeros((0, 3)), "labels": np.zeros(0, int)}, "0 images"),
    ],
)
def test_top_k_loc_refuses_what_does_not_fit(changes, message):
    fitting = {"ious": np.array([0.6, 0.4]), "logits": np.eye(2, 3), "labels": [0, 1], "k": 1}
    assert top_k_loc(**fitting) == 0.5
    with pytest.raises(ValueError, match=message):
        top_k_loc(**{**fitting, **changes})
