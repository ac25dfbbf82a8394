"""Every connected component of a map at every 8-bit cut-off in one pass, and the best IoU that any of them has.

The benchmark traces contours again at each of up to 1,000 thresholds. But an 8-bit map has at most 255 distinct
foregrounds, each inside the next, so all their components are the nodes of one tree, and so are all their holes.
Imagine that pixels are added one by one, the highest first, of equal ones the first in reading order. What a new pixel
does can be told from its eight neighbours alone, namely from which of them are there already:

- none that it is connected to: it begins a component. Any other pixel belongs to that of a neighbour that is there;
- several that are not connected to each other around it: it *joins* their components;
- none on its left, nor above and below it: it may *widen* its component's box to the left; so for every side.

In a smooth map most pixels join and widen nothing and are never looked at again; the others are the *events*. Pixels of
a row that rise to the same peak form a *run*; its component is that of its peak. In a sweep from the highest level down
events widen and join components. The IoU of a box is computed once, and holds from the level where the box appears
until its next change.

Holes are components of the inverted map that do not touch the border. They are connected by edges alone, where the
foreground is also connected by corners; and a hole's contour runs on the foreground around it, so that its box is one
pixel wider on each side.

Why this way: ``tests/benchmarks/box_meter.py`` compares it with a plain reference. For a bicubic CAM of 224x224
scikit-image's max-tree takes many times as long, and leaves the boxes to be computed; so do OpenCV's connected
components, without holes, and OpenCV's contours, each cut-off traced once.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

#: Number of values of an 8-bit map.
LEVELS = 256

#: Beyond every coordinate.
LARGEST = 2**31 - 1

_FRAME = -1  # level of the frame around a map, below every pixel
_UNKNOWN = -1  # level since which a component's box holds: it has no box yet, or its box is changing
_OUTSIDE = -2  # the same: a component of the inverted map that touches the border, so that it is no hole

#: Bits of the neighbours in circular order; those by an edge are even.
_E, _SE, _S, _SW, _W, _NW, _N, _NE = (1 << number for number in range(8))


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
        np.empty(levels.shape, np.uint8),  # which neighbours are there already
        np.empty(levels.shape, np.uint32),  # runs
        np.empty((height * width + 1, 4), np.uint32),  # events, counted from 1
        np.empty(height * width, np.uint32),  # union-find parents of runs
        np.empty((height * width, 6), np.int32),  # components, by the run at their root
        np.empty(height * width, np.float64),  # their IoU
    )
    by_corners, by_edges = _what_pixels_do(True), _what_pixels_do(False)
    for number in range(count):
        image, boxes = images[number], truth[starts[number] : ends[number]]
        levels[1:-1, 1:-1] = image
        above = _sweep(levels, True, by_corners, boxes, scratch)
        levels[1:-1, 1:-1] = 255 - image
        holes = _sweep(levels, False, by_edges, boxes, scratch)
        highest = image.max()
        for cutoff in range(LEVELS):
            if cutoff < highest:
                best[number, cutoff] = max(above[cutoff + 1], holes[255 - cutoff])
            else:
                best[number, cutoff] = _best_iou(0, 0, 0, 0, boxes)


@njit(cache=True, nogil=True)
def _what_pixels_do(corners):
    """What a pixel does, by the neighbours that are there before it: a byte, one bit each.

    Args:
        corners: whether pixels are connected by corners too.

    Returns:
        (256,) the neighbour whose component takes the pixel up, or -1 if it begins one; (256, 3) neighbours whose
        components it joins with that one, -1 for none; (256,) whether it is an event, because it joins or may widen.
    """
    ways, joined, events = np.full(256, -1, np.int8), np.full((256, 3), -1, np.int8), np.zeros(256, np.bool_)
    beside, edges = (_N | _S, _N | _S, _E | _W, _E | _W), _E | _S | _W | _N
    sides = (_W | _NW | _SW, _E | _NE | _SE, _N | _NW | _NE, _S | _SW | _SE)
    connected = np.array([0, 4, 2, 6, 1, 3, 5, 7])[: 8 if corners else 4]  # neighbours, those in the same row first
    for mask in range(256):
        for number in range(4):
            blocking = beside[number] | (sides[number] if corners else sides[number] & edges)
            events[mask] |= not mask & blocking
        # Neighbours that are connected around the pixel get the same group.
        group = np.arange(8)
        for _ in range(8):
            for number in range(8):
                for step in (1, 2) if corners and number % 2 == 0 else (1, 1):
                    other = (number + step) % 8
                    if mask >> number & 1 and mask >> other & 1:
                        group[number] = group[other] = min(group[number], group[other])
        taken, found = np.zeros(8, np.bool_), 0
        for number in connected:
            if mask >> number & 1 and not taken[group[number]]:
                taken[group[number]] = True
                if ways[mask] < 0:
                    ways[mask] = number
                else:
                    joined[mask, found] = number
                    found += 1
        events[mask] |= found > 0
    return ways, joined, events


@njit(cache=True, nogil=True)
def _sweep(levels, foreground, what_pixels_do, boxes, scratch):
    """Best IoU (257,) of the components of everything at or above each level."""
    there, runs, events, parents, components, ious = scratch
    ways, joined, is_event = what_pixels_do
    height, width = levels.shape[0] - 2, levels.shape[1] - 2
    _look_around(levels, there)
    last_events, count = _find_runs_and_events(levels, there, is_event, runs, parents, events)
    steps, run_of, around = _steps(width + 2), runs.ravel(), there.ravel()
    for run in range(count):
        peak, components[run, 5] = parents[run], _UNKNOWN
        way = ways[around[peak]]
        parents[run] = run_of[peak + steps[way]] if way >= 0 else run
        components[run, 0] = components[run, 1] = LARGEST
        components[run, 2] = components[run, 3] = components[run, 4] = _UNKNOWN
    ranges = np.zeros((9, LEVELS + 1))
    changed = np.empty(count, np.uint32)
    grown = 0 if foreground else 1
    right_end, bottom_end = width - 1, height - 1
    for level in range(LEVELS - 1, -1, -1):
        changes = 0
        event = last_events[level]
        while event:
            x, y, run, event = (
                np.int32(events[event, 0]),
                np.int32(events[event, 1]),
                events[event, 2],
                events[event, 3],
            )
            root = _root(parents, run)
            pixel = (y + 1) * (width + 2) + x + 1
            for number in range(3):
                way = joined[around[pixel], number]
                if way < 0:
                    break
                other = _root(parents, run_of[pixel + steps[way]])
                if other != root:
                    _close(components, ious, root, level, ranges)
                    _close(components, ious, other, level, ranges)
                    _merge(components, root, other)
                    parents[other] = root
                    if components[root, 5] != level:
                        components[root, 5] = level
                        changed[changes] = root
                        changes += 1
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
def _look_around(levels, there):
    """Which neighbours of each pixel are there before it: higher ones, and equal ones that are earlier."""
    height, width = levels.shape
    for y in range(1, height - 1):
        up, row, down, out = levels[y - 1], levels[y], levels[y + 1], there[y]
        for x in range(1, width - 1):
            here = row[x]
            out[x] = (
                (row[x + 1] > here) * _E
                + (down[x + 1] > here) * _SE
                + (down[x] > here) * _S
                + (down[x - 1] > here) * _SW
                + (row[x - 1] >= here) * _W
                + (up[x - 1] >= here) * _NW
                + (up[x] >= here) * _N
                + (up[x + 1] >= here) * _NE
            )


@njit(cache=True, nogil=True)
def _find_runs_and_events(levels, there, is_event, runs, peaks, events):
    """Number the runs, note their peaks, and chain up the events by level: column, row, run, and the one before.

    Of two pixels side by side exactly one is there before the other, so a pixel without a right neighbour that is there
    is a peak or descends from the peak on its left.

    Returns:
        Each level's last event, or 0; and how many runs there are.
    """
    height, width = levels.shape
    last = np.zeros(LEVELS, np.uint32)
    count, run = np.uint32(0), np.int64(-1)
    for y in range(1, height - 1):
        around, row, out = there[y], levels[y], runs[y]
        rising = False
        for x in range(1, width - 1):
            rises = around[x] & _E != 0
            if x == 1 or rises > rising:
                run += 1
            if not rises and (rising or x == 1):
                peaks[run] = y * width + x
            rising = rises
            out[x] = run
            if is_event[around[x]]:
                count += np.uint32(1)
                events[count, 0], events[count, 1], events[count, 2], events[count, 3] = x - 1, y - 1, run, last[row[x]]
                last[row[x]] = count
    return last, run + 1


@njit(cache=True, nogil=True)
def _steps(stride):
    """How far off in memory the neighbours 0 to 7 of a pixel are."""
    return np.array([1, stride + 1, stride, stride - 1, -1, -stride - 1, -stride, 1 - stride])


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
