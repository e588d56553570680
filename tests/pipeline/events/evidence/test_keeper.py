"""Evidence of events: the folder of each, what is missing in it and why, and that nothing stops the run."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.config.events_section import EventsConfig
from pipeline.events.evidence import clips, keeper, record
from pipeline.events.evidence import paths as paths_of_tracks
from pipeline.events.evidence.finished import FinishedFolders
from pipeline.events.evidence.folder import NAMES, make_folder, place_of, remove_unfinished
from pipeline.events.evidence.paths import Paths, on_frame
from pipeline.sources.opening import open_source
from pipeline.structures.frame import Frame
from pipeline.system.errors import OutputError
from tests.support.evidence import (
    ID,
    RATE,
    account,
    keep,
    make_keeper,
    message,
    place,
    play,
    result,
    target_of,
    write_clip,
)
from tests.support.media import write_video

REASON = "the source cannot be read again: No such file or directory"


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A video whose packets are copied."""
    return write_clip(tmp_path_factory.mktemp("clip") / "source.mp4", 60)


def other(number: int) -> str:
    """Returns the id of another event."""
    return f"0123456789ab-gate-{number}"


# What is in the folder


def test_an_event_has_a_clip_two_pictures_and_its_last_message(tmp_path, clip):
    with open_source(clip) as source:
        folder = keep(tmp_path, source, 20, 40)
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    said = account(folder)
    assert (said["id"], said["phase"], said["sequence"], said["frame"]) == (ID, "end", 1, 40)
    assert (said["evidence"], said["files"], said["missing"]) == (f"events/{ID}", list(NAMES), {})


def test_the_snapshot_is_of_the_highest_score_and_enlarges_the_target(tmp_path, clip):
    with open_source(clip) as source:
        kept = make_keeper(tmp_path, source)
        for frame in source:
            found = result(frame, score=0.9 if frame.index == 30 else 0.5)
            kept.add(found)
            if frame.index == 20:
                kept.begin(message("start", frame), found)
        kept.end(message("end", frame))
        kept.close()
    picture = cv2.imread(str(tmp_path / "events" / ID / "snapshot.jpg"))
    assert picture.shape == (80, 128, 3)
    x, y = place(30)
    assert picture[y + 1, x + 1].min() > 180  # the target itself is not covered
    below = picture[y + 5, x - 2 : x + 5].astype(int)  # the line of its box has the colour of the track
    assert np.ptp(below, axis=1).max() > 80
    bright = (picture.min(axis=2) > 170).sum()
    assert bright >= 9 + (2 * 3) ** 2  # and once more, at twice the size or more


def test_the_path_is_drawn_over_the_last_detection(tmp_path, clip):
    with open_source(clip) as source:
        folder = keep(tmp_path, source, 20, 59)
    picture = cv2.imread(str(folder / "path.png")).astype(int)
    coloured = np.ptp(picture, axis=2) > 60
    for index in (25, 35, 45):  # the middle of the path
        x, y = place(index)
        assert coloured[y - 1 : y + 4, x - 1 : x + 4].any()
    x, y = place(59)
    assert picture[y + 1, x + 1].min() > 180


def test_a_path_follows_a_camera_that_moves():
    paths, sights = Paths(), {}
    for index in range(10):
        motion = np.array([[1, 0, 3], [0, 1, -1.0]]) if index else None
        frame = Frame(np.zeros((80, 128), np.uint8), index, Fraction(index), "camera", motion=motion)
        sights = paths.add(result(frame), {7})
    points = on_frame(paths.points(7), sights[7])
    first = place(0)
    np.testing.assert_allclose(points[-1], np.add(place(9), 1.5))
    np.testing.assert_allclose(points[0], [first[0] + 1.5 + 27, first[1] + 1.5 - 9])


def test_paths_are_bounded_and_those_of_lost_tracks_are_forgotten(monkeypatch):
    monkeypatch.setattr(paths_of_tracks, "MAX_POINTS", 64)
    paths = Paths()
    image = np.zeros((8, 8), np.uint8)
    for index in range(200):
        paths.add(result(Frame(image, index % 50, Fraction(index), "camera")), set())
    assert 30 < len(paths.points(7)) <= 64
    for index in range(2):
        paths.add(result(Frame(image, index, Fraction(index), "camera"), track=8), set())
    assert len(paths.points(7)) == 0


