import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import reference
from wsolkit.maps import score_map
from wsolkit.metrics import BoxMeter, PixelMeter, components

STEPS = (0.001, 0.005, 0.01)
"""Threshold steps in use: 1,000, 200 and 100 thresholds."""


def smooth(rng, height, width):
    cells = torch.from_numpy(rng.random((1, int(rng.integers(1, 8)), int(rng.integers(1, 8)))))
    return score_map(cells, (height, width)).numpy()[0]


def blurred(rng, height, width):
    noise = cv2.GaussianBlur(rng.random((height, width)), (0, 0), rng.uniform(0.5, 3))
    return (noise - noise.min()) / max(np.ptp(noise), 1e-9)


def rings(rng, height, width):
    """Rings around islands, at the border too, where a ring is no ring any more."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - rng.uniform(0, height), x - rng.uniform(0, width)) + rng.uniform(0, 3)
    return (np.sin(distance * rng.uniform(0.5, 3)) + 1) / 2 * (rng.random((height, width)) > 0.03)


def at_the_border(rng, height, width):
    image = np.zeros((height, width))
    image[: int(rng.integers(1, height + 1)), : int(rng.integers(1, width + 1))] = rng.random()
    image[int(rng.integers(height)) :, int(rng.integers(width)) :] = rng.random()
    image[int(rng.integers(height)), int(rng.integers(width))] = rng.random()
    return image


MAPS = {
    "smooth": smooth,
    "blurred": blurred,
    "noisy": lambda rng, height, width: rng.random((height, width)),
    "binary": lambda rng, height, width: (rng.random((height, width)) < rng.random()) * 1.0,
    "constant": lambda rng, height, width: np.full((height, width), rng.choice([0.0, rng.random(), 1.0])),
    "plateaus": lambda rng, height, width: np.round(blurred(rng, height, width) * 4) / 4,
    "rings": rings,
    "salt and pepper": lambda rng, height, width: rng.choice([0, 0.5, 1], (height, width), p=[0.2, 0.6, 0.2]),
    "at the border": at_the_border,
    "low": lambda rng, height, width: rng.random((height, width)) * 0.02,
}


def true_boxes(rng, height, width):
    count = int(rng.integers(1, 4))
    corners = np.sort(rng.integers(0, [width, height], (count, 2, 2)), axis=1)
    return corners.reshape(count, 4)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from([np.float32, np.float64]),
    contours=st.sampled_from(["all", "largest"]),
)
def test_the_meter_equals_tracing_every_threshold(height, width, seed, dtype, contours):
    rng = np.random.default_rng(seed)
    maps = [np.asarray(make(rng, height, width), dtype) for _ in range(2) for make in MAPS.values()]
    boxes = [true_boxes(rng, height, width) for _ in maps]
    meters = [BoxMeter(threshold_step=step, contours=contours) for step in STEPS]
    found = [meter.update(np.stack(maps), boxes) for meter in meters]
    for number, (score, truth) in enumerate(zip(maps, boxes, strict=True)):
        traced = {}
        for meter, ious in zip(meters, found, strict=True):
            image, levels = reference.cutoffs(score, meter.thresholds)
            for level in set(levels) - set(traced):
                traced[level] = reference.best_iou(image, level, truth, contours)
            assert ious[number].tolist() == [traced[level] for level in levels], list(MAPS)[number % len(MAPS)]


@pytest.mark.parametrize("kind", ["smooth", "rings", "salt and pepper"])
@pytest.mark.parametrize("contours", ["all", "largest"])
def test_large_maps_too(kind, contours):
    rng = np.random.default_rng(3)
    score, truth = MAPS[kind](rng, 150, 224), true_boxes(rng, 150, 224)
    meter = BoxMeter(threshold_step=0.02, contours=contours)
    plain = reference.best_ious(score, truth, meter.thresholds, contours)
    assert meter.update(score[None], [truth])[0].tolist() == plain


def test_every_binary_map_of_twelve_pixels():
    """All 4,096 maps of 3 x 4 pixels: every small shape of components and holes that there is."""
    images = (np.arange(2**12)[:, None] >> np.arange(12) & 1).reshape(-1, 3, 4).astype(np.uint8) * 255
    truth = np.array([[1, 0, 2, 1]])
    found = components.best_ious(images, [truth] * len(images))[:, 0]
    assert found.tolist() == [reference.best_iou(image, 0, truth, "all") for image in images]


def test_a_hole_has_the_box_of_the_foreground_around_it():
    image = np.full((9, 9), 200, np.uint8)
    image[3:6, 4:6] = 10
    truth = np.array([[3, 2, 7, 7]])
    assert components.best_ious(image[None], [truth])[0, 100] == 1.0
    assert components.best_ious(image[None], [truth])[0, 5] == reference.iou((0, 0, 8, 8), truth[0])


def test_threads_and_batches_change_nothing():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, 17, 13)).astype(np.uint8)
    boxes = [true_boxes(rng, 17, 13) for _ in images]
    alone = np.concatenate([components.best_ious(images[i : i + 1], boxes[i : i + 1]) for i in range(7)])
    for threads in (1, 2, 3, 16):
        assert (components.best_ious(images, boxes, threads) == alone).all()
    assert components.best_ious(images[:0], []).shape == (0, 256)


def test_inputs_are_left_as_they_were():
    images, boxes = np.arange(48, dtype=np.uint8).reshape(2, 4, 6), [np.array([[0, 0, 2, 2]])] * 2
    before = images.copy()
    components.best_ious(images, boxes)
    assert (images == before).all()


STREAM = """
import resource
import numpy as np
from wsolkit.metrics import BoxMeter
meter, rng = BoxMeter(threshold_step=0.001), np.random.default_rng(0)
maps, boxes = rng.random((500, 4, 4)), [np.array([[1, 1, 3, 3]])] * 500
for batch in range(102):
    if batch == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    meter.update(maps, boxes)
assert meter.compute()["n_images"] == 51000
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_fifty_thousand_maps_stream_through():
    """More maps take no more memory: kept IoUs of all thresholds would be 400 MB here."""
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", STREAM], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 20


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), step=st.sampled_from([0.001, 0.01, 0.07, 0.3, 0.5]), float32=st.booleans())
def test_pxap_equals_the_plain_histogram(seed, step, float32):
    rng = np.random.default_rng(seed)
    # Scores on the edges of the bins, beside them and between them.
    edges = rng.choice(np.append(np.arange(0, 1, step), 1.0), (3, 12, 12))
    maps = np.where(rng.random(edges.shape) < 0.5, edges, np.nextafter(edges, rng.random(edges.shape))).clip(0, 1)
    maps = maps.astype(np.float32) if float32 else maps
    masks = rng.choice([0, 1, 255], maps.shape, p=[0.6, 0.3, 0.1])
    masks[0, 0, 0] = 1
    meter = PixelMeter(step)
    meter.update(maps, masks)
    assert meter.compute()["pxap"] == reference.pxap(maps, masks, step)
