"""Scenes and processes of test runs, and readers of their outputs."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av

from datasets.synthesis.scene import Scene, Target

OUTPUTS = ("annotated.mp4", "detections.json", "results.jsonl", "run.json", "tracks.txt")

TARGETS = (Target(x=15, y=20, vx=1, scr=60), Target(x=50, y=45, vx=-0.7, vy=0.2, scr=60))


class Reply(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


def cache_option() -> list[str]:
    """Returns the option by which another process uses the exported graphs of these tests."""
    from detectors.backends import graph_cache  # loads torch

    return ["--set", f"detector.cache={graph_cache.CACHE}"]


def run_on_full_disk(arguments: Sequence[object], *, limit: int) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a process that cannot write files of more than `limit` bytes."""
    return subprocess.run(
        [sys.executable, "run_pipeline.py", *map(str, arguments), *cache_option()],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=600,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )


def scene(*, width: int = 64, height: int = 64, frames: int = 16, **settings) -> Scene:
    """Two bright targets in front of a uniform sky."""
    return Scene(width=width, height=height, frames=frames, targets=TARGETS, **settings)


def video(path: Path) -> list[tuple[Fraction, tuple[int, int]]]:
    """Returns the time in seconds and (width, height) of every decodable frame."""
    with av.open(str(path)) as container:
        return [(f.pts * f.time_base, (f.width, f.height)) for f in container.decode(video=0)]


def lines(folder: Path) -> list[dict]:
    """Reads results.jsonl."""
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def report(folder: Path) -> dict:
    """Reads run.json."""
    return json.loads((folder / "run.json").read_text())


def detections(folder: Path) -> list[dict]:
    """Reads detections.json."""
    return json.loads((folder / "detections.json").read_text())


def check_consistent(folder: Path) -> int:
    """Asserts that all outputs are valid and agree on the frames; returns their number."""
    assert sorted(path.name for path in folder.iterdir() if path.name != "metrics.json") == sorted(OUTPUTS)
    records = lines(folder)
    assert [record["frame"] for record in records] == list(range(len(records)))
    assert len(video(folder / "annotated.mp4")) == len(records)
    assert len(detections(folder)) == sum(len(record["detections"]) for record in records)
    followed = sum(track["state"] == "confirmed" for record in records for track in record["tracks"])
    rows = (folder / "tracks.txt").read_text().splitlines()
    assert [len(row.split(",")) for row in rows] == [10] * followed
    frames = report(folder)["frames"]
    assert frames["written"] == len(records)
    assert frames["decoded"] == frames["written"] + frames["unprocessed"]
    return len(records)
