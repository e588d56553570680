"""Interrupted runs, and the comparison of resumed runs with uninterrupted ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import PROJECT_ROOT
from tests.support.outputs import detections, lines, report

KILLER = """
    import os, random, signal, sys, time
    from pathlib import Path
    import pipeline.runner.single
    from run_pipeline import main

    arguments, folder, moments = sys.argv[1:-2], Path(sys.argv[-2]), sys.argv[-1].split(",")
    for number, moment in enumerate(map(float, moments)):
        child, out = os.fork(), folder / str(number)
        if not child:
            os._exit(main([*arguments, "--output", str(out)]))
        while sum(log.read_bytes().count(b"\\n") for log in out.rglob("results*.jsonl")) < int(moment):
            time.sleep(0.01)
        time.sleep(0.02 * (moment % 1))
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), f"it had ended before moment {moment}"
"""
"""Forks runs of a program that is loaded once and kills each at a time: a number of lines and a fraction."""


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


def kill_runs(arguments: Sequence[object], folder: Path, moments: Sequence[float]) -> None:
    """Runs the command line once per moment and kills it then; outputs are in `folder`/0, `folder`/1, …."""
    command = [sys.executable, "-c", textwrap.dedent(KILLER), *map(str, arguments), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, ",".join(map(str, moments))], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
