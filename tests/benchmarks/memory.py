"""Whether a long run takes more memory as it goes on.

    python -m tests.benchmarks.memory --frames 10000

Synthetic frames go through the whole chain, all outputs included, in a temporary folder. The resident memory
is read every hundred frames; growth is what the largest reading after the first frames exceeds theirs by.
The exit code is 1 where it is above the limit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.runner import single
from pipeline.structures.results import Result
from pipeline.system.errors import MoteError

PROJECT_ROOT = Path(__file__).resolve().parents[2]

EVERY = 100
"""Frames between two readings."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.memory", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--settle", type=int, default=500, help="first frames, to compare with (500)")
    parser.add_argument("--limit", type=float, default=30.0, help="growth allowed, in 10^6 bytes (30)")
    parser.add_argument("--detector", default="tridos-nano")
    parser.add_argument("--weights", default="", help="a name or a file (default: the detector's own)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--progress", choices=("auto", "bar", "plain", "off"), default="auto")
    return parser


def resident() -> float:
    """Memory of this process in 10^6 bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_video(options: argparse.Namespace, path: Path) -> str:
    """A synthetic video; made in another process, whose leavings would hide what the run takes."""
    size = {"--frames": options.frames, "--width": options.width, "--height": options.height}
    settings = [str(part) for setting in size.items() for part in setting]
    command = [sys.executable, "-m", "datasets.synthetic", str(path), *settings]
    subprocess.run(command, check=True, cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL)
    return str(path)


def measure(options: argparse.Namespace, folder: Path) -> list[tuple[int, float]]:
    """(frames done, memory) every hundred frames."""
    readings = []

    class Measured(single.Outcome):
        """Reads the memory as results come in."""

        def add(self, result: Result) -> None:
            """Take in a frame that was written."""
            super().add(result)
            if self.written % EVERY == 0:
                readings.append((self.written, resident()))

    detector = {"name": options.detector, "weights": options.weights, "device": options.device}
    table = {"detector": detector, "output": {"folder": str(folder / "out")}}
    config = build(RunConfig, table)
    single.load_detector(config.detector)  # tells of missing weights before the video is made
    video = write_video(options, folder / "long.mp4")
    single.Outcome = Measured
    outcome = single.run(video, config, progress=options.progress)
    if outcome.failure:
        raise outcome.failure
    return readings


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
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
