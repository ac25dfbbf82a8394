"""Anybody's score maps, in the WSOL benchmark's own format, judged by the benchmark's own rules.

A map is ``<image_id>.npy``, a two-dimensional float array in [0, 1] of any size, below one folder; the metadata folder
is the benchmark's (see `wsolkit.datasets.read_metadata`).
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from wsolkit.datasets import Metadata, WsolDataset, read_mask, scale_boxes
from wsolkit.errors import DataError
from wsolkit.metrics.meters import IOU_THRESHOLDS, BoxMeter, Contours, PixelMeter
from wsolkit.system.progress import progress
from wsolkit.system.writing import atomic_file, writable_folder

JSON_KEYS = ("contours", "threshold_step", "n_images", "max_box_acc", "best_threshold", "max_box_acc_v2", "pxap")
"""What of a result goes into a JSON file."""

CHUNK = 128
"""Maps held in memory at once."""

MISSING = "missing"
"""What is wrong with a map that is not there."""

NAMED = 20
"""Broken maps of one kind that an error lists by name; it counts the rest."""


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
        folder: where the maps are, each under its image's id.
        metadata: the split, with boxes and sizes, or with masks. Boxes are scaled from the stated size of the image to
            the size of its map; masks are resized to it.
        mask_root: folder of the masks, where the metadata has masks.
        threshold_step: step between score-map thresholds.
        contours: which contours give boxes.
        threads: maps read and judged at once; the result does not depend on it.

    Returns:
        ``n_images``, ``threshold_step`` and, with boxes, ``contours``, ``max_box_acc`` and ``best_threshold`` by IoU
        threshold, their mean ``max_box_acc_v2`` (a name that the literature uses for all contours) and ``curve``
        (thresholds x IoU thresholds); with masks ``pxap``, ``precision`` and ``recall``. Fractions.

    Raises:
        DataError: naming and counting the maps that are missing, unreadable, not two-dimensional, not of a float type,
            outside [0, 1] or not a number, if there is any: a broken map is not judged as if it were blank. Also for
            metadata without either boxes or masks, and for masks without ``mask_root``.
    """
    if not folder.is_dir():
        raise DataError(f"Score maps not found: {folder} is no folder. Name the one that holds <image_id>.npy.")
    truth = _annotation(metadata, mask_root)
    boxes = BoxMeter(IOU_THRESHOLDS, threshold_step, contours, threads) if metadata.masks is None else None
    pixels = PixelMeter(threshold_step)
    broken: dict[str, list[str]] = defaultdict(list)
    with ThreadPoolExecutor(threads) as pool:
        for ids, found in _chunks(folder, metadata.image_ids, pool):
            read = _sort_out(broken, ids, found)
            if broken:
                continue  # nothing will be scored; only the list of broken maps is still to be completed
            for shape, numbers in _by_shape(read).items():
                maps, chosen = np.stack([read[number] for number in numbers]), [ids[number] for number in numbers]
                if boxes:
                    boxes.update(maps, [truth(image_id, shape) for image_id in chosen])
                else:
                    masks = pool.map(lambda image_id, shape=shape: truth(image_id, shape), chosen)
                    pixels.update(maps, np.stack(list(masks)))
    if broken:
        raise DataError(_complaint(broken, len(metadata.image_ids), folder))
    asked = {"contours": contours} if boxes else {}
    counted = {"threshold_step": threshold_step, "n_images": len(metadata.image_ids)}
    return asked | counted | (boxes or pixels).compute()


def check_folder(folder: Path, metadata: Metadata, threads: int = 1) -> str:
    """What is wrong with the maps of a folder, in words; empty where all of them can be judged.

    Args:
        folder: where the maps are.
        metadata: the split.
        threads: maps read at once.
    """
    broken: dict[str, list[str]] = defaultdict(list)
    with ThreadPoolExecutor(threads) as pool:
        for ids, found in _chunks(folder, metadata.image_ids, pool):
            _sort_out(broken, ids, found)
    return _complaint(broken, len(metadata.image_ids), folder) if broken else ""


def write_maps(folder: Path, image_ids: Sequence[str], maps: Sequence[np.ndarray]) -> None:
    """Write score maps as `score_folder`, and the benchmark, read them.

    Args:
        folder: made if it is not there.
        image_ids: an id each; parts before a slash become folders.
        maps: (H, W) float each, in [0, 1].
    """
    for image_id, score in zip(image_ids, maps, strict=True):
        path = folder / f"{image_id}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as partial, partial.open("wb") as file:
            np.save(file, score)


