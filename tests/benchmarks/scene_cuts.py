"""Which cuts are found in clips, how many of the joints between them, and how long it takes.

    python -m tests.benchmarks.scene_cuts --root DATA [--split val]

Whether those in the clips are cuts, only a look at them can tell. Each clip is then joined to each other one;
where both show the same view, as clips of one recording do, there is no cut to be found.
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
"""Frames of each of two clips that are joined."""


def parser() -> cli.Parser:
    """The command line."""
    parser = benchmark_parser("tests.benchmarks.scene_cuts", __doc__)
    parser.add_argument("--dataset", default="drone-ir", help="how it lies on disk (default: drone-ir)")
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--split", default="val", help="a split of the dataset (default: val)")
    return parser


def cuts(pictures: Iterable[np.ndarray]) -> tuple[list[int], list[float]]:
    """Before which of the pictures a cut is found, and the seconds that each took."""
    finder, found, seconds = SceneCutDetector(), [], []
    for index, picture in enumerate(pictures):
        started = time.perf_counter()
        if finder(picture):
            found.append(index)
        seconds.append(time.perf_counter() - started)
    return found, seconds


def work(options: argparse.Namespace) -> None:
    """Look through the clips one by one, then through all pairs, and print what is found."""
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
    """The pictures of a source; the first ones are kept."""
    for frame in source:
        if len(beginning) < JOINED:
            beginning.append(frame.image)
        yield frame.image


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
