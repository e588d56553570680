"""The night of alarms is the same each time, holds its flights, and its alarms are judged by them."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest

from pipeline.structures.frame import Gap
from tests.benchmarks.night import NEAR, main, near, rules, spend
from tests.support.night_scene import HEIGHT, HIGHEST, LEAST, WIDTH, Night

MINUTE = 1 / 60


@pytest.fixture(scope="module")
def night():
    return Night(MINUTE, 10, 3)


@pytest.fixture(scope="module")
def frames(night):
    return list(night)


def test_a_night_depends_on_its_seed_only(frames):
    again, other = list(Night(MINUTE, 10, 3)), list(islice(Night(MINUTE, 10, 4), 5))
    assert len(again) == len(frames)
    for one, two in zip(frames, again, strict=True):
        np.testing.assert_array_equal(one.detections.boxes, two.detections.boxes)
        np.testing.assert_array_equal(one.detections.scores, two.detections.scores)
    assert [len(frame.detections) for frame in other] != [len(frame.detections) for frame in frames[:5]]


def test_detections_lie_in_the_picture_and_have_scores_of_the_detector(frames):
    boxes = np.concatenate([frame.detections.boxes for frame in frames])
    scores = np.concatenate([frame.detections.scores for frame in frames])
    assert (boxes >= 0).all()
    assert (boxes <= [WIDTH, HEIGHT] * 2).all()
    assert (scores >= np.float32(LEAST)).all()
    assert (scores <= np.float32(HIGHEST)).all()
    assert len(scores) / len(frames) > 5


def test_a_flight_is_detected_where_it_is(night, frames):
    (flight,) = night.flights
    hits = 0
    for item in frames:
        at = flight.at(item.frame.index)
        if at is not None and len(item.detections):
            boxes = item.detections.boxes
            centres = (boxes[:, :2] + boxes[:, 2:]) / 2
            hits += bool((np.hypot(*(centres - at).T) < 4).any())
    assert hits > 0.8 * len(flight.centres)
    missing = sum(len(item.detections) - item.false for item in frames)
    assert missing <= len(flight.centres)


def test_the_shutter_closes_and_frames_are_lost_with_their_gaps():
    items = list(Night(0.2, 5, 0))
    assert any(item.frame.shutter_closed for item in items)
    assert all(len(item.detections) == 0 for item in items if item.frame.shutter_closed)
    gaps = {item.frame.gap.event for item in items if isinstance(item.frame.gap, Gap)}
    assert gaps == {"shutter", "lost"}
    for before, after in pairwise(items):
        step = after.frame.index - before.frame.index - 1
        assert step == 0 or after.frame.gap.missing >= step


def test_the_night_is_watched_by_the_rules_of_the_example():
    names = [rule.name for rule in rules().rules]
    assert names == ["drone", "perimeter", "drone-anywhere", "any-target"]


def test_an_alarm_is_true_near_a_flight_only(night):
    (flight,) = night.flights
    x, y = flight.centres[3]
    frame = flight.first + 3
    assert near(night, frame, (x - 4, y - 4, x + 4, y + 4)) == 0
    assert near(night, frame, (x - 4 + NEAR + 0.1, y - 4, x + 4 + NEAR + 0.1, y + 4)) is None
    assert near(night, flight.first - 1, (x - 4, y - 4, x + 4, y + 4)) is None


def test_a_tracker_without_tracks_raises_no_alarm_and_finds_no_flight(night):
    outcome = spend(night, "none")
    assert (outcome.alarms, outcome.false, outcome.tracks) == ({}, [], set())
    assert outcome.frames == len(list(night))


def test_the_flight_of_a_minute_is_found_and_counted(night):
    outcome = spend(night, "centre:quiet")
    assert outcome.found["any-target"] == {0}
    assert outcome.true_tracks <= outcome.tracks
    for rule, found in outcome.found.items():
        false = sum(event.rule == rule for event in outcome.false)
        assert outcome.alarms[rule] >= len(found) + false


def test_the_table_names_tracker_rule_and_counts(capsys):
    assert main(["--hours", "0.01", "--rate", "5", "--tracker", "none"]) == 0
    printed = capsys.readouterr().out
    assert "drone-anywhere" in printed
    assert "0 / 1" in printed


def test_unknown_trackers_are_refused(capsys):
    assert main(["--hours", "0.01", "--tracker", "no-such"]) == 2
    assert "unknown tracker 'no-such'" in capsys.readouterr().err
