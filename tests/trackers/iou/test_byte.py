"""ByteTrack: what detections of low score may do, and what they may not."""

from __future__ import annotations

from pipeline.structures.tracks import TrackState
from tests.trackers.iou.test_trackers import frame, targets
from trackers import build

TENTATIVE, CONFIRMED, COASTING = TrackState
SETTINGS = {"high_score": 0.5, "start_score": 0.6, "low_score": 0.2, "birth_hits": 2}


def confirmed():
    tracker = build("byte", **SETTINGS)
    for index in range(5):
        tracks = tracker.update(targets((50, 50)), frame(index))
    assert tracks.state.tolist() == [CONFIRMED]
    return tracker


def test_detections_of_low_score_keep_a_track_alive():
    tracker = confirmed()
    for index in range(5, 50):
        tracks = tracker.update(targets((50, 50), scores=0.3), frame(index))
        assert (tracks.ids.tolist(), tracks.state.tolist()) == ([1], [CONFIRMED])


def test_detections_below_the_low_score_do_not():
    assert confirmed().update(targets((50, 50), scores=0.1), frame(5)).state.tolist() == [COASTING]


def test_a_coasting_track_comes_back_by_a_high_score_alone():
    tracker = confirmed()
    tracker.update(targets(), frame(5))
    tracker.update(targets(), frame(6))
    assert tracker.update(targets((50, 50), scores=0.3), frame(7)).state.tolist() == [COASTING]
    assert tracker.update(targets((50, 50), scores=0.55), frame(8)).state.tolist() == [CONFIRMED]


def test_high_scores_are_assigned_before_low_ones_that_are_nearer():
    tracker = confirmed()
    tracks = tracker.update(targets((50, 50), (53, 50), scores=[0.3, 0.9]), frame(5))
    assert tracks.ids.tolist() == [1]
    assert tracks.scores[0] > 0.8


def test_a_track_starts_at_the_start_score():
    for score, states in ((0.55, []), (0.65, [TENTATIVE])):
        tracker = build("byte", **SETTINGS)
        assert tracker.update(targets((50, 50), scores=score), frame(0)).state.tolist() == states


def test_a_tentative_track_that_is_missed_once_ends():
    tracker = build("byte", **SETTINGS)
    tracker.update(targets((50, 50)), frame(0))
    assert len(tracker.update(targets(), frame(1))) == 0
    assert tracker.update(targets((50, 50)), frame(2)).ids.tolist() == [2]
