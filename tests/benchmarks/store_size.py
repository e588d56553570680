"""Measures the size of frames in a frame store against their uncompressed size.

    python -m tests.benchmarks.store_size --root DATA [--videos 8]

Clips spread evenly over the split are decoded into a store in a temporary folder.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from datasets.layouts import registry
from datasets.sequences.clips import read_sequences
from datasets.sequences.frame_store import FrameStore
from pipeline.system import cli
from tests.benchmarks.options import benchmark_parser


def parser() -> cli.Parser:
    """Returns the parser of the command."""
    parser = benchmark_parser("tests.benchmarks.store_size", __doc__)
    parser.add_argument("--dataset", default="drone-ir", help="layout of the data set (default: drone-ir)")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--split", default="train", help="split of the data set (default: train)")
    parser.add_argument("--videos", type=cli.int_at_least(1), default=8, help="number of clips (default: 8)")
    return parser


def work(options: argparse.Namespace) -> None:
    """Stores the clips and prints uncompressed bytes, stored bytes and their ratio, per clip and in total."""
    dataset = registry.load_dataset(options.dataset, options.root, options.split)
    count = min(options.videos, len(dataset.records))
    records = [dataset.records[place * len(dataset.records) // count] for place in range(count)]
    whole_plain = whole_stored = 0
    print(f"{'clip':<24}{'frames':>8}{'plain':>14}{'stored':>14}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        store = FrameStore(folder)
        for record, sequence in zip(
            records, read_sequences(records, dataset.root, store=store, mode="off"), strict=True
        ):
            frames = sequence.frames
            plain = len(frames) * frames.shape[1] * frames.shape[2] * frames.dtype.itemsize
            stored = store.size_bytes() - whole_stored
            whole_plain, whole_stored = whole_plain + plain, whole_stored + stored
            print(f"{record.name:<24}{len(frames):>8}{plain:>14,}{stored:>14,}{stored / plain:>8.1%}")
    frames = sum(map(len, records))
    ratio = whole_stored / whole_plain
    print(f"{'together':<24}{frames:>8}{whole_plain:>14,}{whole_stored:>14,}{ratio:>8.1%}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
