"""Every connected component of a map at every 8-bit cut-off in one pass, and the best IoU that any of them has.

The benchmark traces contours anew at each of up to 1,000 thresholds. But an 8-bit map has at most 255 distinct
foregrounds, each inside the next, so all their components are the nodes of one tree, and so are all their holes. Each
tree is built from leaf to root:

1. *Basins.* Each pixel points to its highest neighbour; following the pointers leads to a regional maximum. The pixels
   of a basin above some level are connected at that level, since pointers only rise.
2. *Edges.* Two neighbours in different basins join them at the lower of their two levels.
3. *Sweep.* From the highest level down, pixels widen their component's box and edges merge components. The IoU of a
   box is computed once, and holds from the level where the box appears until its next change.

Holes are components of the inverted map that do not touch the border. They are connected by edges alone, where the
foreground is also connected by corners; and a hole's contour runs on the foreground around it, so that its box is one
pixel wider on each side.

Why this way, measured on one core for a bicubic CAM of 224x224 (``tests/benchmarks/box_meter.py``): this takes 2 ms for
both trees. scikit-image's max-tree takes 50 ms for the first tree and 32 ms for the second, and leaves the boxes to be
computed; OpenCV's connected components take 86 ms for all cut-offs, without holes; OpenCV's contours, each cut-off
traced once, 25 ms with their boxes, and over a second where contours are many.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

#: Number of values of an 8-bit map.
LEVELS = 256

_FRAME = -1  # level of the frame around a map, below every pixel
_NO_BASIN = np.uint32(2**32 - 1)
_UNKNOWN = -1  # level since which a component's box holds: it has no box yet, or its box is changing
_OUTSIDE = -2  # the same: a component of the inverted map that touches the border, so that it is no hole


def best_ious(images: np.ndarray, boxes: Sequence[np.ndarray], threads: int = 1) -> np.ndarray:
    """The best IoU of any contour's box with any true box, at every cut-off.

    Args:
        images: (N, H, W) uint8.
        boxes: N arrays (k, 4) of integers, k >= 1: true boxes in pixels.
        threads: maps processed at the same time; the result does not depend on it.

    Returns:
        (N, 256) float64. Column c is for the foreground strictly above c, with the benchmark's conventions of boxes and
        IoU (see `wsolkit.metrics.boxes`); where nothing is above c, the predicted box is ``0, 0, 0, 0``.
    """
    best = np.zeros((len(images), LEVELS))
    if not len(images):
        return best
    ends = np.cumsum([0, *map(len, boxes)])
    truth = np.concatenate(boxes).astype(np.int64)
    images = np.ascontiguousarray(images)
    size = -(-len(images) // threads)
    parts = [slice(start, start + size) for start in range(0, len(images), size)]

    def work(part: slice) -> None:
        _best_ious(images[part], truth, ends[:-1][part], ends[1:][part], best[part])

    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(work, parts))
    return best


@njit(cache=True, nogil=True)
def _best_ious(images, truth, starts, ends, best):
    count, height, width = images.shape
    levels = np.full((height + 2, width + 2), _FRAME, np.int16)
    scratch = (
        np.empty(levels.shape, np.int16),  # pointers
        np.full(levels.shape, _NO_BASIN, np.uint32),  # basins
        np.empty((4 * height * width, 3), np.uint32),  # edges
        np.empty(height * width, np.uint32),  # union-find parents of basins
        np.empty((height * width, 6), np.int32),  # components
        np.empty(height * width, np.float64),  # their IoU
    )
    pixels = np.empty(height * width, np.uint32)
    for number in range(count):
        image, boxes = images[number], truth[starts[number] : ends[number]]
        starts_of_values = _sort_pixels(image, pixels)
        levels[1:-1, 1:-1] = image
        above = _sweep(levels, pixels, starts_of_values, True, boxes, scratch)
        levels[1:-1, 1:-1] = 255 - image
        holes = _sweep(levels, pixels, starts_of_values, False, boxes, scratch)
        highest = image.max()
        for cutoff in range(LEVELS):
            if cutoff < highest:
                best[number, cutoff] = max(above[cutoff + 1], holes[255 - cutoff])
            else:
                best[number, cutoff] = _best_iou(0, 0, 0, 0, boxes)


@njit(cache=True, nogil=True)
def _sort_pixels(image, pixels):
    """Put pixels, as ``y << 16 | x``, in order of their value; returns where each value starts, and the end."""
    height, width = image.shape
    starts = np.zeros(LEVELS + 1, np.int64)
    for y in range(height):
        for x in range(width):
            starts[image[y, x] + 1] += 1
    starts = starts.cumsum()
    places = starts.copy()
    for y in range(height):
        for x in range(width):
            value = image[y, x]
            pixels[places[value]] = y << 16 | x
            places[value] += 1
    return starts


@njit(cache=True, nogil=True)
def _sweep(levels, pixels, starts_of_values, foreground, boxes, scratch):
    """Best IoU (257,) of the components of everything at or above each level."""
    pointers, basins, edges, parents, components, ious = scratch
    height, width = levels.shape[0] - 2, levels.shape[1] - 2
    _point_upwards(levels, foreground, pointers)
    count = _find_basins(pointers, basins, parents)
    last_edges = _find_edges(levels, foreground, basins, edges)
    components[:count, :2] = max(height, width)
    components[:count, 2:] = _UNKNOWN
    ranges = np.zeros((9, LEVELS + 1))
    changed = np.empty(count, np.uint32)
    grown = 0 if foreground else 1
    stride, right_end, bottom_end = np.uint32(width + 2), width - 1, height - 1
    flat = basins.ravel()[width + 3 :]
    for level in range(LEVELS - 1, -1, -1):
        changes = 0
        edge = last_edges[level]
        while edge:
            a, b = _root(parents, edges[edge - 1, 0]), _root(parents, edges[edge - 1, 1])
            edge = edges[edge - 1, 2]
            if a != b:
                _close(components, ious, a, level, ranges)
                _close(components, ious, b, level, ranges)
                _merge(components, a, b)
                parents[b] = a
                if components[a, 5] != level:
                    components[a, 5] = level
                    changed[changes] = a
                    changes += 1
        value = level if foreground else 255 - level
        for pixel in pixels[starts_of_values[value] : starts_of_values[value + 1]]:
            y, x = pixel >> np.uint32(16), pixel & np.uint32(0xFFFF)
            root = _root(parents, flat[y * stride + x])
            if components[root, 4] == _OUTSIDE or (
                components[root, 0] <= x <= components[root, 2] and components[root, 1] <= y <= components[root, 3]
            ):
                continue
            _close(components, ious, root, level, ranges)
            components[root, 0], components[root, 1] = min(components[root, 0], x), min(components[root, 1], y)
            components[root, 2], components[root, 3] = max(components[root, 2], x), max(components[root, 3], y)
            if not foreground and (x == 0 or y == 0 or x == right_end or y == bottom_end):
                components[root, 4] = _OUTSIDE
            if components[root, 5] != level:
                components[root, 5] = level
                changed[changes] = root
                changes += 1
        for root in changed[:changes]:
            if parents[root] == root and components[root, 4] != _OUTSIDE:
                left, top = components[root, 0] - grown, components[root, 1] - grown
                right = min(components[root, 2] + 1 + grown, right_end)
                bottom = min(components[root, 3] + 1 + grown, bottom_end)
                ious[root] = _best_iou(left, top, right, bottom, boxes)
                components[root, 4] = level
    for root in range(count):
        if parents[root] == root:
            _close(components, ious, root, -1, ranges)
    return _spread(ranges)


@njit(cache=True, nogil=True)
def _point_upwards(levels, corners, pointers):
    """The number (0 to 7) of each pixel's highest neighbour in the last three bits, or -1 where none is higher.

    Of equal pixels an earlier one, in reading order, counts as higher, so that pointers never run in circles.
    """
    height, width = levels.shape
    for y in range(1, height - 1):
        up, row, down, out = levels[y - 1], levels[y], levels[y + 1], pointers[y]
        for x in range(width - 2):
            highest = max(up[x + 1] * 16 + 8, row[x] * 16 + 9, row[x + 2] * 16 + 2, down[x + 1] * 16 + 3)
            if corners:
                highest = max(highest, up[x] * 16 + 12, up[x + 2] * 16 + 13, down[x] * 16 + 6, down[x + 2] * 16 + 7)
            out[x + 1] = highest if highest >= row[x + 1] * 16 + 8 else -1


@njit(cache=True, nogil=True)
def _find_basins(pointers, basins, parents):
    """Number the basins; returns how many there are. A plateau may have several, which edges join at its own level."""
    height, width = pointers.shape
    steps = _steps(width)
    ways, flat = pointers.ravel(), basins.ravel()
    basins[1:-1, 1:-1] = _NO_BASIN
    count = np.uint32(0)
    for y in range(1, height - 1):
        for start in range(y * width + 1, y * width + width - 1):
            if flat[start] != _NO_BASIN:
                continue
            pixel = start
            while flat[pixel] == _NO_BASIN and ways[pixel] >= 0:
                pixel += steps[ways[pixel] & 7]
            if flat[pixel] == _NO_BASIN:
                parents[count], flat[pixel] = count, count
                count += np.uint32(1)
            basin, pixel = flat[pixel], start
            while flat[pixel] == _NO_BASIN:
                flat[pixel] = basin
                pixel += steps[ways[pixel] & 7]
    return count


@njit(cache=True, nogil=True)
def _steps(width):
    """How far off in memory the neighbours 0 to 7 of a pixel are."""
    return np.array([-width, -1, 1, width, -width - 1, -width + 1, width - 1, width + 1])


@njit(cache=True, nogil=True)
def _find_edges(levels, corners, basins, edges):
    """Chain up, by level, the edges between basins; returns each level's last edge, counted from 1, or 0."""
    height, width = levels.shape
    steps = _steps(width)
    forward = np.array([steps[2], steps[3], steps[6], steps[7]])[: 4 if corners else 2]
    flat_levels, flat = levels.ravel(), basins.ravel()
    last = np.zeros(LEVELS, np.uint32)
    count = np.uint32(0)
    for y in range(1, height - 1):
        for pixel in range(y * width + 1, y * width + width - 1):
            a = flat[pixel]
            for step in forward:
                b = flat[pixel + step]
                if a != b and b != _NO_BASIN:
                    level = min(flat_levels[pixel], flat_levels[pixel + step])
                    edges[count, 0], edges[count, 1], edges[count, 2] = a, b, last[level]
                    count += np.uint32(1)
                    last[level] = count
    return last


