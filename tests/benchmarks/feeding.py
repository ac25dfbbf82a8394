"""Images a second that reach the network: JPEGs decoded each epoch, against the cache of decoded images.

Draws photographs-like JPEGs of 500x375, reads them both ways with as many threads, crops and flips included, checks
that the pixels are the same, and prints both speeds and their ratio. Normalising is the device's work and left out.

Run: python tests/benchmarks/feeding.py [--images N] [--threads N] [--rounds N]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from wsolkit.datasets import CachedDataset, Sample, WsolDataset
from wsolkit.system.processes import cores
from wsolkit.training.loading import crop, draw_windows

WIDTH, HEIGHT, RESIZED, CROPPED, BATCH = 500, 375, 256, 224, 64


class Jpegs(WsolDataset):
    """JPEG files, decoded and resized at every look."""

    name, split, size, classes = "jpegs", "train-weaksup", RESIZED, ("any",)

    def __init__(self, folder: Path, count: int):
        """Draw them: smooth colours with some noise compress like photographs."""
        self.paths = [folder / f"{number}.jpg" for number in range(count)]
        self.labels, self.fingerprint = np.zeros(count, np.int64), str(count)
        rng = np.random.default_rng(0)
        for path in self.paths:
            coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((WIDTH, HEIGHT), Image.BICUBIC)
            noisy = np.asarray(coarse, np.int16) + rng.normal(0, 8, (HEIGHT, WIDTH, 3)).astype(np.int16)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)

    def __getitem__(self, index: int) -> Sample:
        """Decode one."""
        with Image.open(self.paths[index]) as opened:
            image = np.asarray(opened.convert("RGB").resize((RESIZED, RESIZED), Image.BILINEAR))
        return Sample(image, 0, np.zeros((0, 4), np.int64), None, self.paths[index].name)


Read = Callable[[np.ndarray], tuple[np.ndarray, Sequence[int]]]
"""Gives, for numbers of images, an array that holds them, and where they are in it."""


def epoch(read: Read, count: int, seed: int) -> tuple[float, int]:
    """Read one epoch in random order with crops; images a second, and a sum of all pixels in their order."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(count, generator=generator).numpy()
    total, start = 0, time.perf_counter()
    for begin in range(0, count, BATCH):
        chosen = order[begin : begin + BATCH]
        windows = draw_windows(len(chosen), RESIZED - CROPPED + 1, generator)
        batch = crop(*read(chosen), CROPPED, windows)
        total = (total * 31 + int(batch[:, ::16, ::16].sum())) % 2**61
    return count / (time.perf_counter() - start), total


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.threads) as pool:
        jpegs = Jpegs(Path(folder), arguments.images)
        start = time.perf_counter()
        cached = CachedDataset(jpegs, Path(folder) / "cache")
        print(f"filling the cache: {arguments.images / (time.perf_counter() - start):.0f} images/s")

        def decoded(chosen: np.ndarray) -> np.ndarray:
            return np.stack([sample.image for sample in pool.map(jpegs.__getitem__, chosen)])

        ways = {
            "decoded each epoch": lambda chosen: (decoded(chosen), range(len(chosen))),
            "from the cache": lambda chosen: (cached.images, chosen),
        }
        speeds = {way: [] for way in ways}
        for number in range(arguments.rounds):
            seen = set()
            for way, read in ways.items():
                speed, total = epoch(read, arguments.images, number)
                speeds[way].append(speed)
                seen.add(total)
            if len(seen) > 1:
                raise SystemExit("the pixels differ")
        for way, found in speeds.items():
            print(f"{way:20} {statistics.median(found):9.0f} images/s")
        ratios = [b / a for a, b in zip(*speeds.values(), strict=True)]
        print(f"ratio {statistics.median(ratios):.1f}, pixels equal, {arguments.threads} threads")


if __name__ == "__main__":
    main()
