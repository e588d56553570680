"""Rotated files and the disk budget: every set of files is complete, and together they hold the run."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise

import pytest

from datasets.synthesis import rendering
from pipeline.config.rotation import Rotation
from pipeline.sinks.coco import CocoSink
from pipeline.sinks.file_names import COCO, JSONL, MOT, VIDEO, ZARR
from pipeline.sinks.jsonl import JsonlSink
from pipeline.sinks.rotating import ROTATED_OUTPUTS, RotatedFiles, RotatingSink, find_rotated_files
from pipeline.sinks.video import VideoSink
from pipeline.system.errors import OutputError
from tests.pipeline.sinks.test_sinks import draw, make_result, source_info
from tests.support.interrupted_runs import without_times
from tests.support.outputs import detections, report, scene
from tests.support.rotated_runs import (
    FOREVER,
    assert_plays,
    assert_whole,
    open_files,
    records,
    rotation_every,
    run_rotated,
    sizes,
)
from tests.support.zarr_stores import contents

# When files are rotated


def test_files_are_rotated_after_their_time(tmp_path):
    now = 0.0
    with RotatingSink(tmp_path, open_files, Rotation(60, 0, 0), clock=lambda: now) as sink:
        for index in range(10):
            sink.write(make_result(index))
            now += 25
    frames = [[line["frame"] for line in records(files)] for files in find_rotated_files(tmp_path)]
    assert frames == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_files_are_rotated_at_their_size(tmp_path):
    with RotatingSink(tmp_path, open_files, Rotation(0, 2000, 0)) as sink:
        for index in range(40):
            sink.write(make_result(index))
    first, *others = sizes(tmp_path)
    assert len(others) >= 3
    one = first / len(records(find_rotated_files(tmp_path)[0]))
    assert all(2000 <= size < 2000 + 2 * one for size in (first, *others[:-1]))


def test_files_are_not_rotated_below_the_limits(tmp_path):
    with RotatingSink(tmp_path, open_files, FOREVER) as sink:
        for index in range(40):
            sink.write(make_result(index))
    assert [files.number for files in find_rotated_files(tmp_path)] == [1]


def test_file_names_sort_by_number_and_contain_the_start_time(tmp_path):
    now = 0.0
    with RotatingSink(tmp_path, open_files, Rotation(1, 0, 0), clock=lambda: now) as sink:
        for index in range(12):
            sink.write(make_result(index))
            now += 1
    names = sorted(path.name for path in tmp_path.glob("results-*"))
    assert names == [files.path(JSONL).name for files in find_rotated_files(tmp_path)]
    assert names[11].startswith("results-000012-20")
    assert names[11].endswith("Z.jsonl")
    assert all(earlier.began <= later.began for earlier, later in pairwise(find_rotated_files(tmp_path)))


def test_joined_detections_equal_those_of_one_file_byte_by_byte(tmp_path):
    results = [make_result(index, boxes=[(1, 2, 3 + n, 4) for n in range(index % 3)]) for index in range(12)]
    with CocoSink(tmp_path / "whole.json") as whole:
        for result in results:
            whole.write(result)
    for every in (1, 2, 5):
        folder, now = tmp_path / str(every), 0
        folder.mkdir()
        with RotatingSink(folder, open_files, Rotation(every, 0, 0), clock=lambda: now) as sink:  # noqa: B023
            for result in results:
                sink.write(result)
                now += 1
        assert len(find_rotated_files(folder)) == -(-12 // every)
        assert (folder / COCO).read_bytes() == (tmp_path / "whole.json").read_bytes()


# The disk budget


@pytest.mark.parametrize("gone", [False, True], ids=["as written", "one deleted by the user"])
def test_the_oldest_files_are_deleted_and_the_budget_is_never_exceeded(tmp_path, gone):
    budget, kept = 12_000, []
    with RotatingSink(tmp_path, open_files, Rotation(0, 2000, budget)) as sink:
        for index in range(200):
            sink.write(make_result(index))
            assert sum(sizes(tmp_path)) <= budget
            kept.append([files.number for files in find_rotated_files(tmp_path)])
            assert kept[-1] == list(range(kept[-1][0], kept[-1][-1] + 1))  # never from the middle
            if gone and index == 100:
                find_rotated_files(tmp_path)[0].delete()
    left = [line["frame"] for files in find_rotated_files(tmp_path) for line in records(files)]
    assert left == list(range(left[0], 200))
    assert sum(sizes(tmp_path)) > budget / 2
    account = sink.counts
    assert account["deleted"] == kept[-1][0] - 1 > 3
    assert account["kept"] == len(find_rotated_files(tmp_path))
    assert account["deleted_frames"] == left[0]
    assert {row["image_id"] for row in json.loads((tmp_path / COCO).read_text())} == {n + 1 for n in left}


def test_the_open_and_the_last_files_are_never_deleted(tmp_path):
    with RotatingSink(tmp_path, open_files, Rotation(0, 100, 200)) as sink:
        for index in range(5):
            sink.write(make_result(index))
            assert find_rotated_files(tmp_path)[-1].number == index + 1
            assert [line["frame"] for line in records(find_rotated_files(tmp_path)[-1])] == [index]
    assert [files.number for files in find_rotated_files(tmp_path)] == [5]


# Whole runs


def test_rotated_files_together_hold_the_whole_run(process, clip, whole):
    folder = run_rotated(process, clip, zarr=True)
    assert_whole(folder, list(range(16)))
    sets = find_rotated_files(folder)
    assert len(sets) == 4
    timeless = [
        {key: v for key, v in line.items() if key != "timings_ms"}
        for files in sets
        for line in records(files)
    ]
    assert timeless == without_times(whole)
    assert "".join(files.path(MOT).read_text() for files in sets) == (whole / MOT).read_text()
    assert [contents(files.path(ZARR))["indices"].tolist() for files in sets] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
        [12, 13, 14, 15],
    ]
    assert [row["score"] for row in detections(folder)] == [row["score"] for row in detections(whole)]
    assert report(folder)["pieces"] == {"kept": 4, "deleted": 0, "deleted_frames": 0, "deleted_bytes": 0}
    own = {path.name for files in sets for path in files.files()}
    assert {path.name for path in folder.iterdir()} - own == {"run.json", "detections.json"}


def test_flags_set_the_size_and_the_budget(mote, clip, nano_weights, tmp_path):
    options = ("--rotate-size", "12kB", "--disk-budget", "60kB", "--no-save-video")
    arguments = ("--weights", nano_weights, "--conf", 0.2, "--output", tmp_path / "out", "--progress", "off")
    reply = mote(clip, *arguments, *options)
    assert (reply.code, reply.err) == (0, "")
    account = report(tmp_path / "out")["pieces"]
    assert account["kept"] >= 2
    assert account["deleted"] >= 1
    assert f"{account['kept']} kept, {account['deleted']} deleted for the disk budget" in reply.out
    assert report(tmp_path / "out")["frames"]["written"] == 16
    assert sum(sizes(tmp_path / "out")) <= 60_000
    left = [line["frame"] for files in find_rotated_files(tmp_path / "out") for line in records(files)]
    assert left == list(range(account["deleted_frames"], 16))
    assert {row["image_id"] - 1 for row in detections(tmp_path / "out")} <= set(left)


def test_detections_are_scored_and_a_note_says_why_tracks_are_not(process, clip, whole):
    folder = run_rotated(process, clip, every=5, truth=clip.with_suffix(".json"))
    assert detections(folder) == detections(whole)
    ours, theirs = (json.loads((place / "metrics.json").read_text()) for place in (folder, whole))
    assert (ours["ap50"], ours["frames"]) == (theirs["ap50"], 16)
    assert (ours["tracks"], theirs["tracks"] is None) == (None, False)
    assert "tracks are not scored: their files are rotated" in ours["notes"]


def test_streams_rotate_their_files_independently(mote, clip, nano_weights, tmp_path):
    other = tmp_path / "other.mp4"
    rendering.write_scene(scene(frames=5), other)
    options = ("--weights", nano_weights, "--progress", "off", "--no-save-video", "--rotate-size", "12kB")
    assert mote("--video", clip, "--video", other, "--output", tmp_path / "out", *options).code == 0
    counts = {}
    for stem, count in (("clip", 16), ("other", 5)):
        sets = find_rotated_files(tmp_path / "out" / stem)
        assert [line["frame"] for files in sets for line in records(files)] == list(range(count))
        assert report(tmp_path / "out" / stem)["pieces"]["kept"] == len(sets)
        counts[stem] = len(sets)
    assert counts["clip"] > counts["other"]


def files_of(folder) -> set[tuple[str, int]]:
    """Returns name and time of each file: those of two runs may begin in the same second."""
    return {(path.name, path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.mark.parametrize("output", [{}, {"rotate_every": "1h"}], ids=["by a plain run", "by a rotated run"])
def test_rotated_files_are_only_replaced_with_overwrite(process, clip, output):
    folder = run_rotated(process, clip)
    (folder / "run.json").unlink()
    (folder / COCO).unlink()
    before = files_of(folder)
    with pytest.raises(OutputError, match="holds an earlier run"):
        process(clip, output=output)
    assert files_of(folder) == before
    (folder / "detections-000009-20260101T000000Z.json.part").touch()
    (folder / "notes.txt").touch()
    process(clip, output={**output, "overwrite": True})
    assert not before & files_of(folder)
    assert not list(folder.glob("*.part"))
    assert (folder / "notes.txt").exists()
    assert len(find_rotated_files(folder)) == len(output)


# Faults


class Full(JsonlSink):
    """A sink whose disk is full at frame 5."""

    def write(self, result):
        if result.frame.index == 5:
            raise OutputError(f"cannot write {self.path}: No space left on device")
        super().write(result)


def test_a_full_disk_closes_the_files_and_joins_the_detections(tmp_path):
    now = 0

    def open_on_full_disk(place):
        return [Full(place(JSONL)), CocoSink(place(COCO)), VideoSink(place(VIDEO), source_info(), draw)]

    def go():
        nonlocal now
        with RotatingSink(tmp_path, open_on_full_disk, Rotation(3, 0, 0), clock=lambda: now) as sink:
            for index in range(10):
                sink.write(make_result(index))
                now += 1

    with pytest.raises(OutputError, match="No space left"):
        go()
    assert [[line["frame"] for line in records(files)] for files in find_rotated_files(tmp_path)] == [
        [0, 1, 2],
        [3, 4],
    ]
    for files, count in zip(find_rotated_files(tmp_path), (3, 2), strict=True):
        assert_plays(files.path(VIDEO), count)
    assert {row["image_id"] for row in json.loads((tmp_path / COCO).read_text())} == set(range(1, 6))


def test_a_deleted_folder_ends_the_run_with_code_5(mote, clip, nano_weights, tmp_path, monkeypatch):
    out, write = tmp_path / "out", RotatingSink.write

    def removing(self, result):
        if result.frame.index == 3:
            shutil.rmtree(out)
        write(self, result)

    monkeypatch.setattr(RotatingSink, "write", removing)
    options = ("--weights", nano_weights, "--progress", "off", "--rotate-every", "1h")
    with rotation_every(3):
        reply = mote(clip, *options, "--output", out)
    assert (reply.code, reply.err.count("\n")) == (5, 1)
    assert f"cannot write {out}" in reply.err


def test_a_run_with_rotated_files_is_not_resumed(mote, process, clip, nano_weights):
    folder = run_rotated(process, clip)
    before = {path.name for path in folder.iterdir()}
    arguments = ("--weights", nano_weights, "--conf", 0.2, "--output", folder, "--resume")
    reply = mote(clip, *arguments, "--rotate-every", "1h")
    assert (reply.code, reply.out) == (2, "")
    assert "--resume cannot continue files that rotate; leave --rotate-every" in reply.err
    reply = mote(clip, *arguments)
    assert (reply.code, reply.out) == (2, "")
    assert f"{folder} holds rotated files and cannot be resumed" in reply.err
    assert {path.name for path in folder.iterdir()} == before


def test_other_files_are_not_taken_for_rotated_ones(tmp_path):
    for name in ("results-000001.jsonl", "my-results-000001-20260101T000000Z.jsonl", "results-1-x.jsonl"):
        (tmp_path / name).touch()
    assert find_rotated_files(tmp_path) == []
    files = RotatedFiles(tmp_path, 1_234_567, "20260101T000000Z")
    files.path(MOT).touch()
    assert find_rotated_files(tmp_path) == [files]
    assert {files.path(name).name.partition("-")[0] for name in ROTATED_OUTPUTS} == {
        "annotated",
        "detections",
        "events",
        "results",
        "tracks",
    }
