"""Recovery of a killed run: no line is lost or duplicated, and all files agree."""

from __future__ import annotations

import json
import random
import shutil
from fractions import Fraction

import pytest

from datasets.synthesis import rendering
from pipeline import recover
from pipeline.sinks.base import Sinks
from pipeline.sinks.video import VideoSink, defragment
from pipeline.system.files import lock_folder
from tests.pipeline.sinks.test_sinks import IRREGULAR_MKV, draw, make_result, source_info
from tests.support.interrupted_runs import assert_same, interrupted_copy, kill_runs, without_times
from tests.support.outputs import (
    Reply,
    cache_option,
    check_consistent,
    detections,
    lines,
    report,
    run_on_full_disk,
    scene,
    video,
)

TRUNCATED = b'{"frame":11,"pts":0.36'


@pytest.fixture
def recover_folder(capsys):
    """Runs `pipeline.recover` in this process; returns exit code, standard output and standard error."""
    return lambda *arguments: Reply(
        recover.main([str(argument) for argument in arguments]), *capsys.readouterr()
    )


def assert_beginning(folder, whole, count):
    """Asserts that the files of a recovered run hold exactly the first frames of another run."""
    assert without_times(folder) == without_times(whole)[:count]
    assert detections(folder) == [row for row in detections(whole) if row["image_id"] <= count]
    rows = (whole / "tracks.txt").read_text().splitlines(keepends=True)
    tracks = "".join(row for row in rows if int(row.split(",")[0]) <= count)
    assert (folder / "tracks.txt").read_text() == tracks
    assert report(folder)["state"] == "recovered"
    assert report(folder)["frames"]["written"] == count
    assert not list(folder.glob("*.part"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Files


@pytest.mark.parametrize("after", [0, 1, 11, 16])
@pytest.mark.parametrize(
    "truncated",
    [b"", TRUNCATED, TRUNCATED + b"\0" * 4000, b"\n"],
    ids=["whole", "truncated", "zeros", "blank"],
)
def test_all_files_are_rebuilt_from_the_lines(whole, tmp_path, recover_folder, after, truncated):
    folder = interrupted_copy(whole, tmp_path / "out", after=after, truncated=truncated)
    reply = recover_folder(folder)
    assert (reply.code, reply.err) == (0, "")
    assert reply.out.startswith(f"{folder}: recovered {after} frames, ")
    assert ("of a truncated line were removed" in reply.out) == bool(truncated)
    assert reply.out.count("\n") == 1
    assert_beginning(folder, whole, after)
    assert report(folder)["detections"] == len(detections(folder))
    assert (
        report(folder)["reason"] == "the process ended without closing its files; rebuilt from results.jsonl"
    )
    assert report(folder)["stages_ms"].keys() >= ({"detect", "track"} if after else set())


def test_recovering_twice_changes_nothing(whole, tmp_path, recover_folder):
    folder = interrupted_copy(whole, tmp_path / "out", after=9, truncated=TRUNCATED)
    assert recover_folder(folder).code == 0
    before = contents(folder)
    reply = recover_folder(folder)
    assert (reply.code, reply.out) == (0, f"{folder}: nothing to recover, the run is recovered\n")
    assert contents(folder) == before


def test_a_complete_run_is_not_changed(whole, recover_folder):
    before = contents(whole)
    reply = recover_folder(whole)
    assert (reply.code, reply.out) == (0, f"{whole}: nothing to recover, the run is complete\n")
    assert contents(whole) == before


def test_ids_and_scores_are_taken_from_the_ground_truth(process, clip, tmp_path, recover_folder):
    table = json.loads(clip.with_suffix(".json").read_text())
    for rows, key in ((table["images"], "id"), (table["annotations"], "image_id")):
        for row in rows:
            row[key] += 100
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps(table))
    whole = process(clip, truth=truth, folder="whole")
    folder = interrupted_copy(whole, tmp_path / "out", after=16)
    (folder / "metrics.json").unlink()
    assert recover_folder(folder).code == 0
    assert detections(folder) == detections(whole)
    assert json.loads((folder / "metrics.json").read_text()) == json.loads(
        (whole / "metrics.json").read_text()
    )
    moved = interrupted_copy(whole, tmp_path / "moved", after=16)
    truth.rename(tmp_path / "elsewhere.json")
    assert recover_folder(moved, "--annotations", tmp_path / "elsewhere.json").code == 0
    assert detections(moved) == detections(whole)


def test_a_recovered_run_can_be_resumed(whole, clip, nano_weights, mote, tmp_path, recover_folder):
    folder = interrupted_copy(whole, tmp_path / "out", after=9, truncated=TRUNCATED)
    assert recover_folder(folder).code == 0
    arguments = (clip, "--weights", nano_weights, "--conf", 0.2, "--output", folder, "--resume")
    assert mote(*arguments, "--annotations", clip.with_suffix(".json")).code == 0
    assert_same(folder, whole)


# Refusals


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("run.json", None, "holds no run: cannot read run.json: No such file or directory"),
        ("run.json", b"[]", "is not the record of a run"),
        ("run.json", b"[" * 100_000, "is not the record of a run"),
        (
            "results.jsonl",
            b'{"frame": 0}\n{"frame": 1}\n',
            "results.jsonl, line 1 is not a result: there is no 'detections'",
        ),
        ("results.jsonl", b"[" * 100_000 + b"\n{}\n", "results.jsonl, line 1 is not a result"),
    ],
    ids=["no record", "a list", "a deep record", "other lines", "a deep line"],
)
def test_a_folder_without_a_valid_run_is_refused_and_not_changed(
    whole, tmp_path, recover_folder, name, content, reason
):
    folder = interrupted_copy(whole, tmp_path / "out", after=9)
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    before = contents(folder)
    reply = recover_folder(folder)
    assert (reply.code, reply.out, reply.err.count("\n")) == (2, "", 1)
    assert reason in reply.err
    assert contents(folder) == before


