"""Long runs part their files and keep a disk budget; every piece is whole, and together they are the run."""

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
    in_pieces,
    open_files,
    records,
    sizes,
)
from tests.support.zarr_stores import contents

# When the next piece begins


def test_a_piece_ends_after_its_time(tmp_path):
    now = 0.0
    with RotatingSink(tmp_path, open_files, Rotation(60, 0, 0), clock=lambda: now) as sink:
        for index in range(10):
            sink.write(make_result(index))
            now += 25
    frames = [[line["frame"] for line in records(piece)] for piece in find_rotated_files(tmp_path)]
    assert frames == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_a_piece_ends_when_it_is_large_enough(tmp_path):
    with RotatingSink(tmp_path, open_files, Rotation(0, 2000, 0)) as sink:
        for index in range(40):
            sink.write(make_result(index))
    first, *others = sizes(tmp_path)
    assert len(others) >= 3
    one = first / len(records(find_rotated_files(tmp_path)[0]))
    assert all(2000 <= size < 2000 + 2 * one for size in (first, *others[:-1]))


def test_nothing_is_parted_without_need(tmp_path):
    with RotatingSink(tmp_path, open_files, FOREVER) as sink:
        for index in range(40):
            sink.write(make_result(index))
    assert [piece.number for piece in find_rotated_files(tmp_path)] == [1]


def test_names_sort_by_number_and_tell_when_a_piece_began(tmp_path):
    now = 0.0
    with RotatingSink(tmp_path, open_files, Rotation(1, 0, 0), clock=lambda: now) as sink:
        for index in range(12):
            sink.write(make_result(index))
            now += 1
    names = sorted(path.name for path in tmp_path.glob("results-*"))
    assert names == [piece.path(JSONL).name for piece in find_rotated_files(tmp_path)]
    assert names[11].startswith("results-000012-20")
    assert names[11].endswith("Z.jsonl")
    assert all(earlier.began <= later.began for earlier, later in pairwise(find_rotated_files(tmp_path)))


def test_joined_detections_are_those_of_one_file_to_the_byte(tmp_path):
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


@pytest.mark.parametrize("gone", [False, True], ids=["as written", "one was taken away by hand"])
def test_the_oldest_pieces_are_deleted_and_the_budget_is_kept_at_every_moment(tmp_path, gone):
    budget, kept = 12_000, []
    with RotatingSink(tmp_path, open_files, Rotation(0, 2000, budget)) as sink:
        for index in range(200):
            sink.write(make_result(index))
            assert sum(sizes(tmp_path)) <= budget
            kept.append([piece.number for piece in find_rotated_files(tmp_path)])
            assert kept[-1] == list(range(kept[-1][0], kept[-1][-1] + 1))  # never one from the middle
            if gone and index == 100:
                find_rotated_files(tmp_path)[0].delete()
    left = [line["frame"] for piece in find_rotated_files(tmp_path) for line in records(piece)]
    assert left == list(range(left[0], 200))
    assert sum(sizes(tmp_path)) > budget / 2
    account = sink.counts
    assert account["deleted"] == kept[-1][0] - 1 > 3
    assert account["kept"] == len(find_rotated_files(tmp_path))
    assert account["deleted_frames"] == left[0]
    assert {row["image_id"] for row in json.loads((tmp_path / COCO).read_text())} == {n + 1 for n in left}


def test_the_open_piece_is_never_deleted_nor_the_last_one(tmp_path):
    with RotatingSink(tmp_path, open_files, Rotation(0, 100, 200)) as sink:
        for index in range(5):
            sink.write(make_result(index))
            assert find_rotated_files(tmp_path)[-1].number == index + 1
            assert [line["frame"] for line in records(find_rotated_files(tmp_path)[-1])] == [index]
    assert [piece.number for piece in find_rotated_files(tmp_path)] == [5]


# Whole runs


def test_the_pieces_of_a_run_are_together_the_whole_run(process, clip, whole):
    folder = in_pieces(process, clip, zarr=True)
    assert_whole(folder, list(range(16)))
    pieces = find_rotated_files(folder)
    assert len(pieces) == 4
    timeless = [
        {key: v for key, v in line.items() if key != "timings_ms"} for p in pieces for line in records(p)
    ]
    assert timeless == without_times(whole)
    assert "".join(p.path(MOT).read_text() for p in pieces) == (whole / MOT).read_text()
    assert [contents(p.path(ZARR))["indices"].tolist() for p in pieces] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
        [12, 13, 14, 15],
    ]
    assert [row["score"] for row in detections(folder)] == [row["score"] for row in detections(whole)]
    assert report(folder)["pieces"] == {"kept": 4, "deleted": 0, "deleted_frames": 0, "deleted_bytes": 0}
    own = {path.name for piece in pieces for path in piece.files()}
    assert {path.name for path in folder.iterdir()} - own == {"run.json", "detections.json"}


def test_flags_part_by_size_and_keep_the_budget(mote, clip, nano_weights, tmp_path):
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
    left = [line["frame"] for piece in find_rotated_files(tmp_path / "out") for line in records(piece)]
    assert left == list(range(account["deleted_frames"], 16))
    assert {row["image_id"] - 1 for row in detections(tmp_path / "out")} <= set(left)