@njit(cache=True, nogil=True)
def _root(parents, basin):
    while parents[basin] != basin:
        parents[basin] = parents[parents[basin]]
        basin = parents[basin]
    return basin


@njit(cache=True, nogil=True)
def _merge(components, into, other):
    """Widen one component's box by another's."""
    for side in range(2):
        components[into, side] = min(components[into, side], components[other, side])
        components[into, side + 2] = max(components[into, side + 2], components[other, side + 2])
    if components[other, 4] == _OUTSIDE:
        components[into, 4] = _OUTSIDE


@njit(cache=True, nogil=True)
def _close(components, ious, root, level, ranges):
    """Note the IoU of a component's box for the levels above ``level`` at which it held."""
    since = components[root, 4]
    if since > level:
        size = 0
        while 2 << size <= since - level:
            size += 1
        last = since + 1 - (1 << size)
        ranges[size, level + 1] = max(ranges[size, level + 1], ious[root])
        ranges[size, last] = max(ranges[size, last], ious[root])
    if since != _OUTSIDE:
        components[root, 4] = _UNKNOWN


@njit(cache=True, nogil=True)
def _spread(ranges):
    """The highest value noted for each level, where row k holds values for 2 ** k levels from the column's on."""
    for size in range(len(ranges) - 1, 0, -1):
        half = 1 << (size - 1)
        for level in range(LEVELS + 1 - half):
            ranges[size - 1, level] = max(ranges[size - 1, level], ranges[size, level])
            ranges[size - 1, level + half] = max(ranges[size - 1, level + half], ranges[size, level])
    return ranges[0]


@njit(cache=True, nogil=True)
def _best_iou(x0, y0, x1, y1, boxes):
    """Best IoU of one box with any of several, pixels counted inclusively."""
    best = 0.0
    for box in boxes:
        across = min(x1, box[2]) - max(x0, box[0]) + 1
        down = min(y1, box[3]) - max(y0, box[1]) + 1
        overlap = max(across, 0) * max(down, 0)
        area = (x1 - x0 + 1) * (y1 - y0 + 1) + (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
        best = max(best, overlap / (area - overlap))
    return best
