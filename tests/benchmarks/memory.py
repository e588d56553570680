"""Checks that the memory of a long run does not grow.

    python -m tests.benchmarks.memory --frames 10000

A synthetic video is processed with all outputs in a temporary folder. Resident memory is read every hundred
frames; growth is the difference of the largest readings after and within the first `--settle` frames. The
exit code is 1 if it exceeds `--limit`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.runner import setup, single
from pipeline.structures.results import Result
from pipeline.system.errors import MoteError
from run_pipeline import parts

PROJECT_ROOT = Path(__file__).resolve().parents[2]

EVERY = 100
"""Frames between readings."""


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.memory", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--settle", type=int, default=500, help="first frames (default: 500)")
    parser.add_argument(
        "--limit", type=float, default=30.0, help="allowed growth in 10^6 bytes (default: 30)"
    )
    parser.add_argument("--detector", default="tridos-nano")
    parser.add_argument("--weights", default="", help="name or file (default: that of the detector)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--progress", choices=("auto", "bar", "plain", "off"), default="auto")
    return parser


def resident() -> float:
    """Returns the resident memory of this process in 10^6 bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_video(options: argparse.Namespace, path: Path) -> str:
    """Writes a synthetic video in another process, so that its memory does not hide that of the run."""
    size = {"--frames": options.frames, "--width": options.width, "--height": options.height}
    settings = [str(part) for setting in size.items() for part in setting]
    command = [sys.executable, "-m", "datasets.synthetic", str(path), *settings]
    subprocess.run(command, check=True, cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL)
    return str(path)


def measure(options: argparse.Namespace, folder: Path) -> list[tuple[int, float]]:
    """Returns (frames processed, memory) every hundred frames. Raises MoteError."""
    readings = []

    class Measured(setup.RunRecord):
        """Reads the memory as results are recorded."""

        def add(self, result: Result) -> None:
            """Records a written frame."""
            super().add(result)
            if self.written % EVERY == 0:
                readings.append((self.written, resident()))

    detector = {"name": options.detector, "weights": options.weights, "device": options.device}
    table = {"detector": detector, "output": {"folder": str(folder / "out")}}
    config = build(RunConfig, table)
    parts().load_detector(config.detector)  # missing weights are reported before the video is rendered
    video = write_video(options, folder / "long.mp4")
    with patch.object(setup, "RunRecord", Measured):
        record = single.run(video, config, parts(), progress=options.progress)
    if record.failure:
        raise record.failure
    return readings


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    options = parser().parse_args(arguments)
    if options.frames < options.settle + EVERY or options.settle < EVERY:
        parser().error(f"give at least {EVERY} frames to --settle and {EVERY} more to --frames")
    try:
        with tempfile.TemporaryDirectory() as folder:
            readings = measure(options, Path(folder))
    except MoteError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    before = max(size for count, size in readings if count <= options.settle)
    after = max(size for count, size in readings if count > options.settle)
    growth = max(after - before, 0.0)
    print(f"{'frames':>8}{'MB':>9}")
    step = max(1, len(readings) // 10)
    for count, size in readings[::step]:
        print(f"{count:>8}{size:>9.1f}")
    verdict = "within" if growth <= options.limit else "ABOVE"
    print(
        f"growth after frame {options.settle}: {growth:.1f} MB, {verdict} the limit of {options.limit:g} MB"
    )
    return int(growth > options.limit)


if __name__ == "__main__":
    sys.exit(main())
