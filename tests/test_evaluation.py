import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import tiny_recipe
from wsolkit import models
from wsolkit.datasets import CachedDataset, open_dataset
from wsolkit.maps import score_map
from wsolkit.metrics import IOU_THRESHOLDS, BoxMeter, PixelMeter
from wsolkit.models import GapClassifier
from wsolkit.training.evaluation import MAP_KINDS, centred_margin, evaluate, fixed_box_ious, localize, raw_maps


class Oracle(GapClassifier):
    """A classifier that cheats: its feature map is the red channel, its class weights are one and minus one."""

    def __init__(self):
        super().__init__()
        self.classifier = torch.nn.Linear(1, 2, bias=False)
        self.classifier.weight.data = torch.tensor([[1.0], [-1.0]])

    def before_drop_point(self, images):
        return images[:, :1] - images[:, :1].amin()

    def after_pooling(self, pooled):
        return pooled

    def former_part(self):
        return torch.nn.Identity()


class Squares(CachedDataset):
    """Bright squares on black, all of class 0 but the last."""

    def __init__(self, count: int = 5, size: int = 32):
        self.name, self.split, self.size, self.classes = "squares", "test", size, ("bright", "dark")
        self.images = np.zeros((count, size, size, 3), np.uint8)
        self._boxes = np.array([[4 + i, 5, 14 + i, 20] for i in range(count)])
        for image, (x0, y0, x1, y1) in zip(self.images, self._boxes, strict=True):
            image[y0:y1, x0:x1] = 255
        self.labels = np.array([0] * (count - 1) + [1])
        self._box_ends, self._masks, self._ids = np.arange(1, count + 1), [], [f"s{i}" for i in range(count)]


def test_a_perfect_localizer_is_right_where_its_map_shows_the_square():
    result = evaluate(Oracle(), Squares(), 0.1, map_kinds=tuple(MAP_KINDS), batch_size=2)
    # For class 1 the weight is negative: the similarity is nowhere positive, and the CAM is bright around the square,
    # which the benchmark finds all the same: a hole's contour counts, one pixel larger on each side.
    ious = result.images.set_index(["map", "image_id"])["iou_0.5"]
    assert ious["cam"].tolist()[:4] == [1.0] * 4
    assert ious["norm"].tolist() == [1.0] * 5
    assert ious["similarity"].tolist()[:4] == [1.0] * 4
    assert ious["similarity", "s4"] == 0
    assert ious["cam", "s4"] == pytest.approx(11 * 16 / (13 * 18))
    assert result.rate("gt_known_loc") == 1.0
    assert result.rate("gt_known_loc", "similarity") == pytest.approx(0.8)
    assert result.rate("gt_known_loc", "norm") == 1.0
    # The oracle says class 0 for every image, so the last is wrong by name.
    assert result.rate("top1_loc", "norm") == pytest.approx(0.8)
    assert result.rate("top5_loc", "norm") == 1.0
    assert result.rate("top1_cls") == pytest.approx(0.8)


def test_rates_agree_with_the_meter_and_the_batch_size_does_not_matter():
    data = CachedDataset(open_dataset("synthetic_birds", "test", 32, {"test": 12}))
    model = models.build("mini_vgg", 10, seed=1)
    result, again = (evaluate(model, data, 0.05, batch_size=size) for size in (5, 12))
    scores = np.stack(localize(model, data, list(range(12)))[0])
    meter = BoxMeter(threshold_step=0.05)
    ious = meter.update(scores, [data[i].boxes for i in range(12)])
    expected = meter.compute()
    assert result.rate("max_box_acc_v2") == pytest.approx(expected["max_box_acc_v2"], rel=1e-12)
    best = int(round(expected["best_threshold"][0.5] / 0.05))
    assert result.images["iou_0.5"].tolist() == pytest.approx(
        ious[:, best].tolist(), rel=1e-6
    )  # kept in single precision
    assert result.rates["value"].tolist() == again.rates["value"].tolist()
    assert len(result.curves) == 20 * 3
    assert result.curves["value"].max() <= 1


def test_top_k_needs_both_box_and_class():
    data = CachedDataset(open_dataset("synthetic_birds", "test", 32, {"test": 40}))
    result = evaluate(models.build("mini_vgg", 10, seed=2), data, 0.05)
    images = result.images
    right = images["iou_0.5"] >= 0.5
    for delta in (0.3, 0.7):
        assert result.rate(f"max_box_acc_{delta}") == pytest.approx((images[f"iou_{delta}"] >= delta).mean())
    assert result.rate("gt_known_loc") == pytest.approx(right.mean())
    assert result.rate("top1_loc") == pytest.approx((right & images["top1"]).mean())
    assert result.rate("top5_loc") == pytest.approx((right & images["top5"]).mean())


