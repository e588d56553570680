"""Connected components have exact boxes and scores, and their number is limited."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.inference.components import extract_components, to_detections
from pipeline.config.schema import ComponentsConfig


def probability(*spots, size=(20, 30)):
    """(H, W) float32 map, 0 but for (row, column, value)."""
    found = np.zeros(size, np.float32)
    for row, column, value in spots:
        found[row, column] = value
    return found


def test_a_single_pixel_has_a_box_of_one_by_one():
    segments = extract_components(probability((3, 7, 0.9)), ComponentsConfig())
    assert segments.components.boxes.tolist() == [[7, 3, 8, 4]]
    assert segments.components.scores.tolist() == pytest.approx([0.9])
    assert np.argwhere(segments.regions).tolist() == [[3, 7]]


def test_pixels_that_touch_at_corners_are_one_group_and_its_box_holds_them_exactly():
    segments = extract_components(probability((0, 0, 0.6), (1, 1, 0.8), (2, 0, 0.7)), ComponentsConfig())
    assert segments.components.boxes.tolist() == [[0, 0, 2, 3]]


def test_groups_come_best_first_with_the_masks_that_belong_to_them():
    segments = extract_components(probability((2, 2, 0.6), (9, 9, 0.9), (19, 29, 0.7)), ComponentsConfig())
    assert segments.components.scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert [np.argwhere(mask).tolist() for mask in segments.masks()] == [[[9, 9]], [[19, 29]], [[2, 2]]]
    assert segments.components.boxes[1].tolist() == [29, 19, 30, 20]


@pytest.mark.parametrize(("score", "expected"), [("peak", 0.9), ("mean", 0.7)])
def test_the_score_is_the_peak_or_the_mean(score, expected):
    found = probability((5, 5, 0.9), (5, 6, 0.6), (6, 6, 0.6), (6, 7, 0.1))
    segments = extract_components(found, ComponentsConfig(score=score))
    assert segments.components.scores.tolist() == pytest.approx([expected])


def test_a_pixel_at_the_threshold_is_not_segmented():
    assert len(extract_components(probability((5, 5, 0.5)), ComponentsConfig())) == 0
    assert len(extract_components(probability((5, 5, 0.5)), ComponentsConfig(threshold=0.49))) == 1


def test_small_groups_are_left_out_and_leave_no_pixels():
    found = probability((5, 5, 0.9), (10, 10, 0.6), (10, 11, 0.6))
    segments = extract_components(found, ComponentsConfig(min_area=2))
    assert segments.components.boxes.tolist() == [[10, 10, 12, 11]]
    assert np.unique(segments.regions).tolist() == [0, 1]
    assert segments.regions[5, 5] == 0


def test_of_too_many_groups_the_best_are_kept():
    spots = [(2 * k, 2 * k, 0.51 + 0.05 * k) for k in range(9)]
    segments = extract_components(probability(*spots), ComponentsConfig(max_count=3))
    assert segments.components.boxes[:, 0].tolist() == [16, 14, 12]
    assert np.count_nonzero(segments.regions) == 3


def test_an_empty_map_gives_no_groups_and_detections_with_no_masks():
    segments = extract_components(probability(), ComponentsConfig())
    assert len(segments) == 0
    assert not segments.regions.any()
    assert to_detections(segments, conf=0.1).masks.shape == (0, 20, 30)


def test_detections_have_the_minimum_score_or_more_and_their_own_masks():
    segments = extract_components(probability((2, 2, 0.6), (9, 9, 0.9)), ComponentsConfig())
    found = to_detections(segments, conf=0.7)
    assert found.boxes.tolist() == [[9, 9, 10, 10]]
    assert np.argwhere(found.masks[0]).tolist() == [[9, 9]]
    assert len(to_detections(segments, conf=0.05)) == 2


def test_groups_agree_with_a_search_by_hand():
    """Every component is connected and separate from the others, and together they cover the map."""
    found = np.random.default_rng(0).random((24, 31)).astype(np.float32)
    segments = extract_components(found, ComponentsConfig(threshold=0.7, max_count=1000))
    np.testing.assert_array_equal(segments.regions > 0, found > 0.7)
    rows, columns = segments.regions.shape
    for row, column in np.argwhere(segments.regions):
        near = segments.regions[
            max(row - 1, 0) : min(row + 2, rows), max(column - 1, 0) : min(column + 2, columns)
        ]
        assert set(near[near > 0].tolist()) == {int(segments.regions[row, column])}
    for box, score, mask in zip(
        segments.components.boxes, segments.components.scores, segments.masks(), strict=True
    ):
        places = np.argwhere(mask)
        assert box.tolist() == [*places.min(axis=0)[::-1], *(places.max(axis=0) + 1)[::-1]]
        assert score == found[mask].max()


@pytest.mark.parametrize(
    "wrong", [{"threshold": 1.0}, {"threshold": -0.1}, {"min_area": 0}, {"max_count": 0}], ids=str
)
def test_invalid_options_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} = .*, expected"):
        ComponentsConfig(**wrong)