def write_metadata(folder: Path, data: WsolDataset, numbers: Sequence[int]) -> None:
    """Describe some images with boxes as the benchmark's metadata folder does, at the size that the data set gives.

    Args:
        folder: made if it is not there.
        data: images with boxes.
        numbers: which images.
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
        with atomic_file(writable_folder(folder) / f"{name}.txt") as partial:
            partial.write_text("".join(",".join(map(str, line)) + "\n" for line in lines))


def write_json(result: Mapping[str, Any], path: Path) -> None:
    """Write a result of `score_folder` as JSON, without its curves.

    Raises:
        WsolkitError: if the folder cannot be written.
    """
    writable_folder(path.parent)
    with atomic_file(path) as partial:
        partial.write_text(json.dumps({key: result[key] for key in JSON_KEYS if key in result}, indent=2) + "\n")


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


def _chunks(
    folder: Path, image_ids: Sequence[str], pool: Executor
) -> Iterator[tuple[Sequence[str], list[np.ndarray | str]]]:
    """Ids, a chunk at a time, with what `_read` finds for them."""
    with progress(title="score maps", total=len(image_ids), unit="map") as bar:
        for start in range(0, len(image_ids), CHUNK):
            ids = image_ids[start : start + CHUNK]
            yield ids, list(pool.map(lambda image_id: _read(folder / f"{image_id}.npy"), ids))
            bar.update(len(ids))


def _read(path: Path) -> np.ndarray | str:
    """A score map, or what is wrong with it."""
    try:
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return MISSING
    except (OSError, ValueError, EOFError, MemoryError):
        return "not a NumPy file"
    if not isinstance(found, np.ndarray):
        return "not a NumPy file"
    if found.dtype.kind != "f":
        return f"of type {found.dtype}, not float"
    if found.ndim != 2 or not found.size:
        return f"of shape {found.shape}, not (height, width)"
    if np.isnan(found).any():
        return "with NaN"
    if found.min() < 0 or found.max() > 1:
        return "outside [0, 1]"
    return found


def _sort_out(broken: dict[str, list[str]], ids: Sequence[str], read: Iterable[np.ndarray | str]) -> list[np.ndarray]:
    """Add what cannot be judged to the lists of broken maps, by what is wrong; the others are returned."""
    whole = []
    for image_id, found in zip(ids, read, strict=True):
        if isinstance(found, str):
            broken[found].append(image_id)
        else:
            whole.append(found)
    return whole


def _by_shape(maps: Sequence[np.ndarray]) -> Mapping[tuple[int, int, np.dtype], list[int]]:
    groups = defaultdict(list)
    for number, score in enumerate(maps):
        groups[(*score.shape, score.dtype)].append(number)
    return groups


def _annotation(metadata: Metadata, mask_root: Path | None) -> Callable[[str, tuple], np.ndarray]:
    """What gives the mask, or else the boxes, of an image by its id, for a map of some shape.

    Raises:
        DataError: if there is no annotation, or something is missing that it needs.
    """
    masks, boxes, sizes = metadata.masks, metadata.boxes, metadata.sizes
    if masks is not None:
        if mask_root is None:
            raise DataError("localization.txt names masks; give the folder that they are in (--mask-root DIR).")
        return lambda image_id, shape: read_mask(mask_root, *masks[image_id], shape[:2])
    if boxes is None:
        raise DataError("This metadata has neither boxes nor masks; give that of train-fullsup or test (val/, test/).")
    if sizes is None:
        raise DataError("This metadata has boxes and no sizes of the images; give image_sizes.txt beside them.")
    return lambda image_id, shape: scale_boxes(boxes[image_id], *sizes[image_id], shape[:2])


def _near(folder: Path, missing: Sequence[str]) -> tuple[str, str] | None:
    """A missing image, and a file that may be its map under another name."""
    for image_id in missing[:NAMED]:
        path = Path(image_id)
        for name in (str(path.with_suffix(".npy")), f"{path.name}.npy", f"{path.stem}.npy"):
            if (folder / name).is_file():
                return image_id, name
    return None


def _complaint(broken: Mapping[str, Sequence[str]], total: int, folder: Path) -> str:
    count = sum(map(len, broken.values()))
    lines = [f"{count} of {total} score maps in {folder} cannot be judged, so nothing was scored."]
    for reason, names in sorted(broken.items(), key=lambda item: -len(item[1])):
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        lines.append(f"  {len(names)} {reason}: {', '.join(names[:NAMED])}{more}")
    if near := _near(folder, broken.get(MISSING, ())):
        lines.append(f"There is {near[1]}; the file of image {near[0]} is {near[0]}.npy.")
    lines.append("Expected <image_id>.npy for every line of image_ids.txt: a float array (height, width) in [0, 1].")
    return "\n".join(lines)
