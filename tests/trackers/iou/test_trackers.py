"""What SORT, ByteTrack and OC-SORT have in common, on targets of a few pixels."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame, Gap
from pipeline.structures.tracks import TrackState
from pipeline.system.errors import UsageError
from trackers import build

TENTATIVE, CONFIRMED, COASTING = TrackState
NAMES = ("byte", "ocsort", "sort")
pytestmark = pytest.mark.parametrize("name", NAMES)


def frame(index, **options):
    return Frame(np.zeros((256, 320), np.uint8), index, Fraction(index, 30), "clip", **options)


def targets(*centres, size=4, scores=0.8, labels=0):
    """Detections of square targets."""
    points = np.reshape(np.array(centres, float), (-1, 2))
    boxes = np.concatenate([points - size / 2, points + size / 2], axis=1)
    count = len(points)
    return Detections(boxes, np.broadcast_to(scores, count), np.broadcast_to(labels, count))


def centres_of(tracks):
    return (tracks.boxes[:, :2] + tracks.boxes[:, 2:]) / 2


def followed(name, *, at=(100, 100), velocity=(1, 0), frames=10, **options):
    """A tracker with one confirmed track after `frames` frames."""
    tracker = build(name, **options)
    for index in range(frames):
        tracks = tracker.update(targets(np.add(at, np.multiply(velocity, index))), frame(index))
    assert tracks.state.tolist() == [CONFIRMED]
    return tracker


def test_a_track_is_tentative_then_confirmed_then_coasts_then_ends(name):
    tracker = build(name, birth_hits=3, coast=5)
    states = [tracker.update(targets((50 + k, 60)), frame(k)).state.tolist() for k in range(6)]
    assert states == [[TENTATIVE]] * 2 + [[CONFIRMED]] * 4
    states = [tracker.update(targets(), frame(k)).state.tolist() for k in range(6, 13)]
    assert states == [[COASTING]] * 5 + [[]] * 2
    assert tracker.update(targets((60, 60)), frame(13)).ids.tolist() == [2]


def test_two_targets_that_cross_keep_their_ids(name):
    tracker = build(name)
    for index in range(60):
        first, second = (60 + 2 * index, 60 + index), (60 + 2 * index, 120 - index)
        both = [first, second] if abs(first[1] - second[1]) > 3 else [first]  # one detection where they meet
        tracks = tracker.update(targets(*both[:: (-1) ** index]), frame(index))
    where = dict(zip(tracks.ids.tolist(), centres_of(tracks).tolist(), strict=True))
    assert set(where) == {1, 2}
    assert where[1][1] > where[2][1]
    assert tracks.state.tolist() == [CONFIRMED] * 2


@pytest.mark.parametrize("hidden", [5, 15])
def test_a_target_that_was_hidden_keeps_its_id(name, hidden):
    tracker = followed(name, frames=30)
    for index in range(30, 30 + hidden):
        tracks = tracker.update(targets(), frame(index))
        np.testing.assert_allclose(centres_of(tracks), [[100 + index, 100]], atol=1)
    tracks = tracker.update(targets((130 + hidden, 100)), frame(30 + hidden))
    assert (tracks.ids.tolist(), tracks.state.tolist()) == ([1], [CONFIRMED])


def test_single_false_alarms_are_never_confirmed(name):
    rng = np.random.default_rng(0)
    tracker = build(name)
    states = [
        tracker.update(targets(*rng.uniform((5, 5), (315, 250), (3, 2))), frame(index)).state
        for index in range(60)
    ]
    assert (np.concatenate(states) == TENTATIVE).all()


@pytest.mark.parametrize("velocity", [(0, 0), (3, 0), (4, 4)])
def test_four_pixels_are_followed_at_the_speed_of_their_size(name, velocity):
    followed(name, at=(40, 40), velocity=velocity, frames=25)


def test_without_enlarged_boxes_fast_small_targets_get_no_track(name):
    tracker = build(name, enlarge=1)
    ids = [tracker.update(targets((40 + 5 * k, 40)), frame(k)).state.tolist() for k in range(20)]
    assert not any(CONFIRMED in states for states in ids)


def test_missing_frames_are_predicted_over(name):
    tracker = followed(name, velocity=(2, 0), frames=20)
    tracks = tracker.update(targets((100 + 2 * 29, 100)), frame(29))
    assert (tracks.ids.tolist(), tracks.state.tolist(), tracks.age.tolist()) == ([1], [CONFIRMED], [29])
    tracks = tracker.update(targets((100 + 2 * 39, 100)), frame(30, time_in_frames=39.0))
    assert (tracks.ids.tolist(), tracks.state.tolist(), tracks.age.tolist()) == ([1], [CONFIRMED], [39])


def test_a_stride_is_no_gap(name):
    tracker = build(name, birth_hits=3)
    for index in range(0, 40, 4):
        tracks = tracker.update(targets((50 + index, 60)), frame(index, stride=4))
    assert (tracks.ids.tolist(), tracks.state.tolist()) == ([1], [CONFIRMED])
    np.testing.assert_allclose(tracks.velocity, [[1, 0]], atol=0.1)


def test_tracks_end_where_the_scene_changes(name):
    tracker = followed(name)
    cut = Gap("cut", 0, repeat_previous=False, elapsed_known=False)
    assert tracker.update(targets((110, 100)), frame(10, gap=cut)).ids.tolist() == [2]


def test_the_motion_of_the_camera_moves_the_tracks(name):
    tracker = followed(name, velocity=(0, 0))
    still = followed(name, velocity=(0, 0))
    motion = np.array([[1.0, 0.0, 40.0], [0.0, 1.0, 30.0]])
    assert tracker.update(targets((140, 130)), frame(10, motion=motion)).ids.tolist() == [1]
    assert still.update(targets((140, 130)), frame(10)).ids.tolist() == [1, 2]


def test_nothing_is_missed_while_the_shutter_is_closed(name):
    tracker = followed(name, velocity=(0, 0), coast=3)
    for index in range(10, 30):
        tracker.update(targets(), frame(index, seen=np.zeros((256, 320), np.uint8)))
    tracks = tracker.update(targets((100, 100)), frame(30))
    assert (tracks.ids.tolist(), tracks.state.tolist()) == ([1], [CONFIRMED])


def test_a_track_that_leaves_the_frame_ends(name):
    tracker = followed(name, at=(290, 100), velocity=(2, 0), frames=15)
    assert [len(tracker.update(targets(), frame(index))) for index in (15, 16, 17)] == [1, 0, 0]


def test_the_label_is_that_of_the_best_detection(name):
    tracker = build(name)
    for index, (label, score) in enumerate([(0, 0.5), (1, 0.9), (0, 0.6)]):
        tracks = tracker.update(targets((50, 50), labels=label, scores=score), frame(index))
    assert (tracks.labels.tolist(), tracks.scores.tolist()) == ([1], [pytest.approx(0.6)])


def random_sequence(seed):
    rng = np.random.default_rng(seed)
    paths = rng.uniform(50, 200, (6, 2)) + rng.uniform(-2, 2, (6, 2)) * np.arange(60)[:, None, None]
    for index, points in enumerate(paths):
        points = points[rng.random(6) < 0.7] + rng.normal(0, 0.5, (1, 2))
        clutter = rng.uniform(0, 250, (4, 2))
        found = np.concatenate([points, clutter])
        motion = np.column_stack([np.eye(2), rng.normal(0, 1, 2)]) if index % 3 else None
        yield targets(*found, scores=rng.uniform(0.1, 0.9, len(found))), frame(index, motion=motion)


def test_a_replay_gives_the_same_tracks_also_after_a_reset(name):
    tracker = build(name)
    runs = []
    for _ in range(2):
        runs.append([tracker.update(*step) for step in random_sequence(3)])
        tracker.reset()
    assert max(tracks.ids.max(initial=0) for tracks in runs[0]) > 6
    for first, second in zip(*runs, strict=True):
        for column in ("boxes", "ids", "state", "scores", "labels", "velocity", "age"):
            np.testing.assert_array_equal(getattr(first, column), getattr(second, column))


def test_the_order_of_detections_does_not_matter_for_the_boxes(name):
    first, second = build(name), build(name)
    for found, where in random_sequence(4):
        ours = first.update(found, where)
        theirs = second.update(found[::-1], where)
        rows = [np.sort(tracks.boxes[:, 0]) for tracks in (ours, theirs)]
        np.testing.assert_allclose(*rows, atol=1e-3)


def test_frames_must_come_in_order(name):
    tracker = followed(name)
    with pytest.raises(ValueError, match="frame index 9 after 9"):
        tracker.update(targets(), frame(9))


def test_options_that_are_unknown_or_out_of_range_are_refused(name):
    with pytest.raises(UsageError, match=r"unknown tracker option 'enlage'.*enlarge"):
        build(name, enlage=3)
    with pytest.raises(UsageError, match=r"enlarge = 0\.5, expected 1 to 100"):
        build(name, enlarge=0.5)
    with pytest.raises(UsageError, match="min_iou = 2, expected 0 to 1"):
        build(name, min_iou=2)
