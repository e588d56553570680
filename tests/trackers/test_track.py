"""Tracking of recorded detections: `trackers.track`."""

from __future__ import annotations

import json
import shutil

import pytest

import mote
from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.runner.recovery import recover
from pipeline.sinks.rotating import RotatedFiles
from pipeline.system.errors import UsageError
from trackers import track


@pytest.fixture(scope="module")
def recorded(clip, nano_weights, tmp_path_factory):
    """The folder of a run without a video."""
    folder = tmp_path_factory.mktemp("recorded") / "run"
    truth = clip.with_suffix(".json")
    mote.run(
        clip,
        weights=nano_weights,
        backend="torch",
        output=folder,
        save_video=False,
        annotations=truth,
        conf=0.3,
    )
    return folder


@pytest.mark.slow
def test_the_tracker_of_the_run_gives_its_tracks_again(recorded, tmp_path):
    assert track.main([str(recorded), "--output", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "tracks.txt").read_bytes() == (recorded / "tracks.txt").read_bytes()
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (recorded, tmp_path / "again")]
    assert metrics[0]["tracks"] == metrics[1]["tracks"]
    lines = [
        [json.loads(line)["tracks"] for line in (folder / "results.jsonl").read_text().splitlines()]
        for folder in (recorded, tmp_path / "again")
    ]
    assert lines[0] == lines[1]


@pytest.mark.slow
def test_another_tracker_and_other_options_change_tracks_and_not_detections(recorded, tmp_path):
    assert (
        track.main([str(recorded / "results.jsonl"), "--output", str(tmp_path / "none"), "--tracker", "none"])
        == 0
    )
    assert (tmp_path / "none" / "tracks.txt").read_text() == ""
    table = json.loads((tmp_path / "none" / "run.json").read_text())
    assert table["config"]["tracker"] == {"name": "none", "options": {}, "camera_motion": "auto"}
    assert table["detections_of"] == str(recorded)
    counts = [json.loads((folder / "run.json").read_text()) for folder in (recorded, tmp_path / "none")]
    assert counts[0]["detections"] == counts[1]["detections"]


@pytest.mark.slow
def test_wrong_options_and_folders_are_refused(recorded, tmp_path, capsys):
    assert track.main([str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert track.main([str(recorded), "--output", str(tmp_path / "out"), "--set", "nonsense=1"]) == 2
    assert "unknown tracker option 'nonsense'" in capsys.readouterr().err
    shutil.copytree(recorded, tmp_path / "copy")
    assert track.main([str(recorded), "--output", str(tmp_path / "copy")]) == 5
    assert "holds an earlier run" in capsys.readouterr().err
    assert track.main([str(tmp_path / "copy"), "--output", str(tmp_path / "copy"), "--overwrite"]) == 5
    assert "is to be read and would be overwritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ({}, "moved or removed"),
        ({"jsonl": False}, "was given --no-save-jsonl"),
        ({"rotate_every": "1h"}, "moved or removed"),
    ],
)
def test_a_run_without_lines_is_refused_before_anything_is_written(tmp_path, output, why):
    with pytest.raises(UsageError, match=f"has no results.jsonl: .*{why}"):
        track.recorded_files(tmp_path, build(RunConfig, {"output": output}))


def in_rotated_files(whole, folder, *, every=7):
    """Copies a run with its lines in rotated files of `every` frames; returns the paths of these files."""
    folder.mkdir()
    table = json.loads((whole / "run.json").read_text())
    table["config"]["output"]["rotate_every"] = "1h"
    (folder / "run.json").write_text(json.dumps(table))
    lines = (whole / "results.jsonl").read_bytes().splitlines(keepends=True)
    paths = []
    for number, begin in enumerate(range(0, len(lines), every), start=1):
        paths.append(RotatedFiles(folder, number, f"20261121T18{number:02d}00Z").path("results.jsonl"))
        paths[-1].write_bytes(b"".join(lines[begin : begin + every]))
    return paths


