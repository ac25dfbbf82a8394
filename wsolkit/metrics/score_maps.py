"""Anybody's score maps, in the WSOL benchmark's own format, judged by the benchmark's own rules.

A map is ``<image_id>.npy``, a two-dimensional float array in [0, 1] of any size, below one folder; the metadata folder
is the benchmark's (see `wsolkit.datasets.read_metadata`).
"""

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from wsolkit.datasets import Metadata, WsolDataset, read_mask, scale_boxes
from wsolkit.errors import DataError, WsolkitError
from wsolkit.metrics.checks import as_array, map_fault
from wsolkit.metrics.meters import IOU_THRESHOLDS, BoxMeter, Contours, PixelMeter
from wsolkit.system.atomic_files import atomic_file, writable_folder, write_file
from wsolkit.system.progress import progress

logger = logging.getLogger(__name__)

#: The entries of a result that go into a JSON file.
JSON_KEYS = ("contours", "threshold_step", "n_images", "max_box_acc", "best_threshold", "max_box_acc_v2", "pxap")

#: Maps held in memory at the same time.
CHUNK = 128

#: Broken maps of one kind that an error lists by name; the others are counted.
NAMED = 20

#: Pixels on a side below which a map is likely to be of a network's cells, not of an image's pixels.
FEW_CELLS = 32

MISSING, NOT_NUMPY = "missing", "not a NumPy file"


def score_folder(
    folder: Path,
    metadata: Metadata,
    mask_root: Path | None = None,
    threshold_step: float = 0.001,
    contours: Contours = "all",
    threads: int = 1,
) -> dict[str, Any]:
    """Judge the score maps of a split.

    Args:
        folder: the folder of the maps, each named after its image's id.
        metadata: the split, with boxes and sizes, or with masks. Boxes are scaled from the stated size of the image to
            the size of its map; masks are resized to it. The log warns of maps with less than
            :data:`FEW_CELLS` pixels on a side: their rates come out higher than those of maps resized to the image.
        mask_root: folder of the masks, if the metadata has masks.
        threshold_step: step between score-map thresholds.
        contours: which contours give boxes.
        threads: maps read and judged at the same time; the result does not depend on it.

    Returns:
        ``n_images``, ``threshold_step`` and, with boxes, ``contours``, ``max_box_acc`` and ``best_threshold`` by IoU
        threshold, their mean ``max_box_acc_v2`` (a name that the literature uses for all contours) and ``curve``
        (thresholds x IoU thresholds); with masks ``pxap``, ``precision`` and ``recall``. Fractions.

    Raises:
        DataError: if any map is missing, unreadable, not two-dimensional, not of a float type, outside [0, 1] or holds
            NaN; the error names and counts them. A broken map is never judged as if it were blank. Also if the metadata
            has neither boxes nor masks, a box is outside its image, no mask has a foreground pixel, or ``mask_root`` is
            not given.
    """
    truth = _annotation(metadata, mask_root)
    boxes = BoxMeter(IOU_THRESHOLDS, threshold_step, contours, threads)
    pixels = PixelMeter(threshold_step)
    broken: dict[str, list[str]] = defaultdict(list)
    smallest = FEW_CELLS
    with ThreadPoolExecutor(threads) as pool:
        for maps in _read_all(folder, metadata.image_ids, broken, pool):
            groups: dict[tuple, list[str]] = defaultdict(list)
            for image_id, score in maps.items() if not broken else ():  # once a map is broken, the others are only read
                groups[(*score.shape, score.dtype)].append(image_id)
            for (height, width, _), ids in groups.items():
                smallest = min(smallest, height, width)
                found = list(pool.map(truth, ids, [(height, width)] * len(ids)))
                scores = np.stack([maps[image_id] for image_id in ids])
                if metadata.masks is not None:
                    pixels.update(scores, np.stack(found))
                    continue
                try:
                    boxes.update(scores, found, ids)
                except ValueError as error:
                    raise DataError(f"localization.txt: {error}") from error
    if broken:
        raise DataError(_complaint(broken, len(metadata.image_ids), folder))
    if smallest < FEW_CELLS:
        logger.warning("Maps of %d pixels a side give rates too high; resize them to their images first.", smallest)
    counted = {"threshold_step": threshold_step, "n_images": len(metadata.image_ids)}
    if metadata.masks is None:
        return {"contours": contours} | counted | boxes.compute()
    if not pixels.foreground.any():
        image_id, (files, _) = next(iter(metadata.masks.items()))
        raise DataError(
            f"No mask under {mask_root} has a foreground pixel, so PxAP is not defined. The first is "
            f"{', '.join(map(str, files))}, of image {image_id}. Pixels that are not black are foreground; in "
            "arrays 1 is, and 255 means ignored."
        )
    return counted | pixels.compute()


