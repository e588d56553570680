"""Smoothed tracks: where they begin and end, what fills their gaps, and how near they come to the truth."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pipeline.config.schema import OutputConfig
from pipeline.sinks.mot import MotSink, SmoothedMotSink, mot_sink
from pipeline.smoothing import history
from pipeline.smoothing.history import TrackHistory
from pipeline.stages.tracking import track
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.results import FrameDetections, Result
from pipeline.structures.tracks import Tracks, TrackState
from pipeline.system.errors import UsageError
from trackers import build

SIZE = 6


def frame(index, motion=None):
    return Frame(np.zeros((256, 320), np.uint8), index, Fraction(index, 30), "clip", motion=motion)


def seen(*centres, scores=0.9):
    """Detections of square targets."""
    points = np.reshape(np.array(centres, float), (-1, 2))
    boxes = np.concatenate([points - SIZE / 2, points + SIZE / 2], axis=1)
    return Detections(boxes, np.broadcast_to(scores, len(points)), np.zeros(len(points)))


def results_of(detections, motions=None, **options):
    """Results of the default tracker for the detections of successive frames."""
    motions = motions or [None] * len(detections)
    items = [
        FrameDetections(frame(index, motion), found, False)
        for index, (found, motion) in enumerate(zip(detections, motions, strict=True))
    ]
    return list(track(items, build("centre", **options)))


def smoothed(results):
    """Rows by id: lists of (frame, centre x, centre y, score)."""
    seen_so_far, rows = TrackHistory(), {}
    for result in results:
        seen_so_far.add(result)
    for row in seen_so_far.smoothed():
        x1, y1, x2, y2 = row.box
        rows.setdefault(row.track, []).append((row.frame, (x1 + x2) / 2, (y1 + y2) / 2, row.score))
    return rows


def test_a_track_begins_with_its_first_and_ends_with_its_last_detection():
    detections = [seen()] * 5 + [seen((50 + index, 60)) for index in range(20)] + [seen()] * 10
    results = results_of(detections)
    first_confirmed = next(
        result.frame.index for result in results if (result.tracks.state != TrackState.TENTATIVE).any()
    )
    (rows,) = smoothed(results).values()
    assert first_confirmed == 7
    assert [row[0] for row in rows] == list(range(5, 25))


def test_frames_between_detections_are_interpolated_with_the_lower_score():
    scores = [0.9] * 10 + [0.6] * 10
    detections = [seen((50 + 2 * index, 60), scores=score) for index, score in enumerate(scores)]
    detections[9:13] = [seen()] * 4
    (rows,) = smoothed(results_of(detections)).values()
    assert [row[0] for row in rows] == list(range(20))
    assert [row[3] for row in rows[8:14]] == pytest.approx([0.9, 0.6, 0.6, 0.6, 0.6, 0.6], abs=1e-6)
    np.testing.assert_allclose([row[1] for row in rows], [50 + 2 * index for index in range(20)], atol=0.05)


@pytest.mark.parametrize(("gap", "filled"), [(4, True), (5, False)])
def test_gaps_are_filled_if_they_are_short_for_the_number_of_detections(gap, filled):
    detections = [seen((50 + 2 * index, 60)) for index in range(16 + gap)]
    detections[8 : 8 + gap] = [seen()] * gap
    (rows,) = smoothed(results_of(detections)).values()
    assert len(rows) == 16 + gap * filled
    assert rows[-1][0] == 15 + gap


def test_false_alarms_leave_no_rows():
    rng = np.random.default_rng(0)
    detections = [seen(*rng.uniform(10, 240, (2, 2))) for _ in range(30)]
    assert smoothed(results_of(detections, start_speed=0.5)) == {}


def test_smoothed_boxes_are_nearer_to_the_truth_than_those_of_the_tracker():
    rng = np.random.default_rng(1)
    times = np.arange(120)
    truth = np.stack([60 + times, 120 + 30 * np.sin(times / 15)], axis=1)
    results = results_of([seen(point + rng.normal(0, 0.8, 2)) for point in truth])
    (rows,) = smoothed(results).values()
    errors = np.linalg.norm(np.array(rows)[:, 1:3] - truth, axis=1)
    tracked = np.array([(r.tracks.boxes[0, :2] + r.tracks.boxes[0, 2:]) / 2 for r in results])
    assert np.sqrt((errors**2).mean()) < 0.8 * np.sqrt((np.linalg.norm(tracked - truth, axis=1) ** 2).mean())


def test_the_motion_of_the_camera_is_not_taken_for_that_of_the_target():
    rng = np.random.default_rng(2)
    shifts = rng.normal(0, 4, (60, 2))
    motions = [None, *(np.column_stack([np.eye(2), shift]) for shift in shifts[1:])]
    camera = np.cumsum(np.vstack([np.zeros(2), shifts[1:]]), axis=0)
    truth = np.array([150.0, 120.0]) + np.outer(np.arange(60), [0.5, 0.2]) + camera
    measured = truth + rng.normal(0, 0.7, truth.shape)
    items = [
        (frame(i, motion), seen(point))
        for i, (point, motion) in enumerate(zip(measured, motions, strict=True))
    ]
    results = [confirmed(where, found) for where, found in items]
    with_motion, without = (
        smoothed(results if known else [confirmed(frame(i), found) for i, (_, found) in enumerate(items)])[1]
        for known in (True, False)
    )
    errors = [
        np.sqrt(((np.array(rows)[:, 1:3] - truth) ** 2).sum(axis=1).mean()) for rows in (with_motion, without)
    ]
    assert errors[0] < 0.35 < 0.6 < errors[1]


def confirmed(where, found, *, scores=None):
    """A result whose tracks are its detections, numbered in their order."""
    count = len(found)
    state, rest = np.full(count, TrackState.CONFIRMED), np.zeros(count)
    scores = found.scores if scores is None else scores
    tracks = Tracks(
        found.boxes, scores, found.labels, 1 + np.arange(count), state, np.zeros((count, 2)), rest
    )
    return Result(where, found, False, tracks=tracks)


def test_boxes_of_a_tracker_with_scores_of_its_own_are_taken_as_they_are():
    results = [confirmed(frame(index), seen((50 + index, 60)), scores=[0.123]) for index in range(10)]
    (rows,) = smoothed(results).values()
    assert [row[0] for row in rows] == list(range(10))
    assert rows[0][3] == pytest.approx(0.123)


def test_tracks_that_were_never_confirmed_are_forgotten(monkeypatch):
    monkeypatch.setattr(history, "FORGOTTEN", 5)
    rng = np.random.default_rng(0)
    known = TrackHistory()
    for result in results_of([seen(rng.uniform(10, 240, 2)) for _ in range(60)], start_speed=0.5):
        known.add(result)
    assert len(known._hits) <= 12


def test_the_file_holds_smoothed_tracks_when_it_is_closed(tmp_path):
    results = results_of([seen((50 + index, 60)) for index in range(12)])
    with MotSink(tmp_path / "plain.txt") as plain, SmoothedMotSink(tmp_path / "tracks.txt") as sink:
        for result in results:
            plain.write(result)
            sink.write(result)
        before = (tmp_path / "tracks.txt").read_text()
    assert before == (tmp_path / "plain.txt").read_text()
    rows = [line.split(",") for line in (tmp_path / "tracks.txt").read_text().splitlines()]
    assert [row[0] for row in rows] == [str(number) for number in range(1, 13)]
    assert {row[1] for row in rows} == {"1"}
    assert {len(row) for row in rows} == {10}
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_an_interrupted_run_has_smoothed_tracks_up_to_there(tmp_path):
    def interrupted():
        with SmoothedMotSink(tmp_path / "tracks.txt") as sink:
            for result in results_of([seen((50 + index, 60)) for index in range(12)]):
                sink.write(result)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len((tmp_path / "tracks.txt").read_text().splitlines()) == 12


def test_tracks_of_live_sources_are_not_smoothed(tmp_path):
    with pytest.raises(
        UsageError, match="a live source does not know; leave --smooth out, and use mote track"
    ):
        mot_sink(tmp_path / "tracks.txt", OutputConfig(smooth=True), live=True)
    assert type(mot_sink(tmp_path / "tracks.txt", OutputConfig(smooth=True))) is SmoothedMotSink


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"rotate_every": "1h"}, "--smooth needs whole tracks"),
        ({"coasting": True}, "--smooth and --save-coasting exclude each other"),
    ],
)
def test_what_contradicts_smoothing_is_refused(output, message):
    with pytest.raises(ValueError, match=message):
        OutputConfig(smooth=True, **output)
