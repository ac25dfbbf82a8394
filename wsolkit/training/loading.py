"""Training and evaluation batches from decoded images: crop, flip, normalise (the benchmark's protocol)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Generator, Tensor

from wsolkit.datasets import Decoded, OpenedDataset
from wsolkit.methods import Pairs
from wsolkit.system.devices import send

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

#: Streams of randomness: order, crops and flips; whatever a method draws; and which image is whose partner. So all
#: methods see the same batches.
BATCHES, METHOD, PARTNERS = 0, 1, 2

#: Top and left of a crop in pixels, and whether it is mirrored.
Window = tuple[int, int, bool]


@dataclass(frozen=True)
class Loaded:
    """A process's share of a batch.

    Attributes:
        images: (B, 3, H, W) float32, normalised, channels last in memory.
        labels: (B,) int64, class indices.
        mine: which images of the batch these are.
        size: images of the whole batch, over all processes.
        partners: of each image another one of the whole batch, as images and labels; None unless they are asked for.
    """

    images: Tensor
    labels: Tensor
    mine: range
    size: int
    partners: tuple[Tensor, Tensor] | None = None


def normalise(images: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Pixels to network input.

    Args:
        images: (B, H, W, 3) uint8, RGB; not modified.
        device: where the result goes.

    Returns:
        (B, 3, H, W) float32 by ImageNet's mean and deviation, channels last in memory.
    """
    mean, std = (send(torch.tensor(each)[:, None, None] * 255, device) for each in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = send(torch.from_numpy(np.array(images)), device).permute(0, 3, 1, 2).float()
    return pixels.sub_(mean).div_(std)


def training_batches(
    data: OpenedDataset,
    batch_size: int,
    crop_size: int,
    generator: Generator,
    device: torch.device | str,
    rank: int = 0,
    world: int = 1,
    pairs: Pairs | None = None,
    partners: Generator | None = None,
) -> Iterator[Loaded]:
    """One epoch in random order, each image cropped and flipped at random.

    Args:
        data: the images, no smaller than the crop.
        batch_size: images a batch. The last batch is left out if it has a single image, because batch normalisation
            needs two, or fewer images than there are processes.
        crop_size: side of the random crop in pixels.
        generator: source of all randomness of the epoch, on the CPU.
        device: where batches go.
        rank: number of this process among those that share every batch.
        world: how many those are; each gets its `share` of the same batches, with the same crops.
        pairs: ``"class"`` puts images of a class `side_by_side`; ``"batch"`` gives every image a partner in its batch.
        partners: source of the permutations that do the latter, on the CPU.

    Yields:
        The batches, or this process's share of each.
    """
    order = torch.randperm(len(data), generator=generator).numpy()
    if pairs == "class":
        order = side_by_side(order, data.labels)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        if len(chosen) == 1 < len(order) or len(chosen) < world:
            return
        size = len(chosen)
        windows = draw_windows(size, data.size - crop_size + 1, generator)
        mine = share(range(size), rank, world)

        def load(which: Sequence[int], chosen=chosen, windows=windows) -> tuple[Tensor, Tensor]:
            numbers = chosen[which]
            images = crop(data.images, numbers, crop_size, [windows[each] for each in which])
            return normalise(images, device), send(torch.from_numpy(data.labels[numbers]), device)

        others = None
        if pairs == "batch":
            others = load(torch.randperm(size, generator=partners).tolist()[mine.start : mine.stop])
        yield Loaded(*load(list(mine)), mine, size, others)


def side_by_side(order: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Numbers of images with those of a class in pairs, otherwise in the order in which they were; single ones last."""
    waiting: dict[int, int] = {}
    paired = []
    for number in order.tolist():
        if (other := waiting.pop(label := int(labels[number]), None)) is None:
            waiting[label] = number
        else:
            paired += [other, number]
    return np.array([*paired, *waiting.values()])


def share(images: range, number: int, of: int) -> range:
    """One of several nearly equal shares of a range of images."""
    return range(*(images.start + len(images) * each // of for each in (number, number + 1)))


def draw_windows(count: int, positions: int, generator: Generator) -> list[Window]:
    """A random window for each image: one of ``positions`` from top and left, mirrored with probability one half."""
    corners = torch.randint(positions, (count, 2), generator=generator).tolist()
    mirrored = (torch.rand(count, generator=generator) < 0.5).tolist()
    return [(y, x, flip) for (y, x), flip in zip(corners, mirrored, strict=True)]


def crop(
    images: np.ndarray | Decoded, numbers: Sequence[int] | np.ndarray, size: int, windows: Sequence[Window]
) -> np.ndarray:
    """Cut a window out of each of some images; nothing else of them is read.

    Args:
        images: (N, S, S, 3) uint8, S >= size; not modified. May be mapped into memory from a file.
        numbers: (B,) which images.
        size: side of the crop in pixels.
        windows: one for each number.

    Returns:
        (B, size, size, 3) uint8, in the order of the numbers.
    """
    # Slicing a memory map itself costs more than the copy.
    plain = images if isinstance(images, Decoded) else np.asarray(images)
    crops = np.empty((len(numbers), size, size, images.shape[3]), np.uint8)
    # The images may lie on disk, where reading in order is faster.
    for position in np.argsort(numbers):
        y, x, flip = windows[position]
        window = plain[numbers[position], y : y + size, x : x + size]
        if flip:
            cv2.flip(window, 1, dst=crops[position])
        else:
            crops[position] = window
    return crops


def epoch_generator(seed: int, epoch: int, stream: int = BATCHES) -> Generator:
    """A generator that depends on its arguments alone, so that a resumed epoch repeats exactly.

    Args:
        seed: of the run.
        epoch: counted from 1.
        stream: :data:`BATCHES`, :data:`METHOD` or :data:`PARTNERS`.
    """
    state = np.random.SeedSequence([seed, epoch, stream]).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state >> np.uint64(1)))
