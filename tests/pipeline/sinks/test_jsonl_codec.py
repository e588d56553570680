"""The motion of the camera is written exactly, read again by all that read lines, and validated."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

from pipeline.runner.recovery import recorded_results
from pipeline.sinks.jsonl import JsonlSink
from pipeline.sinks.jsonl_codec import motion_of, scan, to_record
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks
from trackers.track import recorded_detections

INFO = SourceInfo("made", 96, 64, Fraction(30), None, 8, 1)
MOTION = np.round(np.random.default_rng(0).normal(0, 3, (2, 3)), 6)


def result(index, motion):
    frame = Frame(np.zeros((64, 96), np.uint8), index, Fraction(index, 30), "made", motion=motion)
    return Result(frame, Detections.empty(), False, {}, tracks=Tracks.empty())


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "results.jsonl"
    with JsonlSink(path) as sink:
        for index, motion in enumerate((None, MOTION, None)):
            sink.write(result(index, motion))
    return path


def test_a_standing_camera_leaves_no_field_in_the_line():
    assert "motion" not in to_record(result(0, None))
    assert motion_of({}) is None


def test_recovery_and_tracking_anew_get_the_motion_of_the_run(written):
    recovered = [one.frame.motion for one in recorded_results(written, scan(written), INFO)]
    tracked = [one.frame.motion for one in recorded_detections([written], INFO)]
    for motions in (recovered, tracked):
        assert motions[0] is None
        assert np.array_equal(motions[1], MOTION)
        assert motions[2] is None


@pytest.mark.parametrize("bad", [[1, 0, 0], [1, 0, 0, 0, 1, None], "moved", [1, 0, 0, 0, 1, 1e999]])
def test_a_damaged_motion_ends_the_valid_lines(written, bad):
    lines = written.read_text().splitlines()
    lines[2] = json.dumps({**json.loads(lines[2]), "motion": bad})
    written.write_text("\n".join(lines) + "\n")
    assert scan(written).line_count == 2
