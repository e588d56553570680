"""Kills runs at random moments, then recovers and resumes them: nothing may be lost or duplicated.

    python -m tests.faults.kills --count 20

A synthetic clip is processed by runs with plain outputs, with arrays, with rotated files, and over several
sources, in turn. Each run is killed by SIGKILL at a seeded moment. A copy of its folder is recovered, and
must hold exactly the first frames of an uninterrupted run. The folder itself is resumed, and must end with
the files of the uninterrupted run; runs with rotated files are only recovered. The exit code is 1 if a check
fails.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import run_pipeline
from datasets.synthesis import rendering
from pipeline import recover
from pipeline.sinks.file_names import COCO, JSONL, MOT, VIDEO
from pipeline.sinks.rotating import find_rotated_files
from pipeline.system import cli
from pipeline.system.cli import int_at_least
from tests.support.interrupted_runs import assert_same, kill_runs
from tests.support.nano import save_nano
from tests.support.outputs import report, scene, video
from tests.support.zarr_stores import assert_same_arrays

FRAMES = 90
MARGIN = 12
"""Frames before the end at which no run is killed any more, since it may be over before."""


class Kind(NamedTuple):
    """What the runs of one kind are given."""

    sources: tuple[str, ...] = ("clip",)
    """Names of the sources; those of several are processed together, each with a folder of its own."""
    options: tuple[str, ...] = ()
    resumable: bool = True


KINDS = {
    "plain": Kind(),
    "arrays": Kind(options=("--save-zarr",)),
    "rotated": Kind(options=("--rotate-size", "25kB"), resumable=False),
    "several": Kind(sources=("clip", "other")),
}


class Outputs(NamedTuple):
    """Contents of a folder, whether its files are rotated or not."""

    lines: list[dict[str, Any]]
    """Without timings."""
    detections: list[dict[str, Any]]
    rows: list[str]
    """Those of tracks.txt, of all rotated files together."""
    shown: int
    """Number of frames in the annotated videos."""


def outputs(folder: Path) -> Outputs:
    """Reads the outputs of a run over one source."""
    places = [files.path for files in find_rotated_files(folder)] or [folder.joinpath]
    lines = [json.loads(text) for place in places for text in place(JSONL).read_text().splitlines()]
    for line in lines:
        del line["timings_ms"]
    rows = [row for place in places for row in place(MOT).read_text().splitlines()]
    shown = sum(len(video(place(VIDEO))) for place in places)
    return Outputs(lines, json.loads((folder / COCO).read_text()), rows, shown)


class Campaign:
    """Kills runs of each kind and compares what is left, recovered and resumed with uninterrupted runs."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._weights = save_nano(folder / "nano.safetensors")
        for name in ("clip", "other"):
            rendering.write_scene(scene(frames=FRAMES), folder / f"{name}.mp4")
        self._whole: dict[str, Path] = {}

    def kill(self, kind: str, moment: float) -> str:
        """Kills one run after a share of its frames; returns what was seen. Raises AssertionError."""
        whole = self._uninterrupted(kind)
        place = self._folder / "killed"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        lines = FRAMES * len(KINDS[kind].sources) - MARGIN
        kill_runs(self._arguments(kind), place, [moment * lines])
        seen = [self._check(kind, *pair) for pair in self._pairs(kind, place / "0", whole)]
        return ", ".join(seen)

    def _check(self, kind: str, killed: Path, whole: Path, source: Path) -> str:
        """Recovers a copy of a folder and resumes the folder; returns the number of lines in words."""
        if not list(killed.glob("results*.jsonl")):
            return "not begun"
        copy = killed.with_name(f"copy of {killed.name}")
        shutil.copytree(killed, copy)
        begun = sum(log.read_bytes().count(b"\n") for log in killed.glob("results*.jsonl"))
        assert silently(recover.main, [str(copy)]) == 0, "it cannot be recovered"
        assert_beginning(outputs(copy), outputs(whole), begun)
        assert report(copy)["state"] in ("recovered", "complete")
        assert silently(recover.main, [str(copy)]) == 0, "it cannot be recovered again"
        if KINDS[kind].resumable and report(killed)["state"] != "complete":
            arguments = [str(source), *self._options(kind), "--output", str(killed), "--resume"]
            assert silently(run_pipeline.main, arguments) == 0, "it cannot be resumed"
            assert_same(killed, whole)
        if (whole / "results.zarr").exists():
            assert_same_arrays(killed, whole)
        assert not list((killed if KINDS[kind].resumable else copy).rglob("*.part")), "a part is left"
        return f"{begun} lines"

    def _uninterrupted(self, kind: str) -> Path:
        """Returns the folder of an uninterrupted run."""
        if kind not in self._whole:
            self._whole[kind] = self._folder / f"whole {kind}"
            arguments = [*self._arguments(kind), "--output", str(self._whole[kind])]
            assert silently(run_pipeline.main, arguments) == 0, "the uninterrupted run failed"
        return self._whole[kind]

    def _pairs(self, kind: str, killed: Path, whole: Path) -> list[tuple[Path, Path, Path]]:
        """Returns the folders of a killed and of an uninterrupted run, and the source, for each source."""
        sources = KINDS[kind].sources
        folders = [(killed / name, whole / name) if len(sources) > 1 else (killed, whole) for name in sources]
        return [(*pair, self._source(name)) for pair, name in zip(folders, sources, strict=True)]

    def _arguments(self, kind: str) -> list[str]:
        given = [("--video", str(self._source(name))) for name in KINDS[kind].sources]
        return [*itertools.chain(*given), *self._options(kind)]

    def _options(self, kind: str) -> list[str]:
        return ["--weights", self._weights, "--conf", "0.2", "--progress", "off", *KINDS[kind].options]

    def _source(self, name: str) -> Path:
        return self._folder / f"{name}.mp4"


def assert_beginning(found: Outputs, whole: Outputs, count: int) -> None:
    """Asserts that outputs are those of the first `count` frames."""
    assert len(found.lines) == count, f"{len(found.lines)} of {count} lines are left"
    assert found.lines == whole.lines[:count], "lines differ"
    assert found.detections == [row for row in whole.detections if row["image_id"] <= count]
    assert found.rows == [row for row in whole.rows if int(row.split(",")[0]) <= count], "tracks differ"
    assert found.shown <= count + 1, "the video has frames without a line"


def silently(command: Any, arguments: Sequence[str]) -> int:
    """Runs a command without its output; returns the exit code."""
    with contextlib.redirect_stdout(io.StringIO()):
        return command(list(arguments))


def parser() -> cli.Parser:
    """Returns the parser of the command."""
    parser = cli.Parser(prog="python -m tests.faults.kills", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--count", type=int_at_least(1), default=20, help="number of runs (default: 20)")
    parser.add_argument("--seed", type=int_at_least(0), default=0, help="seed of the moments (default: 0)")
    return parser


def work(options: argparse.Namespace) -> int:
    """Kills the runs and prints what was seen of each."""
    chance, failed = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder))
        for number, kind in zip(range(options.count), itertools.cycle(KINDS), strict=False):
            try:
                seen = campaign.kill(kind, chance.random())
            except AssertionError as error:
                failed += 1
                seen = f"FAILED: {error}"
            print(f"{number + 1:3} {kind:8} {seen}", flush=True)
    print(f"{options.count - failed} of {options.count} runs lost and duplicated nothing")
    return int(failed > 0)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
