"""Converts a dataset between COCO-video, MOT folders and mask folders.

    python -m datasets.convert mot DATA --split train --to coco-video --output train.json

What the format cannot hold is reported on standard error. The conventions of each format are described in
`datasets.layouts.conversion`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.system import cli


def parser() -> cli.Parser:
    """Returns the parser of the command line."""
    from datasets.layouts.conversion import OUTPUT_FORMATS
    from datasets.layouts.registry import LAYOUTS

    parser = cli.Parser(prog="python -m datasets.convert", description=__doc__.splitlines()[0])
    parser.add_argument("source", metavar="SOURCE", help=f"layout of the dataset: {', '.join(LAYOUTS)}")
    parser.add_argument("root", metavar="ROOT", type=Path, help="folder of the dataset")
    parser.add_argument("--split", required=True, metavar="S", help="a name, or a path below the root")
    parser.add_argument("--to", required=True, choices=OUTPUT_FORMATS, help="format to write")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="PATH", help="a JSON file, or a folder; must not exist"
    )
    return parser


def work(options: argparse.Namespace) -> None:
    """Converts the dataset and prints a summary. Raises MoteError if that fails."""
    from datasets.layouts.conversion import convert, split_name
    from datasets.layouts.registry import load_dataset

    dataset = load_dataset(options.source, options.root, options.split)
    for note in convert(dataset, options.to, options.output):
        print(f"note: {note}", file=sys.stderr)
    for kind, where in dataset.findings:
        print(f"note: {kind}: {where}", file=sys.stderr)
    output = options.output
    counts = f"{len(dataset.records)} sequences, {dataset.frame_count} frames, {dataset.box_count} boxes"
    print(f"{output}: {counts}")
    result = {
        "coco-video": f"coco-video {output.parent} --split {output.name}",
        "mot": f"mot {output} --split .",
        "masks": f"masks {output} --split splits/{split_name(dataset)}.txt",
    }
    print(f"verify it: python -m datasets.check {result[options.to]}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command with `arguments` (default: those of the process); returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