def test_a_duplicate_line_is_refused(whole, tmp_path, recover_folder):
    folder = interrupted_copy(whole, tmp_path / "out", after=9)
    rows = (folder / "results.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "results.jsonl").write_bytes(b"".join([*rows[:5], *rows[4:]]))
    reply = recover_folder(folder)
    assert reply.code == 2
    assert "line 6 is not a result: its frame does not follow the one before" in reply.err


def test_a_running_run_is_refused(whole, tmp_path, recover_folder):
    folder = interrupted_copy(whole, tmp_path / "out", after=9)
    with lock_folder(folder):
        reply = recover_folder(folder)
    assert (reply.code, reply.out) == (2, "")
    assert "is still going" in reply.err


def test_an_unwritable_file_is_reported(whole, tmp_path, recover_folder):
    folder = interrupted_copy(whole, tmp_path / "out", after=9)
    (folder / "tracks.txt").unlink()
    (folder / "tracks.txt").mkdir()
    reply = recover_folder(folder)
    assert (reply.code, reply.out, reply.err.count("\n")) == (5, "", 1)
    assert "tracks.txt" in reply.err


# Killed processes

FRAMES = 60


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    rendering.write_scene(scene(frames=FRAMES), path)
    return path


@pytest.mark.parametrize("count", [3])
def test_a_run_killed_at_any_moment_loses_and_duplicates_nothing(
    mote, long_clip, nano_weights, tmp_path, recover_folder, count
):
    chance = random.Random(count)
    moments = [chance.uniform(0, FRAMES - 25) for _ in range(count)]
    arguments = [
        str(long_clip),
        "--weights",
        nano_weights,
        "--conf",
        "0.2",
        "--progress",
        "off",
        *cache_option(),
    ]
    kill_runs(arguments, tmp_path, moments)
    assert mote(*arguments, "--output", tmp_path / "whole").code == 0
    for number, moment in enumerate(moments):
        killed, copy = tmp_path / str(number), tmp_path / f"copy of {number}"
        shutil.copytree(killed, copy)
        reply = recover_folder(copy)
        assert reply.code == 0
        done = len(lines(copy))
        assert int(moment) <= done < FRAMES
        assert_beginning(copy, tmp_path / "whole", done)
        # before its first fragment a video has no frames
        none = "the video shows 0 frames" in reply.out
        shown = [] if none else [pts for pts, _ in video(copy / "annotated.mp4")]
        assert shown == [Fraction(index, 30) for index in range(len(shown))]
        assert len(shown) <= done + 1
        assert mote(*arguments, "--output", killed, "--resume").code == 0
        assert_same(killed, tmp_path / "whole")
        assert check_consistent(killed) == FRAMES


# Full disk and deleted folder


@pytest.mark.usefixtures("whole")  # its graph is exported before the disk is full
def test_a_full_disk_ends_the_run_with_code_5_and_all_lines_valid(long_clip, nano_weights, tmp_path):
    out = tmp_path / "out"
    options = ["--weights", nano_weights, "--conf", "0.2", "--output", out, "--progress", "off"]
    run = run_on_full_disk([long_clip, *options], limit=60_000)
    assert run.returncode == 5, run.stderr
    assert run.stderr.startswith(f"error: cannot write {out}")
    assert run.stderr.count("\n") == 1
    done = len(lines(out))
    assert 0 < done < FRAMES
    assert report(out)["state"] == "partial"
    assert abs(report(out)["frames"]["written"] - done) <= 1
    assert {row["image_id"] for row in detections(out)} <= set(range(1, done + 1))
    assert len(video(out / "annotated.mp4")) <= done


@pytest.mark.parametrize("kept", [[], ["--no-save-jsonl", "--no-save-mot"]], ids=["lines", "no lines"])
def test_a_deleted_folder_ends_the_run_with_code_5(
    mote, long_clip, nano_weights, tmp_path, monkeypatch, kept
):
    out, write = tmp_path / "out", Sinks.write

    def deleting(self, result):
        write(self, result)
        if result.frame.index == 20:
            shutil.rmtree(out)

    monkeypatch.setattr(Sinks, "write", deleting)
    reply = mote(long_clip, "--weights", nano_weights, "--output", out, "--progress", "off", *kept)
    assert reply.code == 5
    assert "it was deleted while it was written; leave the folder of a run where it is" in reply.err
    assert reply.err.count("\n") == 1
    assert "21 written" in reply.out
    assert not out.exists()


# Video


def boxes_of(path):
    """Returns the types of the top-level boxes of an mp4."""
    data, kinds, place = path.read_bytes(), [], 0
    while place + 8 <= len(data):
        kinds.append(data[place + 4 : place + 8])
        place += int.from_bytes(data[place : place + 4], "big") or len(data)
    return kinds


def test_a_fragmented_video_becomes_an_ordinary_one_with_the_same_times(tmp_path):
    path = tmp_path / "annotated.mp4"
    with VideoSink(path, source_info(rate=Fraction(1000, 33)), draw) as sink:
        for index, pts in enumerate(IRREGULAR_MKV):
            sink.write(make_result(index, pts=pts))
        broken = path.read_bytes()
    path.write_bytes(broken[:-500])  # within the last fragment
    assert b"moof" in boxes_of(path)
    count = defragment(path)
    assert b"moof" not in boxes_of(path)
    after = [pts for pts, _ in video(path)]
    assert len(after) == count >= 20
    assert after == IRREGULAR_MKV[:count]
    assert defragment(path) == count
    assert [pts for pts, _ in video(path)] == after
    assert [entry.name for entry in tmp_path.iterdir()] == ["annotated.mp4"]


@pytest.mark.parametrize("content", [b"", b"\0" * 40], ids=["empty", "zeros"])
def test_a_video_without_a_complete_fragment_is_not_changed(tmp_path, content):
    path = tmp_path / "annotated.mp4"
    path.write_bytes(content)
    assert defragment(path) == 0
    assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["annotated.mp4"]
