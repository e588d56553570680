"""Measures the scene-cut detector: cuts within clips, joints of clips that are found, and time per frame.

    python -m tests.benchmarks.scene_cuts --root DATA [--split val]

Cuts reported within clips have to be checked by eye. Each clip is then joined to every other one; clips of
one recording may show the same view, and then their joint is no cut.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from itertools import permutations
from pathlib import Path

import numpy as np

from datasets.layouts import registry
from pipeline.sources.opening import open_source
from pipeline.stages.scene_cuts import SceneCutDetector
from pipeline.system import cli
from tests.benchmarks.options import benchmark_parser

JOINED = 10
"""Frames of each clip in a joint."""


def parser() -> cli.Parser:
    """Returns the parser of the command."""
    parser = benchmark_parser("tests.benchmarks.scene_cuts", __doc__)
    parser.add_argument("--dataset", default="drone-ir", help="layout of the data set (default: drone-ir)")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--split", default="val", help="split of the data set (default: val)")
    return parser


def cuts(pictures: Iterable[np.ndarray]) -> tuple[list[int], list[float]]:
    """Returns the indices of pictures (H, W) before which a cut is found, and the seconds of each picture."""
    finder, found, seconds = SceneCutDetector(), [], []
    for index, picture in enumerate(pictures):
        started = time.perf_counter()
        if finder(picture):
            found.append(index)
        seconds.append(time.perf_counter() - started)
    return found, seconds


def work(options: argparse.Namespace) -> None:
    """Searches each clip and each joint of two clips and prints the cuts."""
    dataset = registry.load_dataset(options.dataset, options.root, options.split)
    beginnings, seconds, total = {}, [], 0
    for record in dataset.records:
        beginnings[record.name] = beginning = []
        with open_source(dataset.root / record.file_name) as source:
            found, spent = cuts(_kept(source, beginning))
        total += len(found)
        seconds += spent
        if found:
            print(f"{record.name:<24}{', '.join(map(str, found))}")
    print(f"{total} cuts in {len(seconds)} frames of {len(beginnings)} clips")
    print(f"{1e6 * np.median(seconds):.0f} µs a frame")
    pairs = list(permutations(beginnings.values(), 2))
    found = [cuts([*first, *second])[0] for first, second in pairs]
    hits = sum(len(first) in places for (first, _), places in zip(pairs, found, strict=True))
    print(f"{hits} of {len(pairs)} joints found, {sum(map(len, found)) - hits} cuts elsewhere")


def _kept(source, beginning: list[np.ndarray]) -> Iterable[np.ndarray]:
    """Yields the pictures of a source and stores the first ones in `beginning`."""
    for frame in source:
        if len(beginning) < JOINED:
            beginning.append(frame.image)
        yield frame.image


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
