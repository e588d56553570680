"""The record of a run: latencies in constant memory, state and exit code, and its table."""

from __future__ import annotations

import io
import sys
from fractions import Fraction

import numpy as np
import pytest

from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.evaluation.tracking.scores import TrackScores
from pipeline.runner.recovery import RecordedSource
from pipeline.runner.run_record import Latency, RunRecord
from pipeline.runner.single import run
from pipeline.runner.steps import count_frames
from pipeline.runner.summary import run_table
from pipeline.stages.gaps import RateLimit
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks
from pipeline.system.errors import OutputError, SourceError
from pipeline.system.signals import StopRequest
from run_pipeline import parts
from tests.support import stream_servers
from tests.support.media import grey_frames
from tests.support.outputs import check_consistent, report

# Latencies

DISTRIBUTIONS = {
    "even": np.random.default_rng(0).uniform(0.001, 0.1, 5000),
    "skewed": np.random.default_rng(1).lognormal(-5, 1, 5000),
    "constant": np.full(100, 0.02),
    "few": np.array([0.001, 0.002, 0.004]),
    "long": np.array([120.0, 150.0, 200.0]),
}


def latency_of(durations):
    latency = Latency()
    for seconds in durations:
        latency.add(float(seconds))
    return latency


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("name", [name for name in DISTRIBUTIONS if name != "long"])
def test_quantiles_approximate_those_of_all_durations(name, share):
    durations = DISTRIBUTIONS[name]
    exact = np.quantile(durations, share, method="inverted_cdf")
    assert latency_of(durations).quantile(share) == pytest.approx(exact, rel=0.06)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_mean_and_maximum_are_exact(name):
    summary = latency_of(DISTRIBUTIONS[name]).summary()
    assert summary["mean"] == pytest.approx(1e3 * DISTRIBUTIONS[name].mean(), abs=1e-3)
    assert summary["max"] == pytest.approx(1e3 * DISTRIBUTIONS[name].max(), abs=1e-3)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_no_quantile_exceeds_the_maximum(name):
    summary = latency_of(DISTRIBUTIONS[name]).summary()
    assert summary["p50"] <= summary["p95"] <= summary["max"]


def test_without_durations_the_summary_is_zero():
    assert Latency().summary() == {"mean": 0.0, "p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}


def test_latencies_take_constant_memory():
    def size(latency):
        return sum(sys.getsizeof(value) for value in vars(latency).values())

    assert size(latency_of(np.full(10_000, 0.02))) == size(latency_of([0.02]))


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, closed()], ids=["none", "closed"])
@pytest.mark.parametrize("mode", ["auto", "bar", "plain"])
def test_a_closed_stderr_does_not_stop_the_run(monkeypatch, tmp_path, clip, nano_weights, stream, mode):
    monkeypatch.setattr(sys, "stderr", stream)
    assert run(str(clip), configuration(tmp_path, nano_weights), parts(), progress=mode).state == "complete"
    assert check_consistent(tmp_path) == 3


# The record of a run


def configuration(folder, nano_weights, **sections):
    detector = {"weights": nano_weights, **sections.pop("detector", {})}
    source = {"max_frames": 3, **sections.pop("source", {})}
    return build(RunConfig, {"output": {"folder": str(folder)}, "detector": detector, "source": source})


@pytest.fixture(scope="module")
def record(tmp_path_factory, clip, nano_weights) -> RunRecord:
    folder = tmp_path_factory.mktemp("table")
    truth = str(clip.with_suffix(".json"))
    return run(str(clip), configuration(folder, nano_weights), parts(), annotations=truth, progress="off")


def test_the_table_is_two_aligned_columns(record):
    rows = run_table(record).splitlines()
    starts = {len(row) - len(row[12:].lstrip()) for row in rows}
    assert starts == {12}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source", "clip.mp4, 64x64, 30 frames/s"),
        ("detector", "nano.safetensors on cpu"),
        ("frames", "3 decoded, 3 written, 0 corrupt"),
        ("detections", "with score 0.4 or more"),
        ("tracks", "confirmed"),
        ("speed", "frames/s in"),
        ("  detect", "ms per frame, 95 % below"),
        ("AP50", "over 3 frames"),
        ("best F1", "with IoU 0.5 or more"),
        ("recall", "with IoU 0.5 or more"),
        ("outputs", "annotated.mp4, detections.json, tracks.txt, results.jsonl, run.json, metrics.json"),
        ("state", "complete"),
    ],
)
def test_the_table_has_the_facts_of_the_run(record, name, value):
    (row,) = (row for row in run_table(record).splitlines() if row.startswith(f"{name} "))
    assert value in row


