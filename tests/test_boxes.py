import numpy as np
import pytest

from wsolkit.datasets import scale_boxes
from wsolkit.metrics import boxes


def rectangle(height: int, width: int, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    image = np.zeros((height, width), np.uint8)
    image[y0 : y1 + 1, x0 : x1 + 1] = 255
    return image


def test_8_bit_is_truncation():
    assert boxes.to_8bit(np.array([[0.0, 0.999, 1.0, 0.5]])).tolist() == [[0, 254, 255, 127]]


def test_cutoffs_are_relative_to_the_maximum_and_truncated():
    image = np.array([[0, 200]], np.uint8)
    assert boxes.cutoffs(image, np.array([0.0, 0.5, 0.999])).tolist() == [0, 100, 199]


def largest(image: np.ndarray, cutoff: int) -> list[int]:
    return boxes.largest_boxes(image, np.array([cutoff]))[0].tolist()


def test_box_of_a_rectangle_ends_one_pixel_late_and_stays_inside():
    assert largest(rectangle(10, 12, 2, 3, 6, 7), 0) == [2, 3, 7, 8]
    assert largest(rectangle(10, 12, 2, 3, 11, 9), 0) == [2, 3, 11, 9]


def test_foreground_is_strictly_above_the_cutoff():
    image = rectangle(8, 8, 1, 1, 3, 3)
    assert boxes.largest_boxes(image, np.array([254, 255])).tolist() == [[1, 1, 4, 4], [0, 0, 0, 0]]


def test_a_hole_is_never_the_largest():
    image = rectangle(12, 12, 1, 1, 9, 9)
    image[2:9, 2:9] = 0
    assert largest(image, 0) == [1, 1, 10, 10]


def test_diagonal_pixels_are_connected():
    assert largest(np.eye(5, dtype=np.uint8), 0) == [0, 0, 4, 4]


def test_largest_goes_by_contour_area_not_by_box():
    image = np.zeros((20, 20), np.uint8)
    np.fill_diagonal(image[:12, :12], 255)
    image[13:18, 13:18] = 255
    assert largest(image, 0) == [13, 13, 18, 18]


def test_iou_counts_pixels_inclusively():
    assert boxes.pairwise_iou(np.array([[0, 0, 9, 9]]), np.array([[0, 0, 9, 9]])).tolist() == [[1.0]]
    # 2x2 and 2x2 pixels sharing one: 1 / 7.
    assert boxes.pairwise_iou(np.array([[0, 0, 1, 1]]), np.array([[1, 1, 2, 2]]))[0, 0] == pytest.approx(1 / 7)
    assert boxes.pairwise_iou(np.array([[0, 0, 1, 1]]), np.array([[2, 2, 3, 3]])).tolist() == [[0.0]]


def test_iou_is_pairwise():
    first, second = np.array([[0, 0, 3, 3], [4, 4, 5, 5]]), np.array([[0, 0, 3, 3], [0, 0, 1, 1], [4, 4, 5, 5]])
    assert boxes.pairwise_iou(first, second).tolist() == [[1.0, 0.25, 0.0], [0.0, 0.0, 1.0]]


def test_a_perfect_rectangle_scores_0956_as_in_the_benchmark():
    image = rectangle(224, 224, 30, 40, 69, 89)
    found = boxes.largest_boxes(image, np.array([0]))
    iou = boxes.pairwise_iou(found, np.array([[30, 40, 69, 89]]))[0, 0]
    assert iou == 40 * 50 / (41 * 51)
    assert round(iou, 3) == 0.956


def test_true_boxes_are_scaled_and_truncated():
    assert scale_boxes(np.array([[10, 20, 499, 374]]), 500, 375, 224).tolist() == [[4, 11, 223, 223]]


def test_boxes_are_multiplied_before_they_are_divided_as_in_the_benchmark():
    """45 * 224 / 80 is 126; 45 * (224 / 80) falls short of it by rounding, and would be truncated to 125."""
    assert int(45 * (224 / 80)) == 125
    assert scale_boxes(np.array([[45, 45, 60, 90]]), 80, 160, 224).tolist() == [[126, 63, 168, 126]]


def test_boxes_can_be_scaled_to_a_map_that_is_not_square():
    assert scale_boxes(np.array([[10, 20, 30, 40]]), 100, 50, (25, 300)).tolist() == [[30, 10, 90, 20]]


@pytest.mark.parametrize(
    "call",
    [
        lambda: boxes.to_8bit(np.array([[1.5]])),
        lambda: boxes.to_8bit(np.array([[np.nan]])),
        lambda: boxes.pairwise_iou(np.array([[5, 5, 1, 1]]), np.array([[0, 0, 9, 9]])),
        lambda: boxes.pairwise_iou(np.array([[0, 0, 9, 9]]), np.array([[0.5, 0, 9, 9]])),
    ],
)
def test_scores_and_boxes_out_of_range_are_refused(call):
    with pytest.raises(ValueError, match="xpected"):
        call()