def test_masks_give_pxap():
    data = CachedDataset(open_dataset("synthetic_birds", "test", 32, {"test": 12}))
    model = models.build("mini_vgg", 10, seed=1)
    result = evaluate(model, data, 0.05, map_kinds=("cam", "norm"))
    for kind in ("cam", "norm"):
        scores = np.stack(localize(model, data, range(12), kind)[0])
        pixels = PixelMeter(0.05)
        pixels.update(scores, np.stack([data[i].mask for i in range(12)]))
        assert result.rate("pxap", kind) == pytest.approx(pixels.compute()["pxap"], rel=1e-9)
    with pytest.raises(KeyError, match="No rate 'top9_loc' of map 'norm'"):
        result.rate("top9_loc", "norm")


def test_masks_alone_are_enough(tmp_path):
    data = CachedDataset(open_dataset("synthetic_birds", "test", 32, {"test": 12}))
    whole = evaluate(models.build("mini_vgg", 10, seed=1), data, 0.05)
    data._boxes, data._box_ends = np.zeros((0, 4), np.int64), np.zeros(12, np.int64)
    result = evaluate(models.build("mini_vgg", 10, seed=1), data, 0.05)
    assert set(result.rates["metric"]) == {"pxap", "top1_cls", "top5_cls"}
    assert result.rate("pxap") == whole.rate("pxap")
    assert not [column for column in result.images if column.startswith("iou")]
    assert list(result.curves) == list(whole.curves)


def test_maps_of_one_pass_equal_those_of_three():
    data = CachedDataset(open_dataset("synthetic_birds", "test", 32, {"test": 12}))
    model = models.build("mini_vgg", 10, seed=1)
    together = evaluate(model, data, 0.05, map_kinds=tuple(MAP_KINDS), threads=2)
    alone = [evaluate(model, data, 0.05, map_kinds=(kind,)).rates for kind in MAP_KINDS]
    pd.testing.assert_frame_equal(together.rates, pd.concat(alone, ignore_index=True), check_exact=True)


def test_fixed_boxes_by_hand():
    data = Squares(count=2)
    whole = fixed_box_ious(data, 0.0)
    assert whole.tolist() == pytest.approx([11 * 16 / 32**2] * 2)
    centred = fixed_box_ious(data, 0.25)
    # 8..24 is 17 pixels wide; overlap with 4..14 x 5..20 is 7 x 13.
    assert centred[0] == pytest.approx(7 * 13 / (17 * 17 + 11 * 16 - 7 * 13))


def test_the_centred_margin_is_the_best_of_those_tried():
    data = CachedDataset(open_dataset("synthetic_birds", "train-fullsup", 64, {"train_fullsup": 40}))
    margin = centred_margin(data)
    best = (fixed_box_ious(data, margin) >= 0.5).mean()
    assert all((fixed_box_ious(data, step / 32) >= 0.5).mean() <= best for step in range(13))


def test_localize_gives_score_maps_and_the_box_of_the_largest_contour():
    scores, boxes = localize(Oracle(), Squares(), [0, 2], "cam", 0.5)
    assert boxes[0].tolist() == [[4, 5, 14, 20]]
    assert boxes[1].tolist() == [[6, 5, 16, 20]]
    assert scores[0].max() == 1


def test_a_run_is_judged_by_another_normalisation_of_its_own_cam(store):
    run = store.get(tiny_recipe())
    data, step = store.machine.open(run.recipe, "test"), run.recipe.threshold_step
    for kind in ("pas", "ivr"):
        report = store.rejudged(run, kind).report()
        assert set(report.rates["map"]) == {kind}
        raw = raw_maps(run.model(), data, range(len(data)))
        meter = BoxMeter(IOU_THRESHOLDS, step)
        meter.update(score_map(raw, data.size, kind), [data[number].boxes for number in range(len(data))])
        assert report.rate("max_box_acc_v2", kind) == pytest.approx(meter.compute()["max_box_acc_v2"])
    assert run.report().rate("gt_known_loc") == store.find(run.recipe).report().rate("gt_known_loc")
    assert store.rejudged(run, "pas") == run
