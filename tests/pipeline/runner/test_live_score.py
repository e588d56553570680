"""While a run goes on its progress tells how good it is, at little cost."""

from __future__ import annotations

import io

import numpy as np
import pytest

from pipeline.runner import ground_truth
from pipeline.runner.ground_truth import GroundTruth, SourceAnnotations
from pipeline.sources.opening import open_source
from pipeline.structures.detections import Detections
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks
from pipeline.system.progress import Progress
from tests.support.clock import Clock


@pytest.fixture
def time(monkeypatch):
    time = Clock()
    monkeypatch.setattr(ground_truth, "time", time)
    return time


@pytest.fixture
def truth(clip):
    with open_source(clip) as source:
        return GroundTruth(SourceAnnotations(clip.with_suffix(".json"), source.info), 1)


@pytest.fixture
def frames(clip):
    with open_source(clip) as source:
        return list(source)


def nothing_in(frame) -> Result:
    return Result(frame, Detections.empty(), tracks=Tracks.empty(), warmup=False)


def test_nothing_is_told_before_the_first_target(truth, time):
    assert truth.live() == ""


def test_the_score_is_told_in_words(truth, frames, time):
    truth.add(nothing_in(frames[0]))
    assert truth.live() == "AP50 0.000"


@pytest.fixture
def counted(truth, monkeypatch, time):
    """Counts how often the score is computed, which takes `counted.seconds`."""

    class Counted:
        calls, seconds = 0, 0.0

        def ap50(self):
            self.calls += 1
            time.now += self.seconds
            return self.calls / 10

    counted = Counted()
    monkeypatch.setattr(truth, "_evaluator", counted)
    return counted


def test_the_score_is_computed_at_most_every_two_seconds(truth, counted, time):
    told = []
    for _ in range(50):
        told.append(truth.live())
        time.now += 0.1
    assert counted.calls == 3
    assert sorted(set(told)) == ["AP50 0.100", "AP50 0.200", "AP50 0.300"]


def test_a_score_that_takes_long_is_computed_rarely(truth, counted, time):
    counted.seconds, began = 0.5, time.now
    while time.now < began + 200:
        truth.live()
        time.now += 0.1
    assert counted.calls * counted.seconds / (time.now - began) == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize(
    ("note", "line"),
    [
        (lambda: "AP50 0.812", "1/4 frames, 1.0 frames/s, 0:03 left, AP50 0.812"),
        (lambda: "", "1/4 frames, 1.0 frames/s, 0:03 left"),
    ],
    ids=["a note", "none yet"],
)
def test_progress_ends_with_the_note(monkeypatch, note, line):
    time = Clock()
    monkeypatch.setattr("pipeline.system.progress.time", time)
    stream = io.StringIO()
    with Progress(4, mode="plain", stream=stream, note=note) as bar:
        time.now += 1
        bar.advance()
    assert stream.getvalue() == line + "\n"


def test_a_run_with_ground_truth_tells_its_score(mote, tmp_path, clip, nano_weights):
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
