"""Runs keep evidence of their events: of files and of live streams, within the budget, and when resumed."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.runner import single
from pipeline.sinks.rotating import find_rotated_files
from run_pipeline import parts
from tests.support import stream_servers
from tests.support.evidence import RATE, account, coding, images, packets, play, units
from tests.support.interrupted_runs import interrupted_copy
from tests.support.media import write_video
from tests.support.outputs import report

NAMES = ["clip.mp4", "event.json", "path.png", "snapshot.jpg"]
PAUSE = 30
"""Frames without a target between two of its appearances."""


def appearances(count: int) -> list[np.ndarray]:
    """Returns frames in which a target appears `count` times for 30 frames."""
    shown = images(30)
    noise = [np.minimum(image, 70) for image in shown]
    # the track is followed for a while after its last detection
    return [*(image for _ in range(count) for image in (*noise[:PAUSE], *shown)), *noise, *noise]


def run(source, folder: Path, *, events=None, **sections):
    """Runs the pipeline with the brightest pixels as targets; returns its record."""
    rules = [{"name": "gate", "min_duration": 0.2}]
    table = {
        "detector": {"name": "tests.support.spots:Spots"},
        "events": {"rules": rules, "pre_roll": 0.5, "post_roll": 0.25, **(events or {})},
        **sections,
    }
    table["output"] = {"folder": str(folder), "video": False, "coco": False, **sections.get("output", {})}
    record = single.run(str(source), build(RunConfig, table), parts(), progress="off")
    if record.failure:
        raise record.failure
    return record


def folders(output: Path) -> list[Path]:
    """Returns the folders of the events in their order."""
    place = output / "events"
    return (
        sorted(place.iterdir(), key=lambda path: int(path.name.rpartition("-")[2])) if place.exists() else []
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A video in which a target appears twice."""
    path = tmp_path_factory.mktemp("clip") / "source.mp4"
    return write_video(path, appearances(2), rate=RATE, options=coding(10))


@pytest.fixture(scope="module")
def original(tmp_path_factory, clip) -> Path:
    """The outputs of a run over this video."""
    folder = tmp_path_factory.mktemp("original") / "out"
    run(clip, folder)
    return folder


def test_each_event_has_a_folder_that_its_messages_name(clip, original):
    messages = [json.loads(line) for line in (original / "events.jsonl").read_text().splitlines()]
    ends = [message for message in messages if message["phase"] == "end"]
    assert len(ends) == 2
    assert [message["evidence"] for message in ends] == [f"events/{path.name}" for path in folders(original)]
    for message, folder, first in zip(ends, folders(original), (30, 90), strict=True):
        assert sorted(path.name for path in folder.iterdir()) == NAMES
        said = account(folder)
        assert {key: said[key] for key in message} == message
        begin, end = said["clip"]["begin"] * RATE, said["clip"]["end"] * RATE
        # the rule is fulfilled 4 frames or more after the target appears, and the pre-roll is 10 frames
        assert first - 20 < begin <= first
        assert end >= first + 30
        copied = packets(folder / "clip.mp4")
        assert copied == packets(clip)[round(begin) : round(begin) + len(copied)]


def test_without_evidence_there_are_messages_alone(clip, tmp_path):
    run(clip, tmp_path / "out", events={"evidence": False})
    messages = [json.loads(line) for line in (tmp_path / "out/events.jsonl").read_text().splitlines()]
    assert messages
    assert all(message["evidence"] is None for message in messages)
    assert folders(tmp_path / "out") == []


def test_a_new_run_removes_the_evidence_of_an_earlier_one(clip, original, tmp_path):
    shutil.copytree(original, tmp_path / "out")
    before = {path.name for path in folders(tmp_path / "out")}
    run(clip, tmp_path / "out", output={"overwrite": True})
    after = {path.name for path in folders(tmp_path / "out")}
    assert len(after) == 2
    assert before.isdisjoint(after)


@pytest.mark.parametrize("after", [20, 50, 100])
def test_a_resumed_run_completes_the_evidence_and_doubles_none(clip, original, tmp_path, after):
    folder = interrupted_copy_with_events(original, tmp_path / "out", after=after)
    run(clip, folder, output={"resume": True})
    assert [path.name for path in folders(folder)] == [path.name for path in folders(original)]
    for resumed, before in zip(folders(folder), folders(original), strict=True):
        assert sorted(path.name for path in resumed.iterdir()) == NAMES
        for name in NAMES:
            assert (resumed / name).read_bytes() == (before / name).read_bytes()


