"""What a killed run in pieces leaves is put in order: closed pieces stay, the last one is made whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from itertools import chain

import pytest

from datasets.synthesis import rendering
from pipeline import recover
from pipeline.runner import recovery
from pipeline.sinks.file_names import COCO, JSONL, MOT, VIDEO
from pipeline.sinks.rotating import RotatingSink, find_rotated_files
from pipeline.system.errors import OutputError
from tests.conftest import PROJECT_ROOT
from tests.pipeline.runner.test_recovery import KILLER
from tests.support.outputs import Reply, detections, report, scene
from tests.support.rotated_runs import FOREVER, assert_plays, in_pieces, open_files, records


@pytest.fixture
def put_in_order(capsys):
    """The command within this process: arguments → exit code, standard output, standard error."""
    return lambda *arguments: Reply(
        recover.main([str(argument) for argument in arguments]), *capsys.readouterr()
    )


def broken_off(folder, *, after, truncated=b""):
    """Make of a run in pieces of four frames what a process leaves that was killed in the third of them."""
    *_, third, fourth = find_rotated_files(folder)
    fourth.delete()
    kept = b"".join(third.path(JSONL).read_bytes().splitlines(keepends=True)[: after - 8])
    third.path(JSONL).write_bytes(kept + truncated)
    third.path(COCO).rename(third.path(COCO).with_name(third.path(COCO).name + ".part"))
    for name in (MOT, VIDEO):
        third.path(name).write_bytes(third.path(name).read_bytes()[:100])
    (folder / COCO).unlink()
    running = {key: value for key, value in report(folder).items() if key not in ("pieces", "frames")}
    (folder / "run.json").write_text(json.dumps({**running, "state": "running"}))


@pytest.mark.parametrize("after", [8, 10])
def test_what_a_killed_run_leaves_is_put_in_order(process, clip, whole, put_in_order, after):
    folder = in_pieces(process, clip)
    broken_off(folder, after=after, truncated=b'{"frame": 11')
    closed = {path: path.read_bytes() for piece in find_rotated_files(folder)[:2] for path in piece.files()}
    reply = put_in_order(folder)
    assert (reply.code, reply.err) == (0, "")
    assert f"recovered {after} frames, " in reply.out
    assert "in 3 rotated sets of files; 12 bytes of a truncated line were removed" in reply.out
    assert [row["score"] for row in detections(folder)] == [
        row["score"] for row in detections(whole) if row["image_id"] <= after
    ]
    rows = (whole / MOT).read_text().splitlines(keepends=True)
    tracks = "".join(piece.path(MOT).read_text() for piece in find_rotated_files(folder))
    assert tracks == "".join(row for row in rows if int(row.split(",")[0]) <= after)
    assert {path: path.read_bytes() for path in closed} == closed
    assert (report(folder)["state"], report(folder)["frames"]["written"]) == ("recovered", after)
    assert report(folder)["pieces"]["kept"] == 3
    assert not list(folder.glob("*.part"))
    again = put_in_order(folder)
    assert (again.code, again.out) == (0, f"{folder}: nothing to recover, the run is recovered\n")


def test_deleted_pieces_are_counted_after_a_crash(process, clip, put_in_order):
    folder = in_pieces(process, clip)
    broken_off(folder, after=10)
    find_rotated_files(folder)[0].delete()
    assert put_in_order(folder).code == 0
    assert report(folder)["pieces"] == {"kept": 2, "deleted": 1, "deleted_frames": None}
    assert report(folder)["frames"]["written"] == 6
    assert {row["image_id"] for row in detections(folder)} <= set(range(5, 11))


def test_a_run_that_has_deleted_pieces_and_ended_by_itself_is_left_alone(mote, clip, nano_weights, tmp_path):
    options = ("--rotate-size", "6kB", "--disk-budget", "20kB", "--no-save-video", "--progress", "off")
    assert mote(clip, "--weights", nano_weights, "--conf", 0.2, "--output", tmp_path, *options).code == 0
    assert report(tmp_path)["pieces"]["deleted"] >= 1
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert "nothing to recover, the run is complete" in recovery.recover(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_that_goes_on_is_not_touched(process, clip, put_in_order):
    folder = in_pieces(process, clip)
    broken_off(folder, after=10)
    with RotatingSink(folder, lambda place: [], FOREVER):
        reply = put_in_order(folder)
        assert (reply.code, reply.out) == (2, "")
        assert f"the run in {folder} is still going" in reply.err
        with pytest.raises(OutputError, match="another run writes to it"):
            RotatingSink(folder, open_files, FOREVER).__enter__()
    assert put_in_order(folder).code == 0


def test_killed_for_real_every_piece_plays_and_no_line_is_lost(nano_weights, put_in_order, tmp_path):
    source = tmp_path / "long.mp4"
    rendering.write_scene(scene(frames=35), source)
    options = ["--weights", nano_weights, "--conf", "0.2", "--progress", "off", "--rotate-size", "15kB"]
    command = [sys.executable, "-c", textwrap.dedent(KILLER), str(source), *options, str(tmp_path), "8.5"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT), "OMP_NUM_THREADS": "1"}
    killer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert killer.returncode == 0, killer.stderr
    folder = tmp_path / "0"
    assert put_in_order(folder).code == 0
    pieces = find_rotated_files(folder)
    assert len(pieces) >= 2
    frames = [[line["frame"] for line in records(piece)] for piece in pieces]
    assert list(chain(*frames)) == list(range(sum(map(len, frames))))
    assert 8 <= sum(map(len, frames)) < 35
    for piece, shown in zip(pieces[:-1], frames, strict=False):
        assert_plays(piece.path(VIDEO), len(shown))
    found = [row["score"] for piece in pieces for line in records(piece) for row in line["detections"]]
    assert [row["score"] for row in detections(folder)] == found
    assert len(found) > 8