def test_track_metrics_say_how_tracks_and_targets_are_matched(record, monkeypatch):
    counts = {"mostly_tracked": 1, "mostly_lost": 0, "targets": 1, "tracks": 1, "frames": 3, "boxes": 3}
    rest = {"motp": 0.1, "idp": 1.0, "idr": 1.0, "fragments": 0, "misses": 0, "false_positives": 0, **counts}
    scores = {
        "iou": TrackScores(gate="iou", limit=0.5, mota=0.44, idf1=0.61, switches=2, **rest),
        "centre": TrackScores(
            gate="centre", limit=5.0, mota=0.91, idf1=0.95, hota=0.88, switches=1, false_tracks=3, **rest
        ),
    }
    monkeypatch.setattr(record, "track_scores", scores)
    rows = [row for row in run_table(record).splitlines() if row.startswith("MOTA ")]
    assert [" ".join(row.split()) for row in rows] == [
        "MOTA 0.440, IDF1 0.610, 2 switches, 0 false tracks, with IoU 0.5 or more",
        "MOTA 0.910, IDF1 0.950, HOTA 0.880, 1 switch, 3 false tracks, with centres within 5 px",
    ]


def test_detections_are_counted_from_the_score_at_which_they_are_drawn():
    record = RunRecord(None, None, build(RunConfig, {"annotate": {"min_score": 0.5}}), {})
    boxes = np.array([[0, 0, 4, 4]] * 3, np.float32)
    found = Detections(boxes, np.array([0.6, 0.5, 0.1], np.float32), np.zeros(3, np.int64))
    frame = Frame(np.zeros((8, 8), np.uint8), 0, Fraction(0), "made")
    record.add(Result(frame, found, False, {}, tracks=Tracks.empty()))
    assert (record.detections, record.drawn) == (3, 2)
    assert record.best_score == pytest.approx(0.6)


def test_the_table_names_the_highest_score_if_no_track_starts(record, monkeypatch):
    changed = {"detections": 20, "drawn": 1, "written": 10, "tracks": 0, "best_score": 0.41}
    for name, value in changed.items():
        monkeypatch.setattr(record, name, value)
    table = run_table(record)
    assert "1 with score 0.4 or more, 0.1 per frame; written are 20 with 0.05 or more" in table
    assert "0 confirmed; the highest score of a detection is 0.41, tracks start at 0.45 (--set" in table


def test_the_table_has_no_number_of_corrupt_frames_if_it_is_not_known(record, monkeypatch):
    monkeypatch.setattr(record, "source", RecordedSource(record.source.info))
    assert "3 decoded, 3 written\n" in run_table(record)


@pytest.mark.parametrize(
    ("count", "seconds", "shown"),
    [
        (90, 3.0, "30.0 frames/s in 3.0 s"),
        (1, 40.0, "0.025 frames/s in 40.0 s"),
        (0, 2.0, "no frame computed in 2.0 s"),
    ],
)
def test_the_speed_of_slow_runs_is_not_rounded_to_zero(record, monkeypatch, count, seconds, shown):
    monkeypatch.setattr(record, "written", count)
    monkeypatch.setattr(record, "seconds", seconds)
    assert shown in run_table(record)


@pytest.mark.parametrize(
    ("failure", "state", "code", "reason"),
    [
        (None, "complete", 0, None),
        (SourceError("lost"), "partial", 3, "lost"),
        (OutputError("full"), "partial", 5, "full"),
        (RuntimeError("a fault"), "partial", 1, "RuntimeError: a fault"),
        (KeyboardInterrupt(), "partial", 1, "KeyboardInterrupt"),
    ],
    ids=["none", "source", "output", "bug", "no text"],
)
def test_the_failure_decides_state_and_exit_code(failure, state, code, reason):
    record = RunRecord(None, None, RunConfig(), {})
    record.failure = failure
    assert (record.state, record.exit_code, record.reason) == (state, code, reason)


def test_frames_beyond_the_rate_are_skipped_and_not_decoded():
    frames = [
        Frame(np.zeros((8, 8), np.uint8), index, Fraction(index, 30), "made", arrival=index / 30)
        for index in range(30)
    ]
    record = RunRecord(None, None, RunConfig(), {}, limit=RateLimit(10))
    kept = list(count_frames(iter(frames), record, StopRequest()))
    assert [frame.index for frame in kept] == list(range(0, 30, 3))
    assert (record.decoded, record.limit.skipped.count) == (10, 20)
    assert record.progress_note() == "20 skipped"


def test_frames_of_a_live_source_beyond_the_rate_are_counted_as_skipped(process):
    images = grey_frames(30)
    sections = {
        "source": {"format": "raw", "size": "96x64", "dtype": "uint8"},
        "live": {"max_rate": 0.001, "reconnect": "none"},
    }
    with stream_servers.listener(stream_servers.sending(b"".join(map(bytes, images)))) as port:
        out = process(f"tcp://127.0.0.1:{port}", sections=sections, backend="torch")
    frames = report(out)["frames"]
    assert (frames["decoded"], frames["written"], frames["skipped"]) == (1, 1, 29)
    assert report(out)["gaps"] == {}
