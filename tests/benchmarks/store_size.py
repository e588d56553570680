"""How much room stored frames take, beside what they would take plain.

    python -m tests.benchmarks.store_size --root DATA [--videos 8]

Some clips, spread evenly over the split, are decoded into a store in a temporary folder.
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
    """The command line."""
    parser = benchmark_parser("tests.benchmarks.store_size", __doc__)
    parser.add_argument("--dataset", default="drone-ir", help="how it lies on disk (default: drone-ir)")
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--split", default="train", help="a split of the dataset (default: train)")
    parser.add_argument("--videos", type=cli.int_at_least(1), default=8, help="clips to store (default: 8)")
    return parser


def work(options: argparse.Namespace) -> None:
    """Store the clips and print plain bytes, stored bytes and their ratio, for each and for all."""
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
    """Run the benchmark; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
