"""Contours show the mask of each segmenter, and cover no pixel of any mask."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pipeline.drawing.annotator import Annotator, AnnotatorOptions
from pipeline.drawing.contours import PALETTE, contour_colour, draw_contours, protected_pixels
from pipeline.structures.detections import Detections, Segments
from pipeline.structures.frame import Frame
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks, TrackState

GROUND = 60
BARE = AnnotatorOptions(trail=0, insets=0, labels=False)


def square(left, top, side, shape=(96, 128)):
    mask = np.zeros(shape, bool)
    mask[max(top, 0) : top + side, max(left, 0) : left + side] = True
    return mask


def outlined(*masks, thickness=1):
    canvas = np.full((*masks[0].shape, 3), GROUND, np.uint8)
    draw_contours(canvas, masks, protected=protected_pixels(masks), thickness=thickness)
    return canvas


def drawn(canvas):
    return (canvas != GROUND).any(axis=-1)


@pytest.mark.parametrize("side", [1, 3, 12])
@pytest.mark.parametrize("thickness", [1, 2])
def test_the_line_leaves_its_own_width_around_the_mask_and_no_more(side, thickness):
    canvas = outlined(square(50, 40, side), thickness=thickness)
    lines = drawn(canvas)
    assert not lines[40 : 40 + side, 50 - thickness : 50 + side + thickness].any()
    assert not lines[40 - thickness : 40 + side + thickness, 50 : 50 + side].any()
    row = np.flatnonzero(lines[40])
    left, right = 50 - 2 * thickness, 50 + side + thickness
    assert row.tolist() == [*range(left, left + thickness), *range(right, right + thickness)]
    assert (canvas[40, row] == contour_colour(0)).all()


def test_segmenters_that_agree_have_one_line_each():
    masks = [square(50, 40, 3)] * len(PALETTE)
    canvas = outlined(*masks)
    colours = [tuple(colour) for colour in canvas[41, 53 : 54 + len(PALETTE)].tolist()]
    assert colours == [(GROUND,) * 3, *PALETTE]
    assert len(set(PALETTE)) == len(PALETTE)


def test_no_line_covers_what_another_segmenter_marked():
    first, second = square(50, 40, 3), square(54, 40, 6)
    lines = drawn(outlined(first, second))
    assert not (lines & (first | second)).any()
    assert lines.any()


@pytest.mark.parametrize("index", [0, 1])
def test_a_segmenter_that_marks_everything_does_not_hide_the_contour_of_another(index):
    target, everything = square(50, 40, 3), np.ones((96, 128), bool)
    masks = [everything]
    masks.insert(index, target)
    canvas = outlined(*masks)
    assert (canvas == contour_colour(index)).all(axis=-1).any()
    assert not (drawn(canvas) & target).any()


@pytest.mark.parametrize("corner", [(0, 0), (125, 93), (-2, 50)])
def test_a_mask_at_the_border_is_outlined_as_far_as_there_is_room(corner):
    mask = square(*corner, 3)
    lines = drawn(outlined(mask))
    assert lines.any()
    assert not (lines & mask).any()


def test_empty_masks_draw_nothing():
    assert not drawn(outlined(square(0, 0, 0), square(0, 0, 0))).any()


# In the annotated image


def segments(mask):
    """Makes the segments of a mask with one component."""
    rows, columns = np.nonzero(mask)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return Segments(mask.astype(np.int32), Detections([box], [1.0], [0]))


def result(image, marks, *boxes):
    tracks = Tracks(
        np.reshape(boxes, (len(boxes), 4)),
        [0.9] * len(boxes),
        [0] * len(boxes),
        range(1, len(boxes) + 1),
        [TrackState.CONFIRMED] * len(boxes),
        np.zeros((len(boxes), 2)),
        [9] * len(boxes),
    )
    return Result(
        Frame(image, 0, Fraction(0), "test"), Detections.empty(), False, segments=dict(marks), tracks=tracks
    )


def changed(annotated, image):
    return (annotated != image[..., None]).any(axis=-1)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(40, 160, (256, 320)).astype(np.uint8)


def test_the_image_has_contours_and_names_in_their_colours(image):
    mask = square(100, 90, 4, image.shape)
    annotated = Annotator(BARE)(result(image, {"rdian": segments(mask), "madnet": segments(mask)}))
    difference = changed(annotated, image)
    assert not (difference & mask).any()
    for index in (0, 1):
        coloured = (annotated == contour_colour(index)).all(axis=-1)
        assert coloured[80:110, 80:120].any()
        assert coloured[-12:].any()


def test_contours_can_be_left_out(image):
    options = AnnotatorOptions(trail=0, insets=0, labels=False, contours=False)
    mask = square(100, 90, 4, image.shape)
    assert not changed(Annotator(options)(result(image, {"rdian": segments(mask)})), image).any()


def test_without_segmenters_nothing_is_named(image):
    assert not changed(Annotator(BARE)(result(image, {})), image).any()


def test_a_box_is_drawn_over_contours_and_its_marked_pixels_stay(image):
    mask, box = square(100, 90, 4, image.shape), (100, 90, 104, 94)
    alone = Annotator(BARE)(result(image, {}, box))
    both = Annotator(BARE)(result(image, {"rdian": segments(mask)}, box))
    lines = changed(alone, image)
    assert lines.any()
    assert (both[lines] == alone[lines]).all()
    assert not (changed(both, image) & mask).any()


def test_an_inset_has_the_contour_at_its_own_scale(image):
    mask, box = square(100, 90, 4, image.shape), (100, 90, 104, 94)
    options = AnnotatorOptions(trail=0, insets=1, labels=False)
    plain = Annotator(options)(result(image, {}, box))
    marked = Annotator(options)(result(image, {"rdian": segments(mask)}, box))
    coloured = (marked == contour_colour(0)).all(axis=-1) & ~(plain == contour_colour(0)).all(axis=-1)
    coloured[80:110, 80:120] = False  # the target itself
    coloured[-12:, :40] = False  # the name
    rows, columns = np.nonzero(coloured)
    zoom = options.inset_zoom
    assert np.ptp(columns) + 1 == pytest.approx(4 * zoom + 4, abs=1)  # a line and its distance on both sides
    assert np.ptp(rows) + 1 == pytest.approx(4 * zoom + 4, abs=1)
