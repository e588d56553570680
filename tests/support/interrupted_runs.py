"""Interrupted runs, and the comparison of resumed runs with uninterrupted ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.support.outputs import detections, lines, report


def interrupted_copy(whole: Path, folder: Path, *, after: int, truncated: bytes = b"") -> Path:
    """Creates in `folder` what a process killed after `after` frames of the run in `whole` leaves."""
    shutil.copytree(whole, folder)
    kept = b"".join((whole / "results.jsonl").read_bytes().splitlines(keepends=True)[:after])
    (folder / "results.jsonl").write_bytes(kept + truncated)
    (folder / "detections.json").rename(folder / "detections.json.part")
    for name in ("tracks.txt", "annotated.mp4"):
        (folder / name).write_bytes((whole / name).read_bytes()[:1000])
    (folder / "run.json").write_text(json.dumps({**report(whole), "state": "running"}))
    return folder


def without_times(folder: Path) -> list[dict]:
    """Returns the lines of a run without their timings."""
    return [{key: value for key, value in line.items() if key != "timings_ms"} for line in lines(folder)]


def assert_same(folder: Path, whole: Path) -> None:
    """Asserts that two runs have the same outputs."""
    assert without_times(folder) == without_times(whole)
    assert detections(folder) == detections(whole)
    assert (folder / "tracks.txt").read_bytes() == (whole / "tracks.txt").read_bytes()
    assert (folder / "annotated.mp4").read_bytes() == (whole / "annotated.mp4").read_bytes()
    assert report(folder)["state"] == "complete"
    for count in ("frames", "detections", "tracks", "metrics"):
        assert report(folder)[count] == report(whole)[count]
