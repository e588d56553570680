"""Recovery of killed runs with rotated files: closed files stay, the last ones are completed."""

from __future__ import annotations

import json
from itertools import chain

import pytest

from datasets.synthesis import rendering
from pipeline import recover
from pipeline.runner import recovery
from pipeline.sinks.file_names import COCO, JSONL, MOT, VIDEO
from pipeline.sinks.rotating import find_rotated_files
from pipeline.system.errors import OutputError
from pipeline.system.files import lock_folder
from tests.support.interrupted_runs import kill_runs
from tests.support.outputs import Reply, cache_option, detections, report, scene
from tests.support.rotated_runs import assert_plays, records, run_rotated


@pytest.fixture
def recover_folder(capsys):
    """Runs `pipeline.recover` in this process; returns exit code, standard output and standard error."""
    return lambda *arguments: Reply(
        recover.main([str(argument) for argument in arguments]), *capsys.readouterr()
    )


def leave_as_killed(folder, *, after, truncated=b""):
    """Changes a run with four frames per set to what a process killed in the third set leaves."""
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
def test_a_killed_run_is_recovered(process, clip, whole, recover_folder, after):
    folder = run_rotated(process, clip)
    leave_as_killed(folder, after=after, truncated=b'{"frame": 11')
    closed = {path: path.read_bytes() for files in find_rotated_files(folder)[:2] for path in files.files()}
    reply = recover_folder(folder)
    assert (reply.code, reply.err) == (0, "")
    assert f"recovered {after} frames, " in reply.out
    assert "in 3 rotated sets of files; 12 bytes of a truncated line were removed" in reply.out
    assert [row["score"] for row in detections(folder)] == [
        row["score"] for row in detections(whole) if row["image_id"] <= after
    ]
    rows = (whole / MOT).read_text().splitlines(keepends=True)
    tracks = "".join(files.path(MOT).read_text() for files in find_rotated_files(folder))
    assert tracks == "".join(row for row in rows if int(row.split(",")[0]) <= after)
    assert {path: path.read_bytes() for path in closed} == closed
    assert (report(folder)["state"], report(folder)["frames"]["written"]) == ("recovered", after)
    assert report(folder)["pieces"]["kept"] == 3
    assert not list(folder.glob("*.part"))
    again = recover_folder(folder)
    assert (again.code, again.out) == (0, f"{folder}: nothing to recover, the run is recovered\n")


def test_deleted_files_are_counted_after_a_crash(process, clip, recover_folder):
    folder = run_rotated(process, clip)
    leave_as_killed(folder, after=10)
    find_rotated_files(folder)[0].delete()
    assert recover_folder(folder).code == 0
    assert report(folder)["pieces"] == {"kept": 2, "deleted": 1, "deleted_frames": None}
    assert report(folder)["frames"]["written"] == 6
    assert {row["image_id"] for row in detections(folder)} <= set(range(5, 11))


def test_a_complete_run_with_deleted_files_is_not_changed(mote, clip, nano_weights, tmp_path):
    options = ("--rotate-size", "6kB", "--disk-budget", "20kB", "--no-save-video", "--progress", "off")
    assert mote(clip, "--weights", nano_weights, "--conf", 0.2, "--output", tmp_path, *options).code == 0
    assert report(tmp_path)["pieces"]["deleted"] >= 1
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert "nothing to recover, the run is complete" in recovery.recover(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_running_run_is_refused(process, clip, recover_folder):
    folder = run_rotated(process, clip)
    leave_as_killed(folder, after=10)
    with lock_folder(folder):
        reply = recover_folder(folder)
        assert (reply.code, reply.out) == (2, "")
        assert f"the run in {folder} is still going" in reply.err
        with pytest.raises(OutputError, match="another run writes to it"), lock_folder(folder):
            pass
    assert recover_folder(folder).code == 0


def test_a_killed_run_loses_no_line_and_every_video_plays(nano_weights, recover_folder, tmp_path):
    source = tmp_path / "long.mp4"
    rendering.write_scene(scene(frames=35), source)
    options = ["--weights", nano_weights, "--conf", "0.2", "--progress", "off", "--rotate-size", "15kB"]
    options += cache_option()
    kill_runs([source, *options], tmp_path, [8.5])
    folder = tmp_path / "0"
    assert recover_folder(folder).code == 0
    sets = find_rotated_files(folder)
    assert len(sets) >= 2
    frames = [[line["frame"] for line in records(files)] for files in sets]
    assert list(chain(*frames)) == list(range(sum(map(len, frames))))
    assert 8 <= sum(map(len, frames)) < 35
    for files, shown in zip(sets[:-1], frames, strict=False):
        assert_plays(files.path(VIDEO), len(shown))
    found = [row["score"] for files in sets for line in records(files) for row in line["detections"]]
    assert [row["score"] for row in detections(folder)] == found
    assert len(found) > 8
