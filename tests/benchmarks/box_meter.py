"""Time a map of `BoxMeter` against the plain reference, as ratios in one run."""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests import reference  # noqa: E402 - found once the project's folder is on the path
from wsolkit.maps import min_max, score_map  # noqa: E402
from wsolkit.metrics import BoxMeter, components  # noqa: E402
from wsolkit.system.processes import cores  # noqa: E402

SIZE, STEP = 224, 0.001
TRUTH = np.array([[40, 50, 160, 190]])

COLD = """
import time, numpy as np
start = time.perf_counter()
from wsolkit.metrics import components
imported = time.perf_counter()
components.best_ious(np.zeros((1, 8, 8), np.uint8), [np.array([[0, 0, 2, 2]])])
print(f"import {imported - start:.1f} s, first map {time.perf_counter() - imported:.1f} s")
"""


def cams(count: int) -> np.ndarray:
    """Random 14x14 maps, bicubic to 224x224: as smooth as CAMs."""
    cells = torch.rand((count, 14, 14), generator=torch.Generator().manual_seed(0))
    return score_map(cells, SIZE).numpy()


def noise(count: int, sigma: float) -> np.ndarray:
    """White noise, smoothed by a Gaussian."""
    white = np.random.default_rng(0).random((count, SIZE, SIZE))
    return min_max(torch.from_numpy(np.stack([cv2.GaussianBlur(one, (0, 0), sigma) for one in white]))).numpy()


def salt_and_pepper(count: int) -> np.ndarray:
    """A grey map with black and white pixels all over."""
    return np.random.default_rng(0).choice([0.0, 0.5, 1.0], (count, SIZE, SIZE), p=[0.1, 0.8, 0.1])


MAPS: dict[str, Callable[[int], np.ndarray]] = {
    "bicubic CAMs": cams,
    "smoothed noise, sigma 6": lambda count: noise(count, 6),
    "smoothed noise, sigma 2": lambda count: noise(count, 2),
    "salt and pepper": salt_and_pepper,
    "white noise": lambda count: np.random.default_rng(0).random((count, SIZE, SIZE)),
}


def seconds_a_map(maps: np.ndarray, threads: int, rounds: int) -> float:
    """The fastest of several rounds, in seconds a map, by the meter as anybody calls it."""
    times = []
    for _ in range(rounds):
        meter = BoxMeter(threshold_step=STEP, threads=threads)
        start = time.perf_counter()
        meter.update(maps, [TRUTH] * len(maps))
        times.append(time.perf_counter() - start)
    return min(times) / len(maps)


def plain_seconds_a_map(maps: np.ndarray) -> float:
    """The same by the plain reference; also makes sure that both agree."""
    meter = BoxMeter(threshold_step=STEP)
    start = time.perf_counter()
    plain = [reference.best_ious(one, TRUTH, meter.thresholds, "all") for one in maps]
    seconds = (time.perf_counter() - start) / len(maps)
    assert meter.update(maps, [TRUTH] * len(maps)).tolist() == plain, "the meter and the reference disagree"
    return seconds


def main() -> None:
    """Print one line a kind of map, then the gain of several cores, then the cold start."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="the fastest counts")
    parser.add_argument("--plain-maps", type=int, default=2, help="maps that the plain reference is timed on")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    components.best_ious(np.zeros((1, 8, 8), np.uint8), [TRUTH])
    print(f"maps of {SIZE}x{SIZE}, {round(1 / STEP)} thresholds, one core")
    for name, make in MAPS.items():
        maps = make(20)
        ours, plain = seconds_a_map(maps, 1, options.rounds), plain_seconds_a_map(maps[: options.plain_maps])
        print(f"{name:24} {ours * 1e3:7.2f} ms a map, plain {plain * 1e3:8.1f} ms: {plain / ours:6.0f} times as fast")
    maps = cams(200)
    one, many = (seconds_a_map(maps, threads, options.rounds) for threads in (1, cores()))
    print(f"{cores()} cores on a batch of {len(maps)}: {one / many:.2f} times as fast as one")
    with tempfile.TemporaryDirectory() as cache:
        for state in ("compiling", "compiled before"):
            done = subprocess.run(
                [sys.executable, "-c", COLD],
                env={"PATH": "", "NUMBA_CACHE_DIR": cache},
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            )
            print(f"cold start, {state}: {done.stdout.strip()}")


if __name__ == "__main__":
    main()