def interrupted_copy_with_events(whole: Path, folder: Path, *, after: int) -> Path:
    """Creates what a process killed after `after` frames leaves, whose later events had not begun."""
    for name in ("detections.json", "annotated.mp4"):
        (whole / name).touch()
    interrupted_copy(whole, folder, after=after)
    rows = (whole / "events.jsonl").read_text().splitlines(keepends=True)
    (folder / "events.jsonl").write_text("".join(r for r in rows if json.loads(r)["frame"] < after))
    for path in folders(folder):
        if account(path)["frame"] >= after:  # it was open, or had not begun
            (path / "event.json").unlink()
            (path / "fragments.mp4").write_bytes(b"torn")
    return folder


def test_evidence_counts_for_the_budget_of_the_disk(original, tmp_path):
    many = write_video(tmp_path / "source.mp4", appearances(4), rate=RATE, options=coding(10))
    one = sum(path.stat().st_size for path in (original / "events").rglob("*")) // 2
    budget = 5 * one // 2000 * 1000
    wanted = {"disk_budget": f"{budget // 1000}kB", "rotate_size": f"{one // 2000}kB"}
    record = run(many, tmp_path / "out", output=wanted)
    left = folders(tmp_path / "out")
    used = sum(path.stat().st_size for folder in left for path in folder.iterdir())
    used += sum(files.size() for files in find_rotated_files(tmp_path / "out"))
    assert used <= budget
    assert 1 <= len(left) <= 2
    assert record.rotated["deleted_events"] == 4 - len(left)
    numbers = [int(folder.name.rpartition("-")[2]) for folder in left]
    assert numbers == [1, 2, 3, 4][-len(left) :]  # the oldest were deleted
    assert all(sorted(path.name for path in folder.iterdir()) == NAMES for folder in left)


# Live streams


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_the_clip_of_a_live_stream_holds_its_pre_roll(tmp_path, codec):
    options = coding(10) if codec == "libx264" else {"g": "10"}
    stream = write_video(tmp_path / "stream.ts", appearances(1), rate=RATE, codec=codec, options=options)
    data = stream.read_bytes()

    def serve(connection):
        """Sends two seconds of video in a second."""
        seconds = len(appearances(1)) / RATE / 2
        begun, sent = time.monotonic(), 0
        while sent < len(data):
            due = int(len(data) * min(1.0, (time.monotonic() - begun) / seconds + 0.05))
            connection.sendall(data[sent:due])
            sent = max(due, sent)
            threading.Event().wait(0.02)
        connection.close()

    live = {"reconnect": "none", "on_full": "wait"}  # on a busy machine, frames would be dropped
    with stream_servers.listener(serve) as port:
        record = run(f"tcp://127.0.0.1:{port}", tmp_path / "out", live=live)
    (folder,) = folders(tmp_path / "out")
    said = account(folder)
    assert (said["missing"], said["clip"]["copied"], said["clip"]["lost"]) == ({}, codec == "libx264", 0)
    shown = play(folder / "clip.mp4")
    assert (shown.times[0], shown.codec) == (0.0, "h264")
    first = json.loads((tmp_path / "out/events.jsonl").read_text().splitlines()[0])
    assert said["clip"]["begin"] <= first["pts"] - 0.5 + 1e-6
    assert said["clip"]["end"] >= said["pts"] + 0.25 - 1 / RATE
    np.testing.assert_allclose(np.diff(shown.times), 1 / RATE, atol=1e-3)
    assert record.written == len(appearances(1))
    if codec == "libx264":
        copied = [units(packet, lengths=True) for packet in packets(folder / "clip.mp4")]
        sent = [units(packet, lengths=False) for packet in packets(stream)]
        assert copied[0] in sent
        start = sent.index(copied[0])
        assert copied == sent[start : start + len(copied)]


def test_the_record_of_a_run_has_the_settings_of_clips(original):
    settings = report(original)["config"]["events"]
    assert (settings["evidence"], settings["pre_roll"], settings["post_roll"]) == (True, 0.5, 0.25)
    assert (settings["max_clip"], settings["clip_memory"]) == (120.0, "256MB")
    with av.open(str(folders(original)[0] / "clip.mp4")) as container:
        assert container.metadata["title"].startswith("event ")