def test_ground_truth_scores_detections_and_says_why_not_tracks(process, clip, whole, monkeypatch):
    monkeypatch.setattr(RotatingSink, "_due", lambda self: self._frames == 5)
    folder = process(clip, truth=clip.with_suffix(".json"), output={"rotate_every": "1h"})
    assert detections(folder) == detections(whole)
    ours, theirs = (json.loads((place / "metrics.json").read_text()) for place in (folder, whole))
    assert (ours["ap50"], ours["frames"]) == (theirs["ap50"], 16)
    assert (ours["tracks"], theirs["tracks"] is None) == (None, False)
    assert "tracks are not scored: their files are rotated" in ours["notes"]


def test_many_streams_part_their_files_each_by_itself(mote, clip, nano_weights, tmp_path):
    other = tmp_path / "other.mp4"
    rendering.write_scene(scene(frames=5), other)
    options = ("--weights", nano_weights, "--progress", "off", "--no-save-video", "--rotate-size", "12kB")
    assert mote("--video", clip, "--video", other, "--output", tmp_path / "out", *options).code == 0
    counts = {}
    for stem, count in (("clip", 16), ("other", 5)):
        pieces = find_rotated_files(tmp_path / "out" / stem)
        assert [line["frame"] for piece in pieces for line in records(piece)] == list(range(count))
        assert report(tmp_path / "out" / stem)["pieces"]["kept"] == len(pieces)
        counts[stem] = len(pieces)
    assert counts["clip"] > counts["other"]


def files_of(folder) -> set[tuple[str, int]]:
    """Name and time of each file: pieces of two runs may be begun in the same second."""
    return {(path.name, path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.mark.parametrize(
    "output", [{}, {"rotate_every": "1h"}], ids=["by a plain run", "by another in pieces"]
)
def test_pieces_stay_unless_they_are_to_be_replaced(process, clip, output):
    folder = in_pieces(process, clip)
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


# What goes wrong


class Full(JsonlSink):
    """The disk is full at its fifth frame."""

    def write(self, result):
        if result.frame.index == 5:
            raise OutputError(f"cannot write {self.path}: No space left on device")
        super().write(result)


def test_a_full_disk_closes_the_piece_and_joins_what_there_is(tmp_path):
    now = 0

    def files(place):
        return [Full(place(JSONL)), CocoSink(place(COCO)), VideoSink(place(VIDEO), source_info(), draw)]

    def go():
        nonlocal now
        with RotatingSink(tmp_path, files, Rotation(3, 0, 0), clock=lambda: now) as sink:
            for index in range(10):
                sink.write(make_result(index))
                now += 1

    with pytest.raises(OutputError, match="No space left"):
        go()
    assert [[line["frame"] for line in records(piece)] for piece in find_rotated_files(tmp_path)] == [
        [0, 1, 2],
        [3, 4],
    ]
    for piece, count in zip(find_rotated_files(tmp_path), (3, 2), strict=True):
        assert_plays(piece.path(VIDEO), count)
    assert {row["image_id"] for row in json.loads((tmp_path / COCO).read_text())} == set(range(1, 6))


def test_a_folder_that_goes_away_ends_the_run_with_code_5(mote, clip, nano_weights, tmp_path, monkeypatch):
    out, begin = tmp_path / "out", RotatingSink._begin

    def removing(self):
        if self._number == 2:
            shutil.rmtree(out)
        begin(self)

    monkeypatch.setattr(RotatingSink, "_begin", removing)
    monkeypatch.setattr(RotatingSink, "_due", lambda self: self._frames == 3)
    options = ("--weights", nano_weights, "--progress", "off", "--rotate-every", "1h")
    reply = mote(clip, *options, "--output", out)
    assert (reply.code, reply.err.count("\n")) == (5, 1)
    assert f"cannot write {out}" in reply.err


def test_a_run_in_pieces_is_not_resumed(mote, process, clip, nano_weights):
    folder = in_pieces(process, clip)
    before = {path.name for path in folder.iterdir()}
    arguments = ("--weights", nano_weights, "--conf", 0.2, "--output", folder, "--resume")
    reply = mote(clip, *arguments, "--rotate-every", "1h")
    assert (reply.code, reply.out) == (2, "")
    assert "--resume cannot continue files that rotate; leave --rotate-every" in reply.err
    reply = mote(clip, *arguments)
    assert (reply.code, reply.out) == (2, "")
    assert f"{folder} holds rotated files and cannot be resumed" in reply.err
    assert {path.name for path in folder.iterdir()} == before


def test_files_of_others_are_no_pieces(tmp_path):
    for name in ("results-000001.jsonl", "my-results-000001-20260101T000000Z.jsonl", "results-1-x.jsonl"):
        (tmp_path / name).touch()
    assert find_rotated_files(tmp_path) == []
    piece = RotatedFiles(tmp_path, 1_234_567, "20260101T000000Z")
    piece.path(MOT).touch()
    assert find_rotated_files(tmp_path) == [piece]
    assert {piece.path(name).name.partition("-")[0] for name in ROTATED_OUTPUTS} == {
        "annotated",
        "detections",
        "results",
        "tracks",
    }
