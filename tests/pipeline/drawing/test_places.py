"""Zones, lines and masks are drawn thinly, and a track in an event is marked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.drawing.annotator import Annotator, AnnotatorOptions, colour_of
from pipeline.drawing.places import COLOURS, Outline, draw_places
from tests.support.watched_tracks import engine, flight, results

BARE = AnnotatorOptions(trail=0, insets=0, labels=False)
SQUARE = np.array([[10.0, 10.0], [60.0, 10.0], [60.0, 50.0], [10.0, 50.0]])


def drawn(canvas, colour):
    """Which pixels of a canvas have a colour, (H, W) bool."""
    return (canvas == colour).all(-1)


def test_outlines_are_one_pixel_wide_and_leave_the_inside_as_it_is():
    canvas = np.zeros((80, 100, 3), np.uint8)
    draw_places(canvas, [Outline("trees", "mask", (SQUARE,))], 1)
    marked = drawn(canvas, COLOURS["mask"])
    assert marked.sum() == 2 * (50 + 40)
    assert marked[10, 10:61].all()
    assert marked[10:51, 60].all()
    assert not canvas[11:50, 11:60].any()


def test_a_place_at_the_border_is_visible():
    canvas = np.zeros((80, 100, 3), np.uint8)
    edge = np.array([[50.0, 0.0], [100.0, 0.0], [100.0, 80.0], [50.0, 80.0]])
    draw_places(canvas, [Outline("right", "mask", (edge,))], 1)
    marked = drawn(canvas, COLOURS["mask"])
    assert marked[:, 99].all()
    assert marked[79, 50:].all()


def test_a_line_is_open_and_has_a_head_at_its_last_point():
    canvas = np.zeros((80, 100, 3), np.uint8)
    draw_places(canvas, [Outline("fence", "line", (np.array([[20.0, 40.0], [80.0, 40.0]]),))], 1)
    rows = np.flatnonzero(drawn(canvas, COLOURS["line"])[:, 76:81].any(axis=1))
    assert (rows.min(), rows.max()) == (38, 42)
    assert not drawn(canvas, COLOURS["line"])[:37, 60:].any()


def test_places_are_drawn_under_targets_and_can_be_left_out():
    (result,) = list(results(flight(1, "c", start=(10.0, 10.0))))
    for wanted in (True, False):
        annotator = Annotator(replace(BARE, places=wanted))
        annotator.places = [Outline("field", "zone", (SQUARE,))]
        canvas = annotator(result)
        assert drawn(canvas, COLOURS["zone"]).any() == wanted
        assert not canvas[8:12, 8:12].any()  # the pixels of the target


def test_a_track_in_an_event_has_a_second_line():
    watch = engine({"min_duration": 0.2})
    annotator, counts = Annotator(BARE), []
    for result in watch.watch(results(flight(1, "cccc", start=(40.0, 40.0), step=(0.0, 0.0)))):
        counts.append(int(drawn(annotator(result), colour_of(1)).sum()))
    assert counts[0] == counts[1] > 0
    assert counts[2] == counts[3] > 2 * counts[0]


def test_the_rule_is_written_beside_the_track():
    def picture(name):
        watch = engine([{"name": name, "min_duration": 0}])
        annotator = Annotator(replace(BARE, labels=True))
        (result,) = watch.watch(results(flight(1, "c", start=(40.0, 40.0))))
        return annotator(result)

    assert (picture("a") != picture("gate")).any()
