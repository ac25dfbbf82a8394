"""The kit's meters as torchmetrics' metrics."""

import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection

from wsolkit.metrics import BoxMeter, PixelMeter
from wsolkit.metrics.torch_metrics import BoxMetric, PixelMetric


@pytest.fixture
def judged(generator):
    """Score maps, boxes and masks of twelve images."""
    maps = torch.rand((12, 20, 24), generator=generator)
    corners = torch.randint(0, 10, (12, 1, 2), generator=generator)
    boxes = [each.numpy() for each in torch.cat([corners, corners + 8], 2)]
    return maps, boxes, torch.randint(0, 2, (12, 20, 24), generator=generator)


def test_metrics_give_what_meters_give_and_processes_add_up(judged):
    maps, boxes, masks = judged
    meter, pixels = BoxMeter(threshold_step=0.05), PixelMeter(0.05)
    meter.update(maps, boxes)
    pixels.update(maps, masks)
    both = [BoxMetric(threshold_step=0.05) for _ in range(2)]
    found = [PixelMetric(0.05) for _ in range(2)]
    for number, part in enumerate((slice(0, 5), slice(5, 12))):
        both[number].update(maps[part], boxes[part])
        found[number].update(maps[part], masks[part])
    merged, area = BoxMetric(threshold_step=0.05), PixelMetric(0.05)
    for metric in both:
        merged.merge_state(metric)
    for metric in found:
        area.merge_state(metric)
    expected = meter.compute()
    values = merged.compute()
    assert float(values["max_box_acc_v2"]) == pytest.approx(expected["max_box_acc_v2"], rel=1e-6)
    assert float(values["max_box_acc_0.3"]) == pytest.approx(expected["max_box_acc"][0.3], rel=1e-6)
    assert float(area.compute()["pxap"]) == pytest.approx(pixels.compute()["pxap"], rel=1e-6)
    merged.reset()
    with pytest.raises(ValueError, match="No image"), pytest.warns(UserWarning, match="compute"):
        merged.compute()


def test_forward_gives_the_batch_and_keeps_the_whole(judged):
    maps, boxes, _ = judged
    metric, alone = BoxMetric(threshold_step=0.05), BoxMeter(threshold_step=0.05)
    metric.update(maps[:5], boxes[:5])
    alone.update(maps[5:], boxes[5:])
    batch = metric(maps[5:], boxes[5:])
    assert float(batch["max_box_acc_v2"]) == pytest.approx(alone.compute()["max_box_acc_v2"], rel=1e-6)
    assert int(metric.images) == 12


def test_forward_keeps_earlier_images_when_a_batch_is_refused(judged):
    maps, boxes, masks = judged
    metric, area = BoxMetric(threshold_step=0.05), PixelMetric(0.05)
    metric(maps[:5], boxes[:5])
    area(maps[:5], masks[:5])
    for call in (
        lambda: metric(maps[5:] + 1, boxes[5:]),
        lambda: metric(maps[5:], [each[:, ::-1] for each in boxes[5:]]),
        lambda: area(maps[5:], masks[5:] * 0),
    ):
        with pytest.raises(ValueError, match="xpected|foreground"):
            call()
    assert int(metric.images) == 5
    metric(maps[5:].numpy(), boxes[5:])
    area(maps[5:].bfloat16(), masks[5:].bool())
    whole = BoxMeter(threshold_step=0.05)
    whole.update(maps, boxes)
    assert float(metric.compute()["max_box_acc_v2"]) == pytest.approx(whole.compute()["max_box_acc_v2"], rel=1e-6)
    assert int(area.foreground.sum()) == int(masks.sum())


def test_a_collection_takes_two_protocols_for_two(judged):
    """A first batch of single blobs, on which they agree."""
    protocols = {"all": {}, "largest": {"contours": "largest"}, "strict": {"iou_thresholds": (0.4, 0.6, 0.8)}}
    collection = MetricCollection({name: BoxMetric(threshold_step=0.05, **each) for name, each in protocols.items()})
    maps, boxes, _ = judged
    blobs = torch.zeros(5, 20, 24)
    blobs[:, 4:8, 4:8] = 1
    batches = (blobs, [np.array([[4, 4, 8, 8]])] * 5), (maps, boxes)
    for batch in batches:
        collection.update(*batch)
    found = collection.compute()
    for name, each in protocols.items():
        meter = BoxMeter(threshold_step=0.05, **each)
        for batch in batches:
            meter.update(*batch)
        assert float(found[f"{name}_max_box_acc_v2"]) == pytest.approx(meter.compute()["max_box_acc_v2"], rel=1e-6)
