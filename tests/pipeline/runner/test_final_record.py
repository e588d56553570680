"""Whatever becomes of the disk and of the folder, run.json says in the end how far the run came."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from pipeline import recover
from pipeline.runner.recovery import recover as recover_folder
from pipeline.sinks.base import Sinks
from pipeline.sinks.rotating import RotatingSink, find_rotated_files
from pipeline.sinks.video import write_empty
from pipeline.system import reserved
from pipeline.system.errors import OutputError
from pipeline.system.reserved import FollowedFolder, ReservedFile
from tests.pipeline.sinks.test_sinks import source_info
from tests.support.interrupted_runs import assert_same, interrupted_copy
from tests.support.outputs import check_consistent, detections, lines, report, video
from tests.support.rotated_runs import records


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def arguments(clip, nano_weights):
    return (clip, "--weights", nano_weights, "--conf", 0.2, "--progress", "off")


@pytest.fixture
def after_frame(monkeypatch):
    """Calls a function once, after a frame of the runs that follow is written."""

    def arrange(index, function, *, thread=None):
        write, called = Sinks.write, []

        def writing(self, result):
            write(self, result)
            here = threading.current_thread().name
            if result.frame.index == index and thread in (None, here) and not called:
                called.append(index)
                function()

        monkeypatch.setattr(Sinks, "write", writing)

    return arrange


@pytest.fixture
def fill_disk(monkeypatch):
    """Makes the disk full: no file can be created any more."""

    def fill():
        open_file = Path.open

        def opening(path, mode="r", *more, **options):
            if set(mode) & set("wax"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return open_file(path, mode, *more, **options)

        monkeypatch.setattr(Path, "open", opening)

    return fill


# The disk


def test_a_run_whose_disk_becomes_full_is_partial_and_says_why(
    mote, arguments, tmp_path, after_frame, fill_disk
):
    folder = tmp_path / "out"
    after_frame(9, fill_disk)
    truth = ("--annotations", arguments[0].with_suffix(".json"))  # there is no room for metrics.json
    reply = mote(*arguments, *truth, "--output", folder)
    assert (reply.code, reply.err.count("\n")) == (5, 1)
    assert report(folder)["state"] == "partial"
    assert "No space left on device" in report(folder)["reason"]
    assert report(folder)["frames"]["written"] == len(lines(folder))
    assert names(folder) == ["annotated.mp4", "detections.json", "results.jsonl", "run.json", "tracks.txt"]


def test_a_run_that_finds_no_room_for_its_record_does_not_begin(mote, arguments, tmp_path, monkeypatch):
    folder = tmp_path / "out"

    def refuse(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ReservedFile, "_write", refuse)
    reply = mote(*arguments, "--output", folder)
    assert (reply.code, reply.err.count("\n")) == (5, 1)
    assert names(folder) == []


def test_a_resumed_run_that_finds_no_room_stays_as_it_was(mote, arguments, whole, tmp_path, monkeypatch):
    folder = interrupted_copy(whole, tmp_path / "out", after=9)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    del before["metrics.json"], before["detections.json.part"]  # they are made from the lines

    def refuse(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ReservedFile, "_write", refuse)
    assert mote(*arguments, "--output", folder, "--resume").code == 5
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("length", [0, 10, 100, 300])
def test_a_reserved_file_is_replaced_as_a_whole(tmp_path, length):
    path = tmp_path / "run.json"
    path.write_bytes(b"old")
    room = ReservedFile(path, 100)
    assert path.read_bytes() == b"old"
    assert os.stat(tmp_path / "run.json.reserved").st_size == 100
    room.complete(b"x" * length)  # may be more than was reserved
    assert path.read_bytes() == b"x" * length
    assert names(tmp_path) == ["run.json"]


def test_room_that_was_removed_is_not_needed_while_the_disk_has_some(tmp_path):
    room = ReservedFile(tmp_path / "run.json", 100)
    (tmp_path / "run.json.reserved").unlink()
    room.complete(b"new")
    assert (tmp_path / "run.json").read_bytes() == b"new"
    assert names(tmp_path) == ["run.json"]


# The folder


def test_a_run_whose_folder_is_renamed_is_complete_at_the_new_place(
    mote, arguments, whole, tmp_path, after_frame
):
    folder, moved = tmp_path / "out", tmp_path / "deeper" / "moved"
    moved.parent.mkdir()
    after_frame(9, lambda: folder.rename(moved))
    truth = ("--annotations", arguments[0].with_suffix(".json"))
    reply = mote(*arguments, *truth, "--output", folder)
    assert (reply.code, reply.err) == (0, "")
    assert f"{moved}: annotated.mp4, detections.json" in reply.out
    assert_same(moved, whole)
    assert (moved / "metrics.json").read_text() == (whole / "metrics.json").read_text()
    assert check_consistent(moved) == 16
    assert not folder.exists()


def test_rotated_files_follow_their_folder(mote, arguments, tmp_path, after_frame, monkeypatch):
    folder, moved = tmp_path / "out", tmp_path / "moved"
    monkeypatch.setattr(RotatingSink, "_due", lambda self: self._frames == 4)
    after_frame(5, lambda: folder.rename(moved))
    assert mote(*arguments, "--output", folder, "--rotate-every", "1h").code == 0
    frames = [line["frame"] for piece in find_rotated_files(moved) for line in records(piece)]
    assert frames == list(range(16))
    assert report(moved)["state"] == "complete"
    assert len(detections(moved)) == report(moved)["detections"]
    assert not folder.exists()


def test_a_folder_is_followed_until_it_is_deleted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = Path("out")
    first.mkdir()
    followed = FollowedFolder(first)
    assert followed.path == first
    first.rename("moved")
    first.mkdir()  # another one
    assert followed.path == tmp_path / "moved"
    (tmp_path / "moved").rmdir()
    assert followed.path == first
    followed.close()


def test_the_folders_of_several_sources_may_be_renamed(mote, arguments, clip, tmp_path, after_frame):
    other = tmp_path / "other.mp4"
    other.write_bytes(clip.read_bytes())
    out = tmp_path / "out"
    after_frame(5, lambda: (out / "clip").rename(out / "moved"), thread="write clip")
    assert mote("--video", other, "--video", *arguments, "--output", out).code == 0
    assert [check_consistent(out / name) for name in ("moved", "other")] == [16, 16]
    assert report(out / "moved")["state"] == "complete"


# What a killed run leaves


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 40, b"\0\0\0\x20ftypisom"], ids=["empty", "zeros", "header"]
)
def test_a_video_that_was_killed_before_its_first_fragment_can_be_opened(whole, tmp_path, capsys, content):
    folder = interrupted_copy(whole, tmp_path / "out", after=9)
    (folder / "annotated.mp4").write_bytes(content)
    assert recover.main([str(folder)]) == 0
    assert "the video shows 0 frames" in capsys.readouterr().out
    assert video(folder / "annotated.mp4") == []
    before = (folder / "annotated.mp4").read_bytes()
    write_empty(folder / "annotated.mp4", source_info(size=(64, 64)))
    assert (folder / "annotated.mp4").read_bytes() == before


def test_the_room_of_a_killed_run_is_released(whole, mote, arguments, tmp_path):
    for number, more in enumerate((["--resume"], ["--overwrite"], None)):
        folder = interrupted_copy(whole, tmp_path / str(number), after=9)
        (folder / "run.json.reserved").write_bytes(b" " * 100)
        if more:
            assert mote(*arguments, "--output", folder, *more).code == 0
        else:
            recover_folder(folder)
        assert not (folder / "run.json.reserved").exists()


def test_detections_that_a_run_could_not_give_their_name_are_recovered(whole, tmp_path):
    """A run that ended by itself, but whose last step failed."""
    folder = interrupted_copy(whole, tmp_path / "out", after=16)
    table = {**report(whole), "state": "partial", "reason": "cannot write detections.json"}
    (folder / "run.json").write_text(json.dumps(table))
    assert "recovered 16 frames" in recover_folder(folder)
    assert detections(folder) == detections(whole)
    assert "nothing to recover" in recover_folder(folder)


def test_an_error_of_the_reserved_room_names_the_folder(tmp_path):
    with pytest.raises(OutputError, match=f"cannot write {tmp_path / 'missing'}"):
        ReservedFile(tmp_path / "missing" / "run.json", 100)
    assert reserved.SUFFIX == ".reserved"
