"""Boxes are half-open intervals: the algebra agrees with counting pixels."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.structures import boxes

PIXEL = np.array([[4, 7, 5, 8]])  # the pixel in row 7 and column 4


def random_boxes(count: int, seed: int = 0) -> np.ndarray:
    corners = np.sort(np.random.default_rng(seed).integers(0, 16, (count, 2, 2)), axis=1)
    return corners.reshape(count, 4)


def mask(box) -> np.ndarray:
    left, top, right, bottom = box
    picture = np.zeros((16, 16), dtype=bool)
    picture[top:bottom, left:right] = True
    return picture


@pytest.mark.parametrize(
    ("there", "back"), [(boxes.to_xywh, boxes.from_xywh), (boxes.to_centres, boxes.from_centres)]
)
def test_other_notations_come_back_exactly(there, back):
    found = random_boxes(50) + 0.25
    np.testing.assert_array_equal(back(there(found)), found)


def test_a_pixel_has_its_size_and_its_middle():
    assert boxes.to_xywh(PIXEL).tolist() == [[4, 7, 1, 1]]
    assert boxes.to_centres(PIXEL).tolist() == [[4.5, 7.5, 1, 1]]


def test_a_pixel_has_an_area_of_one():
    assert boxes.area(PIXEL).tolist() == [1]


def test_a_box_turned_inside_out_has_no_area():
    assert boxes.area([[5, 5, 3, 3], [5, 5, 3, 8]]).tolist() == [0, 0]


def test_areas_are_numbers_of_pixels():
    found = random_boxes(50)
    assert boxes.area(found).tolist() == [mask(box).sum() for box in found]


def test_overlaps_are_shares_of_pixels():
    first, second = random_boxes(30, seed=1), random_boxes(20, seed=2)
    found = boxes.iou(first, second)
    for i, a in enumerate(map(mask, first)):
        for j, b in enumerate(map(mask, second)):
            union = (a | b).sum()
            assert found[i, j] == pytest.approx((a & b).sum() / union if union else 0, abs=1e-12)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([0, 0, 3, 3], 1.0),
        ([1, 1, 4, 4], 4 / 14),
        ([1, 0, 4, 3], 0.5),
        ([3, 0, 6, 3], 0.0),
        ([9, 9, 12, 12], 0.0),
        ([1, 1, 2, 2], 1 / 9),
        ([1, 1, 1, 1], 0.0),
    ],
    ids=["equal", "diagonal neighbour", "one column", "touching", "apart", "inside", "empty"],
)
def test_a_box_of_three_by_three_overlaps(second, expected):
    assert boxes.iou([[0, 0, 3, 3]], [second])[0, 0] == pytest.approx(expected)


def test_empty_boxes_overlap_nothing_not_even_themselves():
    point = [[3.0, 3, 3, 3]]
    assert boxes.iou(point, point).tolist() == [[0]]


def test_overlap_does_not_depend_on_the_order():
    first, second = random_boxes(10, seed=3), random_boxes(10, seed=4)
    assert np.array_equal(boxes.iou(first, second), boxes.iou(second, first).T)


def test_centre_distances_are_those_of_the_middles():
    found = boxes.centre_distance([[0, 0, 2, 2]], [[0, 0, 2, 2], [3, 4, 5, 6], [0, 0, 8, 2]])
    assert found.tolist() == [[0, 5, 3]]


def test_a_margin_grows_boxes_about_their_centres_and_shrinks_them_to_a_pixel():
    grown = boxes.grow([[2, 4, 6, 10]], 1.5)
    np.testing.assert_array_equal(grown, [[0.5, 2.5, 7.5, 11.5]])
    np.testing.assert_array_equal(boxes.grow([[2, 4, 6, 10]], -2.5), [[3.5, 6.5, 4.5, 7.5]])
    np.testing.assert_array_equal(boxes.grow([[2, 4, 2.5, 10]], -9), [[2, 6.5, 2.5, 7.5]])


def test_clipped_boxes_lie_inside_the_picture():
    assert boxes.clip([[-3, -1, 40, 5.5], [2, 3, 4, 4]], 32, 24).tolist() == [[0, 0, 32, 5.5], [2, 3, 4, 4]]


@pytest.mark.parametrize(
    "function",
    [boxes.from_xywh, boxes.to_xywh, boxes.from_centres, boxes.to_centres],
    ids=lambda function: function.__name__,
)
def test_no_boxes_stay_no_boxes(function):
    assert function([]).shape == (0, 4)


def test_no_boxes_overlap_nothing():
    assert boxes.iou([], [[0, 0, 1, 1]]).shape == (0, 1)
    assert boxes.area([]).shape == (0,)
    assert boxes.centre_distance([[0, 0, 1, 1]], []).shape == (1, 0)
