"""Fusion of detections with the segments of known probability maps."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from detectors.inference.components import extract_components
from pipeline.config.schema import ComponentsConfig, SegmentationConfig, SegmenterConfig
from pipeline.stages.fusion import add_segments, confirm_detections, fuse
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.results import FrameDetections

SIZE = (40, 50)


def segments(*spots):
    """Returns the segments of a map with spots (x1, y1, x2, y2, probability)."""
    found = np.zeros(SIZE, np.float32)
    for x1, y1, x2, y2, value in spots:
        found[y1:y2, x1:x2] = value
    return extract_components(found, ComponentsConfig())


def detections(*rows):
    """Returns detections from rows of (box, score, label)."""
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(np.reshape(boxes, (len(rows), 4)), scores, labels)


def rows(found):
    return [
        (box, pytest.approx(score), label)
        for box, score, label in zip(
            found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
        )
    ]


DRONE = ([10, 10, 14, 13], 0.8, 2)
BIRD = ([30, 20, 33, 24], 0.6, 1)


# Confirm


def test_confirm_keeps_matching_detections_with_score_and_class():
    kept = confirm_detections(detections(DRONE, BIRD), [segments((31, 21, 32, 22, 0.7))], margin=0)
    assert rows(kept) == [BIRD]


def test_confirm_needs_one_segmenter_of_several():
    marks = [segments((11, 11, 12, 12, 0.9)), segments((31, 21, 32, 22, 0.7))]
    assert rows(confirm_detections(detections(DRONE, BIRD), marks, margin=0)) == [DRONE, BIRD]
    assert rows(confirm_detections(detections(DRONE, BIRD), marks[:1], margin=0)) == [DRONE]


def test_confirm_without_segments_keeps_nothing():
    assert len(confirm_detections(detections(DRONE, BIRD), [segments()], margin=5)) == 0


def test_confirm_without_detections_adds_nothing():
    assert len(confirm_detections(Detections.empty(), [segments((1, 1, 3, 3, 0.9))], margin=2)) == 0


@pytest.mark.parametrize(
    ("place", "kept"), [(7, False), (8, True), (9, True), (14, True), (15, True), (16, False)]
)
def test_a_segment_confirms_within_the_margin_only(place, kept):
    found = confirm_detections(detections(DRONE), [segments((place, 11, place + 1, 12, 0.9))], margin=2)
    assert bool(len(found)) is kept


def test_a_box_at_the_border_is_compared_with_the_pixels_inside():
    corner = ([0, 0, 2, 2], 0.9, 0)
    assert len(confirm_detections(detections(corner), [segments((48, 38, 50, 40, 0.9))], margin=3)) == 0
    assert len(confirm_detections(detections(corner), [segments((3, 3, 4, 4, 0.9))], margin=3)) == 1


# Union


def union(found, *marks, margin=2, conf=0.05):
    return rows(add_segments(found, marks, margin=margin, conf=conf))


def test_union_adds_unmatched_segments_as_class_0():
    marks = segments((11, 11, 13, 12, 0.9), (40, 30, 43, 32, 0.7))
    assert union(detections(DRONE, BIRD), marks) == [DRONE, ([40, 30, 43, 32], 0.7, 0), BIRD]


def test_union_of_nothing_is_empty():
    assert union(Detections.empty(), segments()) == []


def test_union_of_only_detections_or_only_segments_keeps_them():
    assert union(detections(DRONE), segments()) == [DRONE]
    spot = (5, 5, 6, 6, 0.6)
    assert union(Detections.empty(), segments(spot)) == [([5, 5, 6, 6], 0.6, 0)]


def test_a_segment_below_the_minimum_score_is_not_added():
    marks = segments((40, 30, 43, 32, 0.7), (5, 30, 6, 31, 0.6))
    assert union(Detections.empty(), marks, conf=0.65) == [([40, 30, 43, 32], 0.7, 0)]


def test_a_target_of_several_segmenters_is_added_once_with_the_best_score():
    first, second = segments((40, 30, 43, 32, 0.7)), segments((41, 31, 44, 33, 0.9), (5, 5, 6, 6, 0.6))
    expected = [([41, 31, 44, 33], 0.9, 0), ([5, 5, 6, 6], 0.6, 0)]
    assert union(Detections.empty(), first, second) == expected
    assert union(Detections.empty(), second, first) == expected


def test_at_equal_scores_the_earlier_segmenter_counts():
    first, second = segments((40, 30, 43, 32, 0.75)), segments((41, 31, 44, 33, 0.75))
    assert union(Detections.empty(), first, second) == [([40, 30, 43, 32], 0.75, 0)]


def test_detections_with_masks_keep_masks():
    base = segments((10, 10, 14, 13, 0.8))
    found = Detections(base.components.boxes, base.components.scores, [0], list(base.masks()))
    joined = add_segments(found, [segments((40, 30, 43, 32, 0.9))], margin=2, conf=0.05)
    assert [np.argwhere(mask)[0].tolist() for mask in joined.masks] == [[30, 40], [10, 10]]


# The stage


def found_in(*pairs):
    """Yields frames with detections and the segments of segmenters a and b."""
    for index, (boxes, a, b) in enumerate(pairs):
        frame = Frame(np.zeros(SIZE, np.uint8), index, Fraction(index, 30), "test")
        yield FrameDetections(frame, boxes, False, {"detect": 0.1}, {"a": a, "b": b})


@pytest.mark.parametrize(
    ("rule", "counts"), [("none", [2, 0, 1]), ("confirm", [1, 0, 0]), ("union", [3, 1, 1])]
)
def test_each_frame_is_fused_independently(rule, counts):
    marks = segments((11, 11, 12, 12, 0.9), (40, 30, 43, 32, 0.7))
    frames = [
        (detections(DRONE, BIRD), marks, segments()),
        (Detections.empty(), segments(), segments((1, 1, 2, 2, 0.9))),
        (detections(BIRD), segments(), segments()),
    ]
    config = SegmentationConfig(segmenters=(SegmenterConfig("a"),), fuse=rule)
    items = list(fuse(found_in(*frames), config, names=["a", "b"], conf=0.05))
    assert [len(item.detections) for item in items] == counts
    assert [item.frame.index for item in items] == [0, 1, 2]
    assert all(set(item.timings) == {"detect", "fuse"} and set(item.segments) == {"a", "b"} for item in items)


def test_only_named_segmenters_count():
    frames = [(detections(DRONE), segments((11, 11, 12, 12, 0.9)), segments())]
    config = SegmentationConfig(segmenters=(SegmenterConfig("b"),), fuse="confirm")
    (item,) = fuse(found_in(*frames), config, names=["b"], conf=0.05)
    assert len(item.detections) == 0
