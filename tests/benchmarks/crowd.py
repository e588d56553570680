"""Measures how long a tracker takes for a frame with many targets.

    python -m tests.benchmarks.crowd [--targets 20 200 2000] [--tracker centre]

Targets lie anywhere in the frame and move by about a pixel a frame; each is detected with probability 0.95.
The time is that of the thread, the median and the highest after the first frame, in which all tracks begin.
Beside it stands the time of `scipy.spatial.cKDTree` for the neighbours of all targets, as a measure of the
machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from scipy.spatial import cKDTree

import trackers
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.system import cli
from pipeline.system.cli import int_at_least
from tests.benchmarks.options import benchmark_parser, run_benchmark

NEIGHBOURHOOD = 10.0
"""Pixels within which the measure of the machine looks for neighbours."""


def parser() -> cli.Parser:
    """Returns the parser of the command."""
    parser = benchmark_parser("tests.benchmarks.crowd", __doc__)
    parser.add_argument("--targets", type=int_at_least(1), nargs="+", default=[20, 200, 2000])
    parser.add_argument("--tracker", default="centre")
    parser.add_argument("--size", type=int, nargs=2, default=[1280, 1024], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--frames", type=int_at_least(2), default=30)
    return parser


def crowd(count: int, width: int, height: int, frames: int) -> Iterator[tuple[Detections, Frame]]:
    """Yields the detections of targets and their frames."""
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 1, (count, 2)) * (width, height)
    speeds = rng.normal(0, 1, (count, 2))
    picture = np.zeros((height, width), np.uint8)
    for index in range(frames):
        centres = places + speeds * index + rng.normal(0, 0.3, places.shape)
        centres = centres[rng.random(count) < 0.95]
        boxes = np.concatenate([centres - 2, centres + 2], axis=1).astype(np.float32)
        scores = rng.uniform(0.5, 0.9, len(centres)).astype(np.float32)
        found = Detections(boxes, scores, np.zeros(len(centres), np.int64))
        yield found, Frame(picture, index, Fraction(index, 30), "crowd")


def milliseconds(name: str, scene: list[tuple[Detections, Frame]]) -> tuple[list[float], list[float]]:
    """Returns the times of the tracker and of the measure of the machine, for each frame but the first."""
    tracker, spent, measure = trackers.build(name), [], []
    for found, frame in scene:
        started = time.thread_time()
        tracker.update(found, frame)
        updated = time.thread_time()
        centres = found.boxes[:, :2]
        cKDTree(centres).query_ball_point(centres, NEIGHBOURHOOD)
        spent.append(1e3 * (updated - started))
        measure.append(1e3 * (time.thread_time() - updated))
    return spent[1:], measure[1:]


def measure(options: argparse.Namespace) -> str:
    """Returns a line for each number of targets."""
    lines = [f"{'targets':<9}{'ms':>8}{'highest':>9}{'tree ms':>9}"]
    for count in options.targets:
        spent, tree = milliseconds(options.tracker, list(crowd(count, *options.size, options.frames)))
        lines.append(f"{count:<9}{np.median(spent):>8.2f}{max(spent):>9.2f}{np.median(tree):>9.2f}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_benchmark(parser(), measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
