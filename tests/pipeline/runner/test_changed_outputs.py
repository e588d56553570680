"""Another program truncates an output of a run, as logrotate does: the run ends and names the file."""

from __future__ import annotations

import os
import shutil
from fractions import Fraction

import pytest

from pipeline.sinks.base import Sinks
from pipeline.sinks.coco import CocoSink
from pipeline.sinks.jsonl import JsonlSink
from pipeline.sinks.jsonl_codec import scan
from pipeline.sinks.video import VideoSink
from pipeline.system.errors import OutputError
from tests.pipeline.sinks.test_sinks import draw, make_result, source_info
from tests.support.outputs import detections, lines, report, video


def copytruncate(path):
    """What logrotate's option of this name does."""
    shutil.copy(path, path.with_name(f"{path.name}.1"))
    os.truncate(path, 0)


def append_line(path):
    with path.open("ab") as file:
        file.write(b"a remark\n")


@pytest.fixture
def run_and_change(mote, clip, nano_weights, tmp_path, monkeypatch):
    """Runs the chain over the clip; after a frame, `change` is called with the path of an output."""

    def call(name, change, *, after):
        folder, write = tmp_path / "out", Sinks.write

        def changing(self, result):
            write(self, result)
            if result.frame.index == after:
                change(folder / name)

        monkeypatch.setattr(Sinks, "write", changing)
        arguments = ("--weights", nano_weights, "--conf", 0.2, "--progress", "off")
        return mote(clip, *arguments, "--output", folder), folder

    return call


@pytest.mark.parametrize("change", [copytruncate, append_line])
@pytest.mark.parametrize("name", ["results.jsonl", "tracks.txt", "detections.json.part"])
@pytest.mark.parametrize("after", [9, 15], ids=["in the middle", "after the last frame"])
def test_an_output_that_is_changed_from_outside_ends_the_run_with_code_5(run_and_change, name, change, after):
    reply, folder = run_and_change(name, change, after=after)
    assert (reply.code, reply.err.count("\n")) == (5, 1)
    assert f"cannot write {folder / name}: another program changed its size" in reply.err
    assert reply.err.count("another program") == 1
    assert report(folder)["state"] == "partial"
    assert report(folder)["reason"] in reply.err
    assert b"\0" not in (folder / name).read_bytes()


def test_what_was_copied_before_the_file_was_truncated_is_all_there(run_and_change):
    _, folder = run_and_change("results.jsonl", copytruncate, after=9)
    (folder / "results.jsonl.1").replace(folder / "results.jsonl")
    assert [line["frame"] for line in lines(folder)] == list(range(10))
    assert {row["image_id"] for row in detections(folder)} <= set(range(1, 11))
    assert report(folder)["frames"]["written"] == 10
    assert len(video(folder / "annotated.mp4")) == 10


def test_a_damaged_file_of_detections_does_not_get_the_name_of_a_whole_one(tmp_path):
    sink = CocoSink(tmp_path / "detections.json").__enter__()
    sink.write(make_result(0))
    os.truncate(tmp_path / "detections.json.part", 3)
    with pytest.raises(OutputError, match="another program changed its size"):
        sink.__exit__(None, None, None)
    assert [path.name for path in tmp_path.iterdir()] == ["detections.json.part"]


def test_lines_that_stay_are_not_filled_up_with_zeros(tmp_path):
    """The file of a run that is resumed is truncated after it was read, and before it is opened."""
    path = tmp_path / "results.jsonl"
    with JsonlSink(path) as sink:
        sink.write(make_result(0))
    kept = scan(path)
    os.truncate(path, 10)
    with pytest.raises(OutputError, match="another program has truncated it"):
        JsonlSink(path, kept=kept).__enter__()
    assert path.stat().st_size == 10


@pytest.mark.parametrize("size", [0, 3000])
def test_a_video_that_is_truncated_from_outside_ends_with_an_error_and_holds_no_gap(tmp_path, size):
    path = tmp_path / "annotated.mp4"

    def write_and_truncate():
        with VideoSink(path, source_info(), draw) as sink:
            for index in range(300):
                sink.write(make_result(index, pts=Fraction(index, 30)))
                if index == 200:
                    assert path.stat().st_size > size
                    os.truncate(path, size)

    with pytest.raises(OutputError) as caught:
        write_and_truncate()
    assert str(caught.value).startswith(f"cannot write {path}: another program changed its size")
    assert path.stat().st_size == size
