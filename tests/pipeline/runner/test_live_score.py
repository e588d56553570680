"""The progress of a run with ground truth shows the score so far, at little cost."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.evaluation.detection.evaluator import Evaluator
from pipeline.runner import ground_truth
from pipeline.runner.ground_truth import GroundTruth
from pipeline.sources.opening import open_source
from pipeline.structures.detections import Detections
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks
from pipeline.system.progress import Progress
from tests.support.clock import Clock
from tests.support.truth import annotations_of


@pytest.fixture
def time(monkeypatch):
    time = Clock()
    monkeypatch.setattr(ground_truth, "time", time)
    return time


@pytest.fixture
def truth(clip):
    with open_source(clip) as source:
        return GroundTruth(annotations_of(clip.with_suffix(".json"), source.info), 1)


@pytest.fixture
def frames(clip):
    with open_source(clip) as source:
        return list(source)


def nothing_in(frame) -> Result:
    return Result(frame, Detections.empty(), tracks=Tracks.empty(), warmup=False)


def test_no_score_is_shown_before_the_first_frame(truth, time):
    assert truth.live() == ""


def test_the_score_is_named(truth, frames, time):
    truth.add(nothing_in(frames[0]))
    assert truth.live() == "AP50 0.000"


@pytest.fixture
def counted(monkeypatch, time):
    """Counts the computations of the score, each of which takes `counted.seconds`."""
    counted = SimpleNamespace(calls=0, seconds=0.0)

    def ap50(_):
        counted.calls += 1
        time.now += counted.seconds
        return counted.calls / 10

    monkeypatch.setattr(Evaluator, "ap50", ap50)
    return counted


def test_the_score_is_computed_at_most_every_two_seconds(truth, counted, time):
    shown = []
    for _ in range(50):
        shown.append(truth.live())
        time.now += 0.1
    assert counted.calls == 3
    assert sorted(set(shown)) == ["AP50 0.100", "AP50 0.200", "AP50 0.300"]


def test_a_slow_score_is_computed_less_often(truth, counted, time):
    counted.seconds, began = 0.5, time.now
    while time.now < began + 200:
        truth.live()
        time.now += 0.1
    assert counted.calls * counted.seconds / (time.now - began) == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize(
    ("note", "line"),
    [
        (lambda: "AP50 0.812", "2/4 frames, 1.0 frames/s, 0:02 left, AP50 0.812"),
        (lambda: "", "2/4 frames, 1.0 frames/s, 0:02 left"),
    ],
    ids=["a note", "none yet"],
)
def test_progress_ends_with_the_note(monkeypatch, note, line):
    time = Clock()
    monkeypatch.setattr("pipeline.system.progress.time", time)
    stream = io.StringIO()
    with Progress(4, mode="plain", stream=stream, note=note) as bar:
        for _ in range(2):
            time.now += 1
            bar.advance()
    assert stream.getvalue() == line + "\n"


def test_a_run_with_ground_truth_shows_its_score(mote, tmp_path, clip, nano_weights):
    options = (
        "--weights",
        nano_weights,
        "--output",
        tmp_path / "out",
        "--progress",
        "plain",
        "--no-save-video",
    )
    reply = mote("--video", clip, "--annotations", clip.with_suffix(".json"), "--max-frames", 3, *options)
    assert reply.code == 0
    last = reply.err.splitlines()[-1]
    assert last.startswith("3/3 frames")
    assert "AP50 0." in last


def test_every_frame_counts_once(truth, frames, time):
    chance = np.random.default_rng(0)
    for frame in frames:
        corners = chance.uniform(0, 50, (5, 2))
        boxes = np.concatenate([corners, corners + 6], axis=1)
        truth.add(
            Result(
                frame,
                Detections(boxes, chance.uniform(0, 1, 5), [0] * 5),
                warmup=False,
                tracks=Tracks.empty(),
            )
        )
        time.now += 1
        truth.live()
    time.now += 10
    assert truth.live() == f"AP50 {truth.score(0.5).scores.ap50:.3f}"
    assert (truth.frames, truth.not_annotated) == (16, 0)