def test_a_first_snapshot_is_there_while_the_event_goes_on(tmp_path, clip):
    with open_source(clip) as source:
        kept = make_keeper(tmp_path, source)
        frame = next(source)
        kept.add(result(frame))
        kept.begin(message("start", frame), result(frame))
        path, latest = tmp_path / "events" / ID / "snapshot.jpg", time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < latest
            time.sleep(0.01)
        kept.close()


def test_several_events_at_once_have_a_clip_each(tmp_path, clip):
    with open_source(clip) as source:
        kept = make_keeper(tmp_path, source, pre_roll=0.5, post_roll=0.5)
        for frame in source:
            found = result(frame)
            kept.add(found)
            if frame.index in (10, 20, 30):
                kept.begin(message("start", frame, event_id=other(frame.index)), found)
            if frame.index in (15, 25, 35):
                kept.end(message("end", frame, event_id=other(frame.index - 5)))
        kept.close()
    ends = [account(tmp_path / "events" / other(number))["clip"]["end"] for number in (10, 20, 30)]
    assert ends == [pytest.approx(end / RATE, abs=0.25) for end in (25, 35, 45)]


# Interrupted and resumed runs


def test_an_interrupted_event_has_no_last_message_and_is_made_anew(tmp_path, clip):
    with open_source(clip, end=30) as source:
        folder = keep(tmp_path, source, 20, 99)  # the end never comes
    assert sorted(path.name for path in folder.iterdir()) == sorted(set(NAMES) - {"event.json"})
    (folder / "clip.mp4").write_bytes(b"of the killed run")
    with open_source(clip) as source:
        folder = keep(tmp_path, source, 20, 40)
    assert play(folder / "clip.mp4").times[0] == 0
    assert account(folder)["missing"] == {}
    assert [path.name for path in (tmp_path / "events").iterdir()] == [ID]


def test_what_a_killed_run_left_unfinished_is_removed(tmp_path):
    whole, broken = tmp_path / "events" / ID, tmp_path / "events" / other(8)
    for folder in (whole, broken):
        make_folder(folder)
        (folder / "snapshot.jpg").touch()
    (broken / "fragments.mp4").touch()
    (whole / "event.json").touch()
    remove_unfinished(tmp_path)
    assert [path.name for path in (tmp_path / "events").iterdir()] == [ID]


def test_nothing_is_written_through_a_link(tmp_path, clip):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "events").symlink_to(elsewhere)
    with open_source(clip) as source:
        keep(tmp_path, source, 20, 40)
    assert [path for path in elsewhere.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["events", "events/..", "../events/x", "/tmp/x", "events/a/b"])
def test_a_folder_elsewhere_is_refused(tmp_path, name):
    with pytest.raises(OutputError, match="is no folder of an event"):
        place_of(tmp_path, name)


# Faults


def test_a_clip_that_cannot_be_made_is_missing_with_its_reason_and_one_warning(tmp_path, clip, caplog):
    copy = tmp_path / "gone.mp4"
    copy.write_bytes(clip.read_bytes())
    with open_source(copy) as source:
        kept = make_keeper(tmp_path, source)
        for frame in source:
            found = result(frame)
            kept.add(found)
            if frame.index in (20, 30):
                kept.begin(message("start", frame, event_id=other(frame.index)), found)
        copy.unlink()
        for number in (20, 30):
            kept.end(message("end", frame, event_id=other(number)))
        kept.close()
    for number in (20, 30):
        said = account(tmp_path / "events" / other(number))
        assert said["missing"] == {"clip.mp4": REASON}
        assert said["clip"] is None
        assert said["files"] == ["snapshot.jpg", "path.png", "event.json"]
    warnings = [r.getMessage() for r in caplog.records if "event" in r.getMessage()]
    assert len(warnings) == 2
    assert f"event {other(20)} has no clip.mp4: {REASON}; the run goes on" in warnings[0]
    assert "files of 2 events are missing" in warnings[1]


@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
def test_on_a_full_disk_clips_are_missing_and_the_run_goes_on(tmp_path, monkeypatch, caplog, codec):
    settings = {"pixel_format": "gray"} if codec == "ffv1" else {}
    source_clip = write_video(
        tmp_path / "source.mkv", [np.zeros((64, 64), np.uint8)] * 40, rate=RATE, codec=codec, **settings
    )
    monkeypatch.setattr(record, "MIN_FREE_BYTES", 10**18)
    with open_source(source_clip) as source:
        folder = keep(tmp_path, source, 10, 20)
    said = account(folder)
    assert set(said["missing"]) == {"clip.mp4", "snapshot.jpg", "path.png"}
    assert all("are free on the disk" in reason for reason in said["missing"].values())
    assert said["files"] == ["event.json"]
    assert len([r for r in caplog.records if r.levelno == logging.WARNING and "event" in r.getMessage()]) == 1