def check_folder(folder: Path, metadata: Metadata, threads: int = 1) -> str:
    """What is wrong with the maps of a folder, in words; empty if all of them can be judged.

    Args:
        folder: the folder of the maps.
        metadata: the split.
        threads: maps read at the same time.

    Raises:
        DataError: if there is no such folder.
    """
    broken: dict[str, list[str]] = defaultdict(list)
    with ThreadPoolExecutor(threads) as pool:
        for _ in _read_all(folder, metadata.image_ids, broken, pool):
            pass
    return _complaint(broken, len(metadata.image_ids), folder) if broken else ""


def write_maps(folder: Path, image_ids: Sequence[str], maps: Sequence[np.ndarray]) -> None:
    """Write score maps as `score_folder`, and the benchmark, read them.

    Args:
        folder: created if it does not exist.
        image_ids: the id of each image; parts before a slash become folders.
        maps: (H, W) float each, in [0, 1].

    Raises:
        ValueError: for a map that `score_folder` would refuse; the maps before it are written.
    """
    for image_id, score in zip(image_ids, map(as_array, maps), strict=True):
        if fault := map_fault(score):
            raise ValueError(f"Image {image_id} has a score map {fault}: expected float (height, width) in [0, 1].")
        path = folder / f"{image_id}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as partial, partial.open("wb") as file:
            np.save(file, score)


def write_metadata(folder: Path, data: WsolDataset, numbers: Sequence[int]) -> None:
    """Describe some images with boxes as the benchmark's metadata folder does, at the data set's size.

    Args:
        folder: created if it does not exist.
        data: images with boxes.
        numbers: indices of the images.
    """
    samples = [data[number] for number in numbers]
    boxes = [(sample.image_id, *box) for sample in samples for box in sample.boxes.tolist()]
    rows: Mapping[str, Sequence[tuple]] = {
        "image_ids": [(sample.image_id,) for sample in samples],
        "class_labels": [(sample.image_id, sample.label) for sample in samples],
        "image_sizes": [(sample.image_id, data.size, data.size) for sample in samples],
        "localization": boxes,
    }
    for name, lines in rows.items():
        write_file(writable_folder(folder) / f"{name}.txt", "".join(",".join(map(str, line)) + "\n" for line in lines))


def write_json(result: Mapping[str, Any], path: Path) -> None:
    """Write a result of `score_folder` as JSON, without its curves.

    Raises:
        WsolkitError: if the path is a folder or empty, or its folder cannot be written.
    """
    if path.is_dir():
        raise WsolkitError(f"Cannot write the result to {str(path)!r}: it is a folder. Name a file, e.g. result.json.")
    writable_folder(path.parent)
    write_file(path, json.dumps({key: result[key] for key in JSON_KEYS if key in result}, indent=2) + "\n")


