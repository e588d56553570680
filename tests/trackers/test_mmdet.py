"""Trackers of mmdet with the interface of the pipeline."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.tracks import TrackState
from pipeline.system.errors import UsageError
from trackers import build
from trackers.mmdet import MmdetTracker

BOTH = pytest.mark.parametrize("name", ["mmdet:ByteTracker", "mmdet:OCSORTTracker"])


def frame(index: int) -> Frame:
    return Frame(np.zeros((200, 300), np.uint8), index, Fraction(index, 25), "made")


def at(*centres, score: float = 0.9, half: tuple[int, int] = (5, 4)) -> Detections:
    boxes = [[x - half[0], y - half[1], x + half[0], y + half[1]] for x, y in centres]
    return Detections(np.reshape(boxes, (-1, 4)), np.full(len(boxes), score), np.zeros(len(boxes)))


@pytest.mark.slow
@BOTH
def test_two_targets_keep_their_ids_and_have_velocities(name):
    tracker = build(name)
    for step in range(10):
        tracks = tracker.update(at((50 + 2 * step, 40), (200, 150 - step)), frame(7 + step))
        assert tracks.ids.tolist() == [1, 2]
        assert tracks.age.tolist() == [step, step]
        assert set(tracks.state.tolist()) == {TrackState.CONFIRMED}
    assert tracks.boxes[0].tolist() == pytest.approx([63, 36, 73, 44])
    np.testing.assert_allclose(tracks.velocity, [[2, 0], [0, -1]], atol=0.2)
    assert tracks.scores.tolist() == pytest.approx([0.9, 0.9])


@BOTH
def test_a_target_that_appears_later_is_tentative_first(name):
    tracker = build(name)
    tracker.update(at((50, 40)), frame(0))
    states = [tracker.update(at((50, 40), (200, 150)), frame(n)).state.tolist()[1] for n in range(1, 5)]
    assert states == [TrackState.TENTATIVE] * 2 + [TrackState.CONFIRMED] * 2


@BOTH
def test_a_target_that_is_missed_for_some_frames_keeps_its_id(name):
    tracker = build(name)
    for index in range(5):
        tracker.update(at((50, 40)), frame(index))
    assert len(tracker.update(Detections.empty(), frame(5))) == 0
    assert tracker.update(at((51, 40)), frame(6)).ids.tolist() == [1]


@BOTH
def test_a_target_of_four_pixels_is_followed_at_the_speed_of_its_size(name):
    ids = {1.0: set(), 4.0: set()}
    for enlarge, seen in ids.items():
        tracker = build(name, enlarge=enlarge)
        for index in range(12):
            tracks = tracker.update(at((50 + 4 * index, 40 + 2 * index), half=(2, 2)), frame(index))
            seen |= set(tracks.ids.tolist())
    assert ids[4.0] == {1}
    assert tracks.boxes[0].tolist() == pytest.approx([92, 60, 96, 64], abs=1e-4)
    assert len(ids[1.0]) > 1


@BOTH
def test_a_reset_starts_with_id_one_again(name):
    tracker = build(name)
    for index in range(3):
        tracker.update(at((50, 40), (100, 100)), frame(index))
    tracker.reset()
    assert len(tracker.update(Detections.empty(), frame(0))) == 0
    assert tracker.update(at((50, 40)), frame(1)).ids.tolist() == [1]


@BOTH
def test_detections_that_start_tracks_of_the_default_tracker_start_tracks(name):
    def started(score, **options):
        return len(build(name, **options).update(at((50, 40), score=score), frame(0)))

    assert started(0.5) == 1
    assert started(0.4) == 0
    assert started(0.5, init_track_thr=0.6) == 0  # options reach the tracker of mmdet


def test_the_options_of_a_tracker_of_mmdet_are_recorded_with_their_defaults():
    tracker = build("mmdet:ByteTracker", obj_score_thrs={"high": 0.4})
    assert (tracker.options.obj_score_thrs.high, tracker.options.obj_score_thrs.low) == (0.4, 0.3)
    for index in range(4):  # both thresholds are used from the second frame on
        tracks = tracker.update(at((50, 40), (200, 150), score=0.42), frame(index))
    assert len(tracks) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 3}, "unknown configuration key 'tracker.options.patience'"),
        ({"obj_score_thrs": {"height": 0.4}}, "did you mean 'tracker.options.obj_score_thrs.high'"),
        ({"obj_score_thrs": 0.4}, "'tracker.options.obj_score_thrs' is a section, got 0.4"),
        (
            {"init_track_thr": "high"},
            "'tracker.options.init_track_thr' = \"high\", expected none or a number",
        ),
        ({"init_track_thr": 7}, "init_track_thr = 7, expected 0 to 1"),
    ],
)
def test_options_of_mmdet_that_are_wrong_are_refused_in_one_line(options, message):
    with pytest.raises(UsageError, match=message):
        build("mmdet:ByteTracker", **options)


def test_other_names_are_refused():
    with pytest.raises(
        UsageError, match=r"unknown tracker 'mmdet:ByteTrack'; did you mean 'mmdet:ByteTracker'"
    ):
        build("mmdet:ByteTrack")
    with pytest.raises(UsageError, match="unknown mmdet tracker 'SORTTracker'"):
        MmdetTracker("SORTTracker")
