"""The life cycle of tracks, step by step, and invariants of the tracker."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.tracks import TrackState
from trackers import build

TENTATIVE, CONFIRMED, COASTING = TrackState
WIDTH, HEIGHT = 320, 256


def frame(index, *, stride=1, motion=None):
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    return Frame(image, index, Fraction(index, 30), "clip", stride=stride, motion=motion)


def targets(*centres, size=6, scores=0.9, labels=0):
    """Returns detections of square targets around `centres` (x, y)."""
    centres = np.reshape(np.array(centres, float), (-1, 2))
    boxes = np.concatenate([centres - size / 2, centres + size / 2], axis=1)
    count = len(centres)
    return Detections(boxes, np.broadcast_to(scores, count), np.broadcast_to(labels, count))


def centres_of(tracks):
    return (tracks.boxes[:, :2] + tracks.boxes[:, 2:]) / 2


def confirmed_tracker(*, at=(100, 100), velocity=(0, 0), frames=10, **options):
    """Returns a tracker whose only track, of id 1, was hit in the frames 0 to `frames` − 1."""
    tracker = build("centre", **options)
    for index in range(frames):
        tracker.update(targets(np.add(at, np.multiply(velocity, index))), frame(index))
    return tracker


def test_the_life_cycle_of_a_track():
    tracker = build("centre", birth_hits=3, birth_window=5, coast=4)

    def where(index):
        return 100 + 2 * index, 80

    # started by the first detection, tentative
    tracks = tracker.update(targets(where(0)), frame(0))
    assert (tracks.ids.tolist(), tracks.state.tolist(), tracks.age.tolist()) == ([1], [TENTATIVE], [0])
    tracks = tracker.update(targets(), frame(1))
    assert tracks.state.tolist() == [TENTATIVE]
    tracks = tracker.update(targets(where(2)), frame(2))
    assert tracks.state.tolist() == [TENTATIVE]

    # the third hit confirms it
    tracks = tracker.update(targets(where(3)), frame(3))
    assert (tracks.ids.tolist(), tracks.state.tolist(), tracks.age.tolist()) == ([1], [CONFIRMED], [3])
    for index in range(4, 12):
        tracks = tracker.update(targets(where(index)), frame(index))
    np.testing.assert_allclose(tracks.velocity, [[2, 0]], atol=0.1)

    # not detected, it coasts along its velocity
    for index in range(12, 16):
        tracks = tracker.update(targets(), frame(index))
        assert tracks.state.tolist() == [COASTING]
        np.testing.assert_allclose(centres_of(tracks), [where(index)], atol=1)

    # detected again, it has kept its id and its age
    tracks = tracker.update(targets(where(16)), frame(16))
    assert (tracks.ids.tolist(), tracks.state.tolist(), tracks.age.tolist()) == ([1], [CONFIRMED], [16])

    # it coasts for too long and ends; the next detection starts another track
    for index in range(17, 21):
        assert len(tracker.update(targets(), frame(index))) == 1
    assert len(tracker.update(targets(), frame(21))) == 0
    assert tracker.update(targets(where(22)), frame(22)).ids.tolist() == [2]


def test_a_tentative_track_ends_as_soon_as_it_cannot_be_confirmed():
    tracker = build("centre", birth_hits=3, birth_window=5)
    tracker.update(targets((50, 50)), frame(0))
    lengths = [len(tracker.update(targets(), frame(index))) for index in range(1, 4)]
    assert lengths == [1, 1, 0]  # after three misses only two of five frames could still be hits


def test_one_hit_confirms_with_birth_hits_one():
    tracker = build("centre", birth_hits=1, birth_window=1)
    assert tracker.update(targets((50, 50)), frame(0)).state.tolist() == [CONFIRMED]


def test_a_coasting_track_ends_when_it_leaves_the_frame():
    tracker = confirmed_tracker(at=(280, 100), velocity=(3, 0), frames=12, coast=100)
    alive = [len(tracker.update(targets(), frame(index))) for index in range(12, 20)]
    assert alive == [1, 1, 0, 0, 0, 0, 0, 0]  # x = 316, 319, then 322 of 320


@pytest.mark.parametrize("size", [2, 4, 8, 12])
def test_a_target_that_moves_three_times_its_size_per_frame_keeps_its_id(size):
    tracker = build("centre")
    for index in range(8):
        tracks = tracker.update(targets((5 + 3 * size * index, 90), size=size), frame(index))
        assert tracks.ids.tolist() == [1]
    assert tracks.state.tolist() == [CONFIRMED]


def test_crossing_targets_keep_their_ids():
    rng = np.random.default_rng(5)
    tracker = build("centre")
    for index in range(60):
        both = np.array([(40 + 3 * index, 60 + 2 * index), (40 + 3 * index, 180 - 2 * index)])
        both = both + rng.normal(0, 0.5, (2, 2))
        tracks = tracker.update(targets(*both[:: (-1) ** index]), frame(index))
        if index == 0:
            first = tracks.ids[np.argsort(centres_of(tracks)[:, 1])]
    assert sorted(tracks.ids) == sorted(first)
    assert tracks.ids[np.argsort(centres_of(tracks)[:, 1])].tolist() == first[::-1].tolist()


def test_targets_that_cross_keep_their_ids_though_they_are_one_detection_for_a_while():
    """Below 5 pixels there is one detection in the middle; both tracks go on with it, as confirmed ones."""
    rng = np.random.default_rng(9)
    tracker = build("centre")
    for index in range(80):
        both = np.array([(100 + index, 100 + 0.3 * index), (100 + index, 124 - 0.3 * index)])
        seen = both.mean(axis=0, keepdims=True) if abs(both[1, 1] - both[0, 1]) < 5 else both
        tracks = tracker.update(targets(*(seen + rng.normal(0, 0.4, seen.shape))), frame(index))
        if index > 2:
            assert (tracks.ids.tolist(), tracks.state.tolist()) == ([1, 2], [CONFIRMED, CONFIRMED])
            np.testing.assert_allclose(centres_of(tracks), both, atol=3)


def test_a_track_whose_target_is_gone_shares_the_detection_of_another_for_a_limited_time():
    tracker = build("centre")
    for index in range(80):
        apart = max(20 - index, 0)
        both = targets((100, 100 + apart)) if apart == 0 else targets((100, 100), (100, 100 + apart))
        tracks = tracker.update(both, frame(index))
    assert tracks.state.tolist().count(CONFIRMED) == 1


def test_a_target_that_shakes_keeps_its_id():
    """It changes its velocity by up to 3 pixels a frame, all the time."""
    tracker = build("centre")
    for index in range(90):
        at = (150 + 0.5 * index, 100 + 10 * np.sin(index * 2 * np.pi / 11))
        tracks = tracker.update(targets(at), frame(index))
        assert tracks.ids.tolist() == [1]
    assert tracks.state.tolist() == [CONFIRMED]


def test_tracks_move_with_the_camera():
    """The camera stands, then turns by 30 pixels a frame at once, and a neighbour is 30 pixels away."""
    tracker = build("centre")
    for index in range(20):
        shift = max(index - 12, 0) * 30
        motion = np.array([[1.0, 0, -30], [0, 1, 0]]) if index > 12 else None
        seen = targets((280 - shift, 100), (310 - shift, 100))
        tracks = tracker.update(seen, frame(index, motion=motion))
        assert tracks.ids.tolist() == [1, 2]
        np.testing.assert_allclose(centres_of(tracks), centres_of(seen), atol=0.1)
        np.testing.assert_allclose(tracks.velocity, np.zeros((2, 2)), atol=0.1)


@pytest.mark.parametrize("stride", [1, 5, 10])
def test_a_target_is_followed_at_any_stride(stride):
    tracker = build("centre")
    for number in range(9):
        index = stride * number
        tracks = tracker.update(targets((40 + 2 * index, 60 + index)), frame(index, stride=stride))
        assert tracks.ids.tolist() == [1]
    assert tracks.state.tolist() == [CONFIRMED]


@pytest.mark.parametrize(("frames", "hidden", "ids"), [(10, 25, [1]), (10, 50, [2]), (80, 50, [1])])
def test_a_track_coasts_longer_if_its_target_has_been_seen_for_long(frames, hidden, ids):
    tracker = confirmed_tracker(at=(50, 100), velocity=(0.5, 0), frames=frames)
    for index in range(frames, frames + hidden):
        tracker.update(targets(), frame(index))
    index = frames + hidden
    assert tracker.update(targets((50 + 0.5 * index, 100)), frame(index)).ids.tolist() == ids


def test_low_scores_continue_a_track_but_never_start_or_confirm_one():
    tracker = confirmed_tracker(high_score=0.5, low_score=0.1)
    for index in range(10, 60):
        faint = targets((100 + index - 10, 100), (250, 200), scores=[0.2, 0.4])
        tracks = tracker.update(faint, frame(index))
        assert (tracks.ids.tolist(), tracks.state.tolist()) == ([1], [CONFIRMED])
    assert tracks.scores.tolist() == pytest.approx([0.2])

    tracks = tracker.update(targets((149, 100), scores=0.09), frame(60))
    assert tracks.state.tolist() == [COASTING]  # scores below low_score are ignored

    tracker = build("centre", high_score=0.5, low_score=0.1)
    for index, score in enumerate([0.6, 0.4, 0.4, 0.4]):
        tracks = tracker.update(targets((100, 100), scores=score), frame(index))
    assert len(tracks) == 0


@pytest.mark.parametrize(
    ("hidden", "score", "stride", "state"),
    [
        (5, 0.35, 1, CONFIRMED),
        (6, 0.35, 1, COASTING),
        (6, 0.9, 1, CONFIRMED),
        (25, 0.9, 1, CONFIRMED),
        (2, 0.35, 2, CONFIRMED),  # four frame intervals
        (3, 0.35, 2, COASTING),
    ],
)
def test_a_low_score_finds_no_track_again_that_was_hidden_for_long(hidden, score, stride, state):
    tracker, index = build("centre", low_coast=5), 0
    for _ in range(30):
        tracker.update(targets((100, 100)), frame(index, stride=stride))
        index += stride
    for _ in range(hidden):
        tracker.update(targets(), frame(index, stride=stride))
        index += stride
    tracks = tracker.update(targets((101, 100), scores=score), frame(index, stride=stride))
    assert (tracks.ids.tolist(), tracks.state.tolist()) == ([1], [state])


def test_a_quiet_track_is_not_drawn_away_by_faint_clutter_when_its_target_is_gone():
    ends = {}
    for name in ("centre", "centre:quiet"):
        rng, tracker = np.random.default_rng(2), build(name)
        for index in range(60):
            lamp = [(100, 100)] if index < 30 else []
            clutter = rng.uniform((60, 60), (140, 140), (2, 2)) if index >= 36 else np.zeros((0, 2))
            scores = [0.6] * len(lamp) + [0.35] * len(clutter)
            places = [*lamp, *clutter.tolist()]
            tracks = tracker.update(targets(*places, scores=scores), frame(index))
            if len(tracks):
                ends[name] = np.hypot(*(centres_of(tracks)[0] - 100))
    assert ends["centre:quiet"] < 1
    assert ends["centre"] > 10


def test_a_high_score_is_assigned_before_a_nearer_low_one():
    tracker = confirmed_tracker(high_score=0.5)
    tracks = tracker.update(targets((102, 100), (100, 100), scores=[0.9, 0.4]), frame(10))
    assert tracks.scores.tolist() == pytest.approx([0.9])


@pytest.mark.parametrize("offset", [(2, 0), (0, -2.5), (-1, 1)], ids=str)
@pytest.mark.parametrize("second", [0.5, 0.89], ids="score {}".format)
def test_two_boxes_of_one_target_make_one_track(offset, second):
    """From the first frame on, with the better box first or last; a box beside it has its own track."""
    tracker = build("centre")
    for index in range(12):
        at = np.array([100 + 2 * index, 80 + index])
        boxes = targets(at, at + offset, at + np.array([9, 0]), size=8, scores=[0.9, second, 0.7])
        tracks = tracker.update(boxes[:: (-1) ** index], frame(index))
        assert tracks.ids.tolist() == [1, 2]
    assert tracks.state.tolist() == [CONFIRMED, CONFIRMED]


def test_a_second_box_at_a_confirmed_target_starts_no_track():
    tracker = confirmed_tracker()
    for index in range(10, 14):
        tracks = tracker.update(targets((100, 100), (102, 101), scores=[0.9, 0.8]), frame(index))
        assert (tracks.ids.tolist(), tracks.state.tolist()) == ([1], [CONFIRMED])


def test_a_target_that_leaves_the_box_of_another_gets_its_track():
    """Two targets have one track until their distance exceeds half a size."""
    tracker = confirmed_tracker()
    lengths = []
    for index in range(10, 18):
        tracks = tracker.update(targets((100, 100), (100, 100 + (index - 10))), frame(index))
        lengths.append(len(tracks))
    assert lengths == [1, 1, 1, 2, 2, 2, 2, 2]  # the edge of a box of 6 pixels is 3 from its centre
    assert tracks.state.tolist() == [CONFIRMED, CONFIRMED]


def test_a_tentative_track_does_not_take_the_detection_of_a_confirmed_one():
    tracker = confirmed_tracker()
    tracker.update(targets((100, 100), (105, 100)), frame(10))  # a second one appears beside it
    tracks = tracker.update(targets((103, 100)), frame(11))
    assert tracks.state.tolist() == [CONFIRMED, TENTATIVE]
    assert tracks[:1].scores.tolist() == pytest.approx([0.9])
    assert centres_of(tracks)[0, 0] > 100.5


@pytest.mark.parametrize(("gap", "found"), [(1, False), (4, False), (12, True)])
def test_the_gate_grows_with_the_time_since_the_last_hit(gap, found):
    """A detection at 25 pixels is outside the gate at first and within it after some time of coasting."""
    tracker = confirmed_tracker(frames=30)
    for index in range(30, 29 + gap):
        tracker.update(targets(), frame(index))
    tracks = tracker.update(targets((125, 100)), frame(29 + gap))
    assert (tracks.ids.tolist() == [1]) is found


def test_the_gate_is_capped_by_the_frame():
    tracker = confirmed_tracker(frames=30, max_gate=0.05)  # 20 of 410 pixels
    for index in range(30, 50):
        tracker.update(targets(), frame(index))
    assert tracker.update(targets((125, 100)), frame(50)).ids.tolist() == [1, 2]


def test_a_skipped_index_is_elapsed_time():
    tracker = confirmed_tracker(at=(50, 60), velocity=(4, 1))
    tracks = tracker.update(targets((50 + 4 * 15, 60 + 15)), frame(15))
    assert (tracks.ids.tolist(), tracks.age.tolist()) == ([1], [15])
    np.testing.assert_allclose(tracks.velocity, [[4, 1]], atol=0.1)


def test_skipped_frames_do_not_count_in_the_birth_window():
    tracker = build("centre", birth_hits=3, birth_window=3)
    for index in (0, 2, 4):
        tracks = tracker.update(targets((100 + index, 100)), frame(index))
    assert tracks.state.tolist() == [CONFIRMED]


@pytest.mark.parametrize(("gap", "ids"), [(31, [1]), (32, [2])])
def test_a_skip_longer_than_the_coast_ends_the_track(gap, ids):
    tracker = confirmed_tracker(frames=10, coast=30)
    assert tracker.update(targets((100, 100)), frame(9 + gap)).ids.tolist() == ids


def test_a_tentative_track_does_not_outlive_a_long_skip():
    tracker = build("centre", birth_window=5)
    tracker.update(targets((100, 100)), frame(0))
    assert tracker.update(targets((100, 100)), frame(20)).ids.tolist() == [2]


@pytest.mark.parametrize("index", [9, 3])
def test_an_index_that_does_not_increase_is_refused(index):
    tracker = confirmed_tracker(frames=10)
    with pytest.raises(ValueError, match=rf"frame index {index} after 9"):
        tracker.update(targets(), frame(index))


def test_a_label_survives_single_contradictions_and_changes_after_many():
    tracker = build("centre")
    for index, label in enumerate([3, 3, 1, 3, 3, 2, 3]):
        tracks = tracker.update(targets((100, 100), labels=label), frame(index))
        assert tracks.labels.tolist() == [3]
    for index in range(7, 20):
        tracks = tracker.update(targets((100, 100), labels=1), frame(index))
    assert tracks.labels.tolist() == [1]


def test_frames_without_detections_give_no_tracks():
    tracker = build("centre")
    assert [len(tracker.update(Detections.empty(), frame(index))) for index in range(3)] == [0, 0, 0]


def test_reset_starts_over():
    tracker = confirmed_tracker()
    tracker.reset()
    tracks = tracker.update(targets((100, 100)), frame(0))
    assert (tracks.ids.tolist(), tracks.state.tolist(), tracks.age.tolist()) == ([1], [TENTATIVE], [0])


def test_masks_and_detections_are_not_changed():
    tracker = build("centre")
    for index in range(4):
        detections = targets((100, 100), (50, 50))
        masked = Detections(detections.boxes, detections.scores, detections.labels, np.ones((2, 8, 8), bool))
        before = masked.boxes.copy()
        tracks = tracker.update(masked, frame(index))
        np.testing.assert_array_equal(masked.boxes, before)
    assert len(tracks) == 2


def test_ids_are_unique_and_boxes_finite_and_positive_for_random_detections():
    rng = np.random.default_rng(17)
    tracker = build("centre", birth_hits=2, coast=8)
    index, alive, dead, ages, most = 0, set(), set(), {}, 0
    for _ in range(1000):
        count = rng.integers(0, 8)
        corners = rng.uniform(-20, 330, (count, 2))
        sizes = rng.choice([0, 0.5, 3, 12, 200], (count, 2))
        boxes = np.concatenate([corners, corners + sizes], axis=1)
        detections = Detections(boxes, rng.random(count), rng.integers(0, 4, count))
        index += int(rng.choice([1, 1, 1, 2, 7, 40]))
        tracks = tracker.update(detections, frame(index))
        ids = set(tracks.ids.tolist())
        assert np.isfinite(tracks.boxes).all()
        assert (tracks.boxes[:, 2:] > tracks.boxes[:, :2]).all()
        assert np.isfinite(tracks.velocity).all()
        assert tracks.ids.tolist() == sorted(ids)
        assert not ids & dead
        assert all(id_ > max(dead | alive, default=0) for id_ in ids - alive)
        for id_, age in zip(tracks.ids.tolist(), tracks.age.tolist(), strict=True):
            assert age == index - ages.setdefault(id_, index)
        dead |= alive - ids
        alive, most = ids, max(most, len(ids))
    assert len(dead) > 500  # many tracks ended,
    assert most < 60  # few existed at a time


def test_the_same_detections_give_the_same_tracks():
    first, second = (confirmed_tracker(velocity=(1, 2)) for _ in range(2))
    ours, theirs = (tracker.update(targets((110, 121), (5, 5)), frame(10)) for tracker in (first, second))
    for name in ("boxes", "ids", "velocity", "scores"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
