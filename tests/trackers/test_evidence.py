"""Which tracks evidence confirms and ends; the scenes are seeded."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame, Gap
from pipeline.structures.tracks import TrackState
from pipeline.system.errors import UsageError
from trackers import build

WIDTH, HEIGHT = 320, 256
IMAGE = np.zeros((HEIGHT, WIDTH), np.uint8)


def follow(centres, scores, *, clutter=None, motion=None, tracker=None, first=0, jitter=0.4, seed=0):
    """Tracks detections of 5 px around `centres` (frames, N, 2); NaN: not detected.

    `scores` are (low, high); `clutter` returns the centres and scores of others by generator and frame.
    Returns the confirmed ids and centres of each frame.
    """
    rng = np.random.default_rng(seed)
    tracker = tracker or build("centre", birth="evidence")
    rows = []
    for index, at in enumerate(np.asarray(centres, float), start=first):
        at = at[~np.isnan(at[:, 0])]
        at, score = at + rng.normal(0, jitter, at.shape), rng.uniform(*scores, len(at))
        if clutter is not None:
            others, their_scores = clutter(rng, index)
            at, score = np.concatenate([at, others]), np.concatenate([score, their_scores])
        frame = Frame(IMAGE, index, Fraction(index, 30), "clip", motion=motion if index > first else None)
        found = Detections(np.concatenate([at - 2.5, at + 2.5], axis=1), score, np.zeros(len(at)))
        tracks = tracker.update(found, frame)
        tracks = tracks[tracks.state == TrackState.CONFIRMED]
        rows.append((tracks.ids.tolist(), (tracks.boxes[:, :2] + tracks.boxes[:, 2:]) / 2))
    return rows


def path(start, velocity, frames):
    """Centres (frames, 1, 2) of a target."""
    return (np.array(start) + np.arange(frames)[:, None] * np.array(velocity))[:, None]


def share_followed(rows, centres):
    """The share of frames with a confirmed track within 4 px of the target."""
    return np.mean(
        [
            bool(len(found)) and bool((np.hypot(*(found - at[0]).T) < 4).any())
            for (_, found), at in zip(rows, centres, strict=True)
        ]
    )


def random_alarms(count, high):
    """Clutter: `count` false alarms a frame on average, anywhere, of scores from 0.05 to `high`."""

    def make(rng, index):
        number = rng.poisson(count)
        return rng.uniform((3, 3), (WIDTH - 3, HEIGHT - 3), (number, 2)), rng.uniform(0.05, high, number)

    return make


def test_a_dim_target_that_moves_steadily_is_followed():
    centres = path((60, 60), (1.0, 0.6), 120)
    rows = follow(centres, (0.1, 0.4))
    assert share_followed(rows, centres) > 0.75
    assert len({number for ids, _ in rows for number in ids}) == 1


def test_it_is_also_followed_among_five_false_alarms_a_frame():
    centres = path((60, 60), (1.0, 0.6), 120)
    rows = follow(centres, (0.1, 0.4), clutter=random_alarms(5, 0.3))
    assert share_followed(rows, centres) > 0.6
    assert len({number for ids, _ in rows for number in ids}) == 1


def test_lamps_hot_pixels_and_text_of_the_same_scores_are_not():
    rng = np.random.default_rng(1)
    lamps = np.repeat(rng.uniform((20, 20), (300, 236), (1, 6, 2)), 150, axis=0)
    assert not any(ids for ids, _ in follow(lamps, (0.1, 0.4)))


def test_nor_a_cloud_that_drifts_slowly():
    assert not any(ids for ids, _ in follow(path((60, 60), (0.25, 0), 150), (0.2, 0.35)))


@pytest.mark.parametrize("seed", range(3))
def test_a_target_of_middling_scores_that_flies_as_slowly_is_followed_once_it_has_come_far(seed):
    centres = path((60, 60), (0.23, 0), 150)
    rows = follow(centres, (0.44, 0.52), seed=seed)
    assert share_followed(rows[40:], centres[40:]) > 0.95
    assert len({number for ids, _ in rows for number in ids}) == 1
    standing = path((60, 60), (0, 0), 150)
    assert not any(ids for ids, _ in follow(standing, (0.44, 0.52), seed=seed))


def test_high_scores_confirm_within_three_frames():
    rows = follow(path((60, 60), (1.0, 0), 10), (0.7, 0.9))
    assert [bool(ids) for ids, _ in rows[:4]] in ([False, False, True, True], [False, True, True, True])


def test_a_bright_target_that_stands_still_is_confirmed():
    assert all(ids for ids, _ in follow(path((60, 60), (0, 0), 60), (0.55, 0.8))[4:])


def test_a_dim_target_that_moved_is_kept_while_it_hovers():
    way = path((60, 60), (1.0, 0.5), 60)
    centres = np.concatenate([way, np.repeat(way[-1:], 200, axis=0)])
    rows = follow(centres, (0.15, 0.4))
    assert share_followed(rows[60:], centres[60:]) > 0.9
    assert len({number for ids, _ in rows for number in ids}) == 1


@pytest.mark.parametrize(("count", "high"), [(20, 0.25), (20, 0.8)])
def test_random_false_alarms_become_no_track(count, high):
    centres = np.full((150, 1, 2), np.nan)
    assert not any(ids for ids, _ in follow(centres, (0, 0), clutter=random_alarms(count, high)))


def test_a_burst_of_clutter_becomes_no_track():
    def burst(rng, index):
        return random_alarms(20 if index % 60 >= 45 else 0, 0.8)(rng, index)

    assert not any(ids for ids, _ in follow(np.full((180, 1, 2), np.nan), (0, 0), clutter=burst))


def test_lamps_that_pass_through_the_picture_of_a_moving_camera_are_not_followed_but_a_target_is():
    shift = np.array([1.2, 0.3])
    motion = np.column_stack([np.eye(2), shift])
    moved = np.arange(120)[:, None, None] * shift
    lamps = np.random.default_rng(3).uniform((10, 40), (180, 200), (1, 8, 2)) + moved
    assert not any(ids for ids, _ in follow(lamps, (0.1, 0.4), motion=motion))
    target = path((250, 60), (-1.0, 0.5), 120)
    rows = follow(np.concatenate([target, lamps], axis=1), (0.15, 0.4), motion=motion)
    assert share_followed(rows, target) > 0.6
    assert len({number for ids, _ in rows for number in ids}) == 1


def test_hot_pixels_are_not_followed_while_the_camera_moves():
    pixels = np.repeat(np.random.default_rng(4).uniform((20, 20), (300, 236), (1, 6, 2)), 120, axis=0)
    motion = np.column_stack([np.eye(2), (1.2, 0.3)])
    assert not any(ids for ids, _ in follow(pixels, (0.1, 0.4), motion=motion, jitter=0.1))


def test_the_motion_of_the_camera_is_taken_from_lamps_if_it_is_unknown():
    moved = np.arange(120)[:, None, None] * np.array([0.9, 0.3])
    lamps = np.random.default_rng(5).uniform((10, 30), (200, 200), (1, 12, 2))
    standing = np.repeat(lamps, 40, axis=0)
    assert not any(ids for ids, _ in follow(np.concatenate([standing, lamps + moved]), (0.1, 0.3)))


def test_reset_clears_all_and_the_same_detections_give_the_same_tracks():
    tracker = build("centre", birth="evidence")
    centres = path((60, 60), (1.0, 0.6), 60)
    before = follow(centres, (0.1, 0.4), clutter=random_alarms(10, 0.5), tracker=tracker)
    tracker.reset()
    after = follow(centres, (0.1, 0.4), clutter=random_alarms(10, 0.5), tracker=tracker)
    assert [ids for ids, _ in before] == [ids for ids, _ in after]
    assert all((left == right).all() for (_, left), (_, right) in zip(before, after, strict=True))


def test_a_scene_cut_clears_what_is_fixed_in_the_scene():
    tracker = build("centre", birth="evidence")
    lamp = path((100, 100), (0, 0), 150)
    follow(lamp, (0.1, 0.3), tracker=tracker)
    place = np.array([[100.0, 100.0]])
    assert tracker._evidence._persistent(place) > 0.5
    cut = Frame(IMAGE, 150, Fraction(5), "clip", gap=Gap("cut", 0, False, False))
    assert len(tracker.update(Detections.empty(), cut)) == 0
    assert tracker._evidence._persistent(place) == 0


def test_a_closed_shutter_is_no_evidence_against_a_track():
    tracker = build("centre", birth="evidence")
    follow(path((60, 60), (1.0, 0), 20), (0.7, 0.9), tracker=tracker)
    chance = tracker._evidence._records["chance"].copy()
    frame = Frame(IMAGE, 20, Fraction(20, 30), "clip")
    tracker.update(Detections.empty(), replace(frame, seen=IMAGE))
    assert (tracker._evidence._records["chance"] == chance).all()


def test_a_detection_that_two_targets_share_is_no_evidence_against_either():
    frames, tracker = 60, build("centre", birth="evidence")
    lead, behind = path((60, 100), (1.0, 0), frames), path((80, 100), (0.3, 0), frames)
    follow(np.concatenate([lead, behind], axis=1)[:24], (0.6, 0.8), tracker=tracker)
    assert tracker._records["id"].tolist() == [1, 2]
    before = tracker._evidence._records["chance"].copy()
    together = (lead + behind)[24:30] / 2
    rows = follow(together, (0.6, 0.8), tracker=tracker, first=24)
    assert all(ids == [1, 2] for ids, _ in rows)
    assert (tracker._evidence._records["chance"] >= before).all()
    assert (tracker._evidence._records["misses"] == 0).all()


def test_other_kinds_of_birth_are_named():
    with pytest.raises(UsageError, match="hits, evidence"):
        build("centre", birth="luck")