def describe(result: Mapping[str, Any]) -> str:
    """A result of `score_folder` in lines for a reader, in percent."""
    images = f"{result['n_images']} images"
    if "pxap" in result:
        return f"{images}\nPxAP  {result['pxap']:.2%}"
    everything = result["contours"] == "all"
    lines = [f"{images}, boxes from {'all contours' if everything else 'the largest contour'}"]
    for delta, accuracy in result["max_box_acc"].items():
        best = f"at score-map threshold {result['best_threshold'][delta]:.4g}"
        lines.append(f"{f'MaxBoxAcc at IoU {delta}':28} {accuracy:8.2%}  {best}")
    mean = "MaxBoxAccV2, their mean" if everything else "their mean"
    return "\n".join([*lines, f"{mean:28} {result['max_box_acc_v2']:8.2%}"])


def _read_all(folder: Path, image_ids: Sequence[str], broken: dict[str, list[str]], pool: Executor) -> Iterator[dict]:
    """Maps by image id, a chunk at a time; ids whose map cannot be judged are added to ``broken``, by what is wrong."""
    if not folder.is_dir():
        raise DataError(f"Score maps not found: {folder} is not a folder. Give the folder of <image_id>.npy files.")
    with progress(title="score maps", total=len(image_ids), unit="map") as bar:
        for start in range(0, len(image_ids), CHUNK):
            ids = image_ids[start : start + CHUNK]
            maps = {}
            for image_id, found in zip(ids, pool.map(lambda each: _read(folder / f"{each}.npy"), ids), strict=True):
                if isinstance(found, str):
                    broken[found].append(image_id)
                else:
                    maps[image_id] = found
            yield maps
            bar.update(len(ids))


def _read(path: Path) -> np.ndarray | str:
    """A score map, or what is wrong with it."""
    try:
        # A memory map is refused if the file is shorter than its header claims, before anything is allocated.
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        return MISSING
    except Exception:  # a damaged header fails in whatever part of Python's parser it happens to reach
        return NOT_NUMPY
    if not isinstance(found, np.ndarray):
        found.close()
        return NOT_NUMPY
    return map_fault(found) or np.array(found)


def _annotation(metadata: Metadata, mask_root: Path | None) -> Callable[[str, tuple[int, int]], np.ndarray]:
    """A function that returns the mask, or else the boxes, of an image for a map of some height and width.

    Raises:
        DataError: if there is no annotation, or something that it needs is missing.
    """
    masks, boxes, sizes = metadata.masks, metadata.boxes, metadata.sizes
    if masks is not None:
        if mask_root is None:
            raise DataError("localization.txt names masks; give the folder that they are in (--mask-root DIR).")
        return lambda image_id, shape: read_mask(mask_root, *masks[image_id], shape)
    if boxes is None:
        raise DataError("This metadata has neither boxes nor masks; give that of train-fullsup or test (val/, test/).")
    if sizes is None:
        raise DataError("This metadata has boxes but no image sizes; give image_sizes.txt beside them.")
    return lambda image_id, shape: scale_boxes(boxes[image_id], *sizes[image_id], shape)


def _complaint(broken: Mapping[str, Sequence[str]], total: int, folder: Path) -> str:
    count = sum(map(len, broken.values()))
    lines = [f"{count} of {total} score maps in {folder} cannot be judged, so nothing was scored."]
    for reason, names in sorted(broken.items(), key=lambda item: -len(item[1])):
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        lines.append(f"  {len(names)} {reason}: {', '.join(names[:NAMED])}{more}")
    likely = [
        f"There is {name}; the file of image {image_id} is {image_id}.npy."
        for image_id, path in ((each, Path(each)) for each in broken.get(MISSING, ())[:NAMED])
        for name in (str(path.with_suffix(".npy")), f"{path.name}.npy", f"{path.stem}.npy")
        if (folder / name).is_file()
    ]
    expected = "Expected <image_id>.npy for every line of image_ids.txt: a float array (height, width) in [0, 1]."
    return "\n".join([*lines, *likely[:1], expected])