def test_a_disk_that_fills_up_while_a_clip_is_recorded_leaves_no_fragments(tmp_path, monkeypatch):
    source_clip = write_video(
        tmp_path / "source.mkv",
        [np.zeros((64, 64), np.uint8)] * 40,
        rate=RATE,
        codec="ffv1",
        pixel_format="gray",
    )

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(clips.VideoSink, "write", full)
    with open_source(source_clip) as source:
        folder = keep(tmp_path, source, 10, 20)
    assert account(folder)["missing"] == {"clip.mp4": "No space left on device"}
    assert sorted(path.name for path in folder.iterdir()) == ["event.json", "path.png", "snapshot.jpg"]


def test_more_clips_than_can_be_recorded_are_left_out(tmp_path, clip, monkeypatch):
    monkeypatch.setattr(keeper, "MAX_CLIPS", 2)
    with open_source(clip) as source:
        kept = make_keeper(tmp_path, source)
        for frame in source:
            found = result(frame)
            kept.add(found)
            if frame.index in (20, 21, 22):
                kept.begin(message("start", frame, event_id=other(frame.index)), found)
        for number in (20, 21, 22):
            kept.end(message("end", frame, event_id=other(number)))
        kept.close()
    missing = [account(tmp_path / "events" / other(number))["missing"] for number in (20, 21, 22)]
    assert missing == [{}, {}, {"clip.mp4": "2 other clips were recorded at the same time"}]


def test_the_caller_waits_for_no_file(tmp_path, clip, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slow(*_):
        begun.set()
        assert go_on.wait(20)

    monkeypatch.setattr(record.Record, "prepare", slow)
    with open_source(clip) as source:
        kept = make_keeper(tmp_path, source)
        for frame in source:
            kept.add(result(frame))
            if frame.index == 20:
                kept.begin(message("start", frame), result(frame))
        assert begun.wait(20)  # every frame was added while the worker was stuck
        go_on.set()
        kept.close()


def test_a_live_source_that_falls_silent_has_its_clips_completed(tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(keeper, "_POLL_SECONDS", 0.02)
    source_clip = write_video(
        tmp_path / "source.mkv",
        [np.zeros((64, 64), np.uint8)] * 40,
        rate=RATE,
        codec="ffv1",
        pixel_format="gray",
    )
    with open_source(source_clip) as source:
        source._reader.info = replace(source.info, live=True)
        kept = make_keeper(tmp_path, source, post_roll=0.2)
        frames = list(source)
        for frame in frames[:20]:
            kept.add(result(frame))
            if frame.index == 10:
                kept.begin(message("start", frame), result(frame))
        kept.end(message("end", frames[19]))
        folder, latest = tmp_path / "events" / ID, time.monotonic() + 20
        while not (folder / "event.json").exists():
            assert time.monotonic() < latest
            time.sleep(0.01)
        assert account(folder)["clip"]["end"] == 0.95
        kept.close()


# The budget of the disk


def test_complete_folders_are_deleted_oldest_first(tmp_path):
    now, folders = 0.0, FinishedFolders(clock=lambda: now)
    for number in range(3):
        folder = tmp_path / "events" / other(number)
        make_folder(folder)
        (folder / "clip.mp4").write_bytes(bytes(1000 * (number + 1)))
        folders.add(folder)
        now += 1
    folders.set_open([tmp_path / "events" / other(2)])
    assert (folders.size, folders.oldest) == (9000, 0.0)
    assert folders.delete_oldest() == 1000
    assert (folders.size, folders.oldest) == (8000, 1.0)
    assert sorted(path.name for path in (tmp_path / "events").iterdir()) == [other(1), other(2)]


def test_settings_of_clips_are_checked():
    for wrong in (
        {"pre_roll": -1},
        {"post_roll": 1e9},
        {"max_clip": 0},
        {"clip_memory": ""},
        {"pre_roll": 200},
    ):
        with pytest.raises(ValueError, match=r"pre_roll|post_roll|max_clip|clip_memory"):
            EventsConfig(**wrong)
    assert EventsConfig(clip_memory="2MB").clip_bytes == 2_000_000
    assert target_of(np.pad(np.ones((3, 3)), 4)) == (4, 4)
