"""Frames, detections, tracks and results are validated on construction."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pipeline.structures.detections import Detections, Segments
from pipeline.structures.frame import Frame
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks

BOXES = [[0, 0, 2, 2], [1, 1, 4, 5], [3.5, 3, 9, 8]]


def frame(image, **changes) -> Frame:
    return Frame(image, **{"index": 0, "pts": Fraction(0), "source": "test", **changes})


def detections(**changes) -> Detections:
    return Detections(**{"boxes": BOXES, "scores": [0.9, 0.5, 0.1], "labels": [0, 1, 0], **changes})


def tracks(**changes) -> Tracks:
    values = {
        "boxes": BOXES,
        "scores": [0.9, 0.5, 0.1],
        "labels": [0, 1, 0],
        "ids": [4, 7, 9],
        "state": [1, 1, 2],
        "velocity": np.zeros((3, 2)),
        "age": [1, 2, 3],
    }
    return Tracks(**{**values, **changes})


# Frames


@pytest.mark.parametrize(
    ("shape", "dtype", "bits"),
    [((6, 8), np.uint8, 8), ((6, 8, 3), np.uint8, 8), ((6, 8), np.uint16, 14), ((6, 8), np.uint8, 5)],
    ids=["grey", "colour", "14 bits", "5 bits"],
)
def test_pictures_of_a_camera_are_frames(shape, dtype, bits):
    made = frame(np.zeros(shape, dtype), bit_depth=bits)
    assert (made.width, made.height) == (8, 6)


@pytest.mark.parametrize(
    ("shape", "dtype", "changes", "named"),
    [
        ((6, 8, 4), np.uint8, {}, "shape"),
        ((6,), np.uint8, {}, "shape"),
        ((6, 8), np.float32, {}, "float32"),
        ((6, 8), np.uint8, {"index": -1}, "index"),
        ((6, 8), np.uint8, {"bit_depth": 12}, "bit_depth = 12"),
        ((6, 8), np.uint16, {"bit_depth": 0}, "bit_depth = 0"),
    ],
    ids=["four channels", "one row", "floats", "negative index", "too deep", "no depth"],
)
def test_what_is_no_frame_is_refused_by_name(shape, dtype, changes, named):
    with pytest.raises(ValueError, match=named):
        frame(np.zeros(shape, dtype), **changes)


# Detections


def test_fields_become_arrays_of_the_documented_types():
    made = detections()
    assert (made.boxes.dtype, made.scores.dtype, made.labels.dtype) == (np.float32, np.float32, np.int64)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"boxes": np.zeros((3, 5))}, "boxes"),
        ({"boxes": []}, "boxes"),
        ({"scores": [0.5]}, "scores"),
        ({"labels": [[0], [0], [0]]}, "labels"),
        ({"masks": np.zeros((2, 4, 4))}, "masks"),
        ({"masks": np.zeros(3)}, "masks"),
        ({"boxes": [*BOXES[:2], [5, 5, 4, 6]]}, "x1 <= x2"),
        ({"boxes": [*BOXES[:2], [5, 7, 6, 6]]}, "y1 <= y2"),
        ({"boxes": [*BOXES[:2], [0, 0, np.nan, 6]]}, "NaN"),
        ({"boxes": [*BOXES[:2], [0, 0, np.inf, 6]]}, "infinite"),
    ],
    ids=[
        *("five numbers", "no columns", "too few scores", "columns of labels", "too few masks", "flat masks"),
        *("left of right", "top of bottom", "NaN", "infinite"),
    ],
)
def test_wrong_detections_are_refused_by_name(changes, named):
    with pytest.raises(ValueError, match=named):
        detections(**changes)


def test_detections_cannot_be_changed():
    made = detections()
    with pytest.raises(ValueError, match="read-only"):
        made.boxes[0, 0] = 1


def test_detections_do_not_change_with_the_array_they_were_made_from():
    mine = np.array(BOXES, dtype=np.float32)
    made = detections(boxes=mine)
    mine[:] = 0
    assert made.boxes[2, 0] == 3.5


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        (slice(1, None), [1, 2]),
        ([2, 0], [2, 0]),
        (np.array([True, False, True]), [0, 2]),
        (np.array([False, False, False]), []),
        (slice(0, 1), [0]),
    ],
    ids=["slice", "indices", "mask", "nothing", "one"],
)
def test_rows_are_selected_in_all_fields_together(rows, kept):
    masks = np.arange(3)[:, None, None] == np.ones((1, 2, 2))
    found = detections(masks=masks)[rows]
    np.testing.assert_array_equal(found.boxes, np.reshape(np.array(BOXES)[kept], (-1, 4)))
    np.testing.assert_array_equal(found.labels, np.array([0, 1, 0])[kept])
    np.testing.assert_array_equal(found.masks, masks[kept])


def test_a_single_row_is_refused():
    with pytest.raises(ValueError, match="boxes"):
        detections()[0]


@pytest.mark.parametrize("kind", [Detections, Tracks])
def test_nothing_is_legal(kind):
    assert len(kind.empty()) == len(kind.empty()[kind.empty().scores > 0.5]) == 0


def test_detections_and_tracks_print_in_a_line():
    assert repr(detections(masks=np.zeros((3, 40, 40)))) == "Detections(3 boxes, scores 0.10 to 0.90)"
    assert repr(tracks()) == "Tracks(3 boxes, scores 0.10 to 0.90)"
    assert repr(Detections.empty()) == "Detections(0 boxes)"


# Tracks


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"ids": [4, 7, 4]}, r"ids must differ: \[4, 7, 4\]"),
        ({"velocity": np.zeros(3)}, "velocity"),
        ({"age": [1]}, "age"),
        ({"boxes": [*BOXES[:2], [5, 5, 4, 6]]}, "x1 <= x2"),
    ],
    ids=["same id twice", "flat velocity", "too few ages", "inside out"],
)
def test_wrong_tracks_are_refused_by_name(changes, named):
    with pytest.raises(ValueError, match=named):
        tracks(**changes)


def test_rows_of_tracks_keep_their_ids():
    found = tracks()[[2, 0]]
    assert found.ids.tolist() == [9, 4]
    assert found.age.tolist() == [3, 1]


@pytest.mark.parametrize("score", [float("nan"), 7.0, -0.1])
def test_scores_are_shares(score):
    with pytest.raises(ValueError, match="0 to 1"):
        Detections([[0, 0, 1, 1]], [score], [0])


# Segments

REGIONS = [[1, 1, 0, 0], [0, 0, 0, 2], [3, 0, 0, 2]]


def segments(regions=REGIONS) -> Segments:
    return Segments(regions, detections())


def test_segments_give_one_mask_for_each_component():
    masks = list(segments().masks())
    assert [np.argwhere(mask).tolist() for mask in masks] == [[[0, 0], [0, 1]], [[1, 3], [2, 3]], [[2, 0]]]
    assert len(segments()) == len(masks) == 3


@pytest.mark.parametrize(
    "regions",
    [[[1, 2, 0]], [[1, 2, 3, 4]], [[1, 3, 4]], [[1, 2, 3, -1]], [1, 2, 3]],
    ids=["one is missing", "one too many", "a gap", "negative", "a row alone"],
)
def test_regions_that_do_not_fit_their_components_are_refused(regions):
    with pytest.raises(ValueError, match=r"exactly the numbers 1 to 3|negative|expected \(H, W\)"):
        segments(regions)


def test_segments_cannot_be_changed():
    regions = np.array(REGIONS)
    found = segments(regions)
    regions[:] = 0
    assert found.regions.any()
    with pytest.raises(ValueError, match="read-only"):
        found.regions[0, 0] = 0


def result(size, known):
    image = frame(np.zeros(size, np.uint8))
    return Result(image, Detections.empty(), warmup=False, segments=known, tracks=Tracks.empty())


def test_a_result_holds_segments_of_its_frame_and_they_cannot_be_exchanged():
    known = {"rdian": segments()}
    found = result((3, 4), known)
    known["madnet"] = segments()
    assert list(found.segments) == ["rdian"]
    with pytest.raises(TypeError):
        found.segments["rdian"] = segments()
    with pytest.raises(ValueError, match=r"'rdian' have shape \(3, 4\), expected \(4, 3\)"):
        result((4, 3), known)
