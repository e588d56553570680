"""Tracking of recorded detections: `trackers.track`."""

from __future__ import annotations

import json
import shutil

import pytest

import mote
from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
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
    assert table["config"]["tracker"] == {"name": "none", "options": {}}
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
        ({"rotate_every": "1h"}, "began new files at times"),
    ],
)
def test_a_run_without_lines_is_refused_before_anything_is_written(tmp_path, output, why):
    with pytest.raises(UsageError, match=f"has no results.jsonl: .*{why}"):
        track.require_lines(tmp_path, build(RunConfig, {"output": output}))


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
