"""OC-SORT: momentum, re-update and recovery, each against the tracker without it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pipeline.structures.tracks import TrackState
from tests.conftest import PROJECT_ROOT
from tests.trackers.iou.test_trackers import centres_of, frame, targets
from trackers import build

CONFIRMED = TrackState.CONFIRMED


def followed(path, **options):
    """A tracker of one target along `path` (N, 2), NaN where it is hidden; and its tracks in each frame."""
    tracker = build("ocsort", **options)
    tracks = [
        tracker.update(targets(*([] if np.isnan(point[0]) else [point])), frame(index))
        for index, point in enumerate(np.asarray(path, float))
    ]
    return tracker, tracks


def straight(count, velocity=(2.0, 0.0)):
    return np.array([60.0, 100.0]) + np.outer(np.arange(count), velocity)


def test_momentum_prefers_the_detection_ahead_to_a_nearer_one_aside():
    path = straight(12)  # 2 pixels a frame to the right
    ahead, aside = path[-1] + (4.5, 0), path[-1] + (2, 2)
    chosen = {}
    for weight in (0.0, 3.0):
        tracker, _ = followed(path, direction_weight=weight)
        tracks = tracker.update(targets(ahead, aside, scores=[0.7, 0.8]), frame(12))
        chosen[weight] = tracks.scores[tracks.ids.tolist().index(1)]
    assert chosen == {0.0: pytest.approx(0.8), 3.0: pytest.approx(0.7)}


def test_after_a_gap_the_velocity_is_that_of_the_straight_way():
    path = straight(40)
    path[20:32] = np.nan
    path[32] = path[19] + (5, 6)  # it has turned meanwhile
    _, tracks = followed(path[:33])
    assert tracks[-1].ids.tolist() == [1]
    moved = (path[32] - path[19]) / 13
    np.testing.assert_allclose(tracks[-1].velocity[0], moved, atol=0.4)  # the filter averages
    assert np.abs(tracks[31].velocity[0] - (2, 0)).max() < 0.15


def test_a_target_that_stood_still_while_hidden_is_found_at_its_last_box():
    path = np.concatenate([straight(20), np.full((15, 2), np.nan)])
    tracker, tracks = followed(path)
    assert centres_of(tracks[-1])[0, 0] == pytest.approx(60 + 2 * 34, abs=2)
    found = tracker.update(targets(straight(20)[-1]), frame(35))
    assert (found.ids.tolist(), found.state.tolist()) == ([1], [CONFIRMED])
    sort = build("sort")
    for index, point in enumerate(path):
        sort.update(targets(*([] if np.isnan(point[0]) else [point])), frame(index))
    assert sort.update(targets(straight(20)[-1]), frame(35)).ids.tolist() == [1, 2]


def test_directions_are_those_of_the_scene_while_the_camera_turns():
    turn = np.array([[0.0, -1.0, 320.0], [1.0, 0.0, 0.0]])  # a quarter about the middle of the left half
    tracker, _ = followed(straight(12))
    last = straight(13)[-1]
    turned = turn[:, :2] @ last + turn[:, 2]
    tracks = tracker.update(targets(turned), frame(12, motion=turn))
    assert tracks.ids.tolist() == [1]
    np.testing.assert_allclose(tracker._directions, [[0, 1]], atol=0.1)


def test_detections_of_low_score_continue_tracks_and_start_none():
    tracker, _ = followed(straight(12), high_score=0.5, low_score=0.2)
    last = straight(13)[-1]
    tracks = tracker.update(targets(last, (250, 200), scores=0.3), frame(12))
    assert (tracks.ids.tolist(), tracks.state.tolist()) == ([1], [CONFIRMED])


def test_no_network_library_is_loaded_for_trackers_by_overlap():
    command = "import trackers, sys; [trackers.build(n) for n in ('byte', 'ocsort', 'sort')]; "
    command += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", command], cwd=PROJECT_ROOT, check=True)