@pytest.mark.slow
def test_the_rotated_files_of_a_run_are_tracked_as_one(recorded, tmp_path, capsys):
    paths = in_rotated_files(recorded, tmp_path / "rotated")
    assert len(paths) > 2
    assert track.main([str(tmp_path / "rotated"), "--output", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "tracks.txt").read_bytes() == (recorded / "tracks.txt").read_bytes()
    paths[0].unlink()  # for the disk budget
    assert track.main([str(tmp_path / "rotated"), "--output", str(tmp_path / "rest")]) == 0
    first = json.loads((tmp_path / "rest" / "results.jsonl").read_text().splitlines()[0])
    assert first["frame"] == 7
    paths[1].write_bytes(paths[2].read_bytes())
    assert track.main([str(tmp_path / "rotated"), "--output", str(tmp_path / "wrong")]) == 2
    assert "begins with frame 14, after frame 15" in capsys.readouterr().err


@pytest.mark.slow
def test_predicted_boxes_are_written_on_demand(recorded, tmp_path):
    lines = (recorded / "results.jsonl").read_text().splitlines()
    (tmp_path / "holes").mkdir()
    with (tmp_path / "holes" / "results.jsonl").open("w") as file:
        for line in map(json.loads, lines):  # every fourth frame shows nothing
            file.write(
                json.dumps({**line, "detections": line["detections"] if line["frame"] % 4 else []}) + "\n"
            )
    shutil.copy(recorded / "run.json", tmp_path / "holes")
    rows = {}
    for flag in ("--no-save-coasting", "--save-coasting"):
        out = tmp_path / flag.strip("-")
        assert track.main([str(tmp_path / "holes"), "--output", str(out), flag]) == 0
        rows[flag] = (out / "tracks.txt").read_text().splitlines()
        states = [
            row["state"]
            for line in (out / "results.jsonl").read_text().splitlines()
            for row in json.loads(line)["tracks"]
        ]
        assert "coasting" in states
        wanted = {"confirmed", "coasting"} if flag == "--save-coasting" else {"confirmed"}
        assert len(rows[flag]) == sum(state in wanted for state in states)
    assert set(rows["--no-save-coasting"]) < set(rows["--save-coasting"])


@pytest.mark.slow
def test_a_run_and_a_recovered_run_smooth_tracks_as_tracking_again_does(
    recorded, clip, nano_weights, tmp_path
):
    again, run = tmp_path / "again", tmp_path / "run"
    assert track.main([str(recorded), "--output", str(again), "--smooth"]) == 0
    assert json.loads((again / "run.json").read_text())["config"]["output"]["smooth"] is True
    smoothed = (again / "tracks.txt").read_bytes()
    first, plain = (
        [int(line.split(b",")[0]) for line in rows.splitlines()]
        for rows in (smoothed, (recorded / "tracks.txt").read_bytes())
    )
    assert first[0] < plain[0]  # tentative rows are prepended
    mote.run(clip, weights=nano_weights, backend="torch", output=run, save_video=False, conf=0.3, smooth=True)
    assert (run / "tracks.txt").read_bytes() == smoothed
    table = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**table, "state": "running"}))
    (run / "tracks.txt").write_bytes(b"")
    recover(run)
    assert (run / "tracks.txt").read_bytes() == smoothed


@pytest.mark.slow
def test_nothing_is_written_for_a_run_without_lines(recorded, tmp_path, capsys):
    shutil.copytree(recorded, tmp_path / "copy")
    (tmp_path / "copy" / "results.jsonl").unlink()
    assert track.main([str(tmp_path / "copy"), "--output", str(tmp_path / "out")]) == 2
    assert "has no results.jsonl" in capsys.readouterr().err
    (tmp_path / "copy" / "results.jsonl").touch()
    assert track.main([str(tmp_path / "copy"), "--output", str(tmp_path / "out")]) == 2
    assert "results.jsonl holds no frames" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
