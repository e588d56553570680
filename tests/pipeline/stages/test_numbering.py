"""Ids of tracks: confirmed ones without gaps, tentative ones that can be found again."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pipeline.drawing.annotator import Annotator, AnnotatorOptions
from pipeline.sinks.jsonl_codec import track_records, tracks_of
from pipeline.stages import tracking
from pipeline.stages.assignment import track_ids
from pipeline.stages.tracking import NumberedTracker, track
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.results import FrameDetections
from pipeline.structures.tracks import Tracks, TrackState

TENTATIVE, CONFIRMED, COASTING = TrackState


class Scripted:
    """A tracker that returns tracks as written down: one list of (id, state) for each frame."""

    def __init__(self, *script):
        self._script, self._next = script, 0

    def update(self, detections, frame):
        rows = self._script[self._next]
        self._next += 1
        boxes = [(10 * own, 10, 10 * own + 5, 15) for own, _ in rows]
        ids, states = [own for own, _ in rows], [state for _, state in rows]
        count = len(rows)
        return Tracks(
            np.reshape(boxes, (-1, 4)),
            np.full(count, 0.5),
            np.zeros(count),
            ids,
            states,
            np.zeros((count, 2)),
            np.zeros(count),
        )

    def reset(self):
        self._next = 0


def frame(index):
    return Frame(np.zeros((64, 320), np.uint8), index, Fraction(index, 30), "clip")


def numbered(*script, tracker=None):
    """The ids, states and provisional ids of each frame."""
    tracker = tracker or NumberedTracker(Scripted(*script))
    results = [tracker.update(Detections.empty(), frame(index)) for index in range(len(script))]
    return [
        list(
            zip(
                tracks.ids.tolist(),
                tracks.state.tolist(),
                tracks.provisional.tolist() if len(tracks) else [],
                strict=True,
            )
        )
        for tracks in results
    ]


def test_confirmed_tracks_count_from_one_in_the_order_of_their_confirmation():
    found = numbered(
        [(3, TENTATIVE), (7, TENTATIVE), (8, TENTATIVE)],
        [(3, TENTATIVE), (7, CONFIRMED), (8, TENTATIVE)],
        [(3, CONFIRMED), (7, COASTING), (9, TENTATIVE)],
        [(3, CONFIRMED), (7, CONFIRMED), (9, CONFIRMED)],
    )
    assert found == [
        [(-3, TENTATIVE, 0), (-7, TENTATIVE, 0), (-8, TENTATIVE, 0)],
        [(1, CONFIRMED, -7), (-3, TENTATIVE, 0), (-8, TENTATIVE, 0)],
        [(1, COASTING, 0), (2, CONFIRMED, -3), (-9, TENTATIVE, 0)],
        [(1, CONFIRMED, 0), (2, CONFIRMED, 0), (3, CONFIRMED, -9)],
    ]


def test_tracks_confirmed_at_once_are_numbered_by_their_ids_and_were_never_tentative():
    assert numbered([(12, CONFIRMED), (4, CONFIRMED)]) == [[(1, CONFIRMED, 0), (2, CONFIRMED, 0)]]


def test_a_track_that_the_tracker_does_not_return_for_a_while_keeps_its_number():
    found = numbered([(5, CONFIRMED)], [], [(6, CONFIRMED)], [(5, CONFIRMED)])
    assert [[row[0] for row in rows] for rows in found] == [[1], [], [2], [1]]


def test_a_track_that_becomes_tentative_again_keeps_its_number():
    assert numbered([(5, CONFIRMED)], [(5, TENTATIVE)])[1] == [(1, TENTATIVE, 0)]


def test_memory_of_ended_tracks_is_bounded(monkeypatch):
    monkeypatch.setattr(tracking, "REMEMBERED", 10)
    script = [[(1 + index, CONFIRMED)] for index in range(95)]
    tracker = NumberedTracker(Scripted(*script))
    assert [rows[0][0] for rows in numbered(*script, tracker=tracker)] == list(range(1, 96))
    assert len(tracker._numbers) == len(tracker._seen) <= 20


def test_a_new_sequence_counts_from_one_again():
    tracker = NumberedTracker(Scripted([(5, CONFIRMED)]))
    before = tracker.update(Detections.empty(), frame(0))
    tracker.reset()
    after = tracker.update(Detections.empty(), frame(0))
    assert before.ids.tolist() == after.ids.tolist() == [1]


def test_the_stage_numbers_the_tracks_of_any_tracker_once():
    script = [[(5, TENTATIVE)], [(5, CONFIRMED)]]
    items = [FrameDetections(frame(index), Detections.empty(), False) for index in range(2)]
    for tracker in (Scripted(*script), NumberedTracker(Scripted(*script))):
        assert [result.tracks.ids.tolist() for result in track(items, tracker)] == [[-5], [1]]


@pytest.mark.parametrize("state", [TENTATIVE, CONFIRMED])
def test_records_hold_the_provisional_id_in_the_frame_of_confirmation_alone(state):
    tracker = NumberedTracker(Scripted([(5, TENTATIVE)], [(5, state)], [(5, state)]))
    tracks = [tracker.update(Detections.empty(), frame(index)) for index in range(3)]
    rows = [track_records(one)[0] for one in tracks]
    wanted = None if state == TENTATIVE else -5
    assert [row.get("provisional") for row in rows] == [None, wanted, None]
    for one, row in zip(tracks, rows, strict=True):
        again = tracks_of({"tracks": [row]})
        assert (again.ids, again.provisional) == (one.ids, one.provisional)


def test_the_trail_of_a_track_begins_before_its_confirmation():
    annotator = Annotator(AnnotatorOptions(trail=10))
    script = [[(5, TENTATIVE)], [(5, TENTATIVE)], [(5, CONFIRMED)], [(5, COASTING)]]
    items = [FrameDetections(frame(index), Detections.empty(), False) for index in range(4)]
    lengths = []
    for result in track(items, Scripted(*script)):
        annotator(result)
        lengths.append({number: len(trail) for number, trail in annotator._trails.items()})
    assert lengths == [{-5: 1}, {-5: 2}, {1: 3}, {1: 4}]


def test_arrays_hold_the_provisional_id_of_a_tentative_track():
    found = Detections([(50, 10, 55, 15)], [0.5], [0])
    tracks = NumberedTracker(Scripted([(5, TENTATIVE)])).update(found, frame(0))
    assert track_ids(found, tracks).tolist() == [-5]
