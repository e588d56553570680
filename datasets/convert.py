"""Convert a dataset: MOT folders, COCO-video and mask folders into each other.

    python -m datasets.convert mot DATA --split train --to coco-video --output train.json

Conventions of pixels and frames, each kept by what reads and writes it:

- COCO-video: `bbox` is left, top, width, height in pixels from 0; `frame_id` counts from 0.
- MOT: left and top count from 1, width and height are the same; frames count from 1.
- masks: a pixel covers [x, x + 1); the box of a target ends after its last pixel, at maximum + 1. A box is
  drawn by filling the pixels that it touches.
- in memory: x1 y1 x2 y2 from 0, right and bottom exclusive; frames from 0.

So the box of the single pixel at the top left is `[0, 0, 1, 1]` in COCO, `1,1,1,1` in MOT, one pixel of a
mask, and 0 0 1 1 in memory. Decimals are kept, to a millionth of a pixel, by all but masks.

Frames are not copied: MOT and masks hold relative links to pictures and videos. COCO-video names files below
its own folder; to those elsewhere it has links, in a folder NAME_files beside it. What cannot be carried is
told on standard error.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from datasets.layouts.conversion import FORMATS, _box_count, _split_name, convert
from pipeline.system import cli


def parser() -> cli.Parser:
    """The command line."""
    from datasets.layouts.registry import LAYOUTS

    parser = cli.Parser(prog="python -m datasets.convert", description=__doc__.splitlines()[0])
    parser.add_argument("source", metavar="SOURCE", help=f"layout of the dataset: {', '.join(LAYOUTS)}")
    parser.add_argument("root", metavar="ROOT", type=Path, help="its folder")
    parser.add_argument("--split", required=True, metavar="S", help="a name, or a path below the root")
    parser.add_argument("--to", required=True, choices=FORMATS, help="what to write")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="PATH", help="a JSON file, or a folder; must not exist"
    )
    return parser


def work(options: argparse.Namespace) -> None:
    """Convert and tell. Raises MoteError."""
    from datasets.layouts import registry

    dataset = registry.load(options.source, options.root, options.split)
    for remark in convert(dataset, options.to, options.output):
        print(f"note: {remark}", file=sys.stderr)
    for kind, where in dataset.faults:
        print(f"note: {kind}: {where}", file=sys.stderr)
    output = options.output
    frames = sum(map(len, dataset.records))
    print(f"{output}: {len(dataset.records)} sequences, {frames} frames, {_box_count(dataset)} boxes")
    again = {
        "coco-video": f"coco-video {output.parent} --split {output.name}",
        "mot": f"mot {output} --split .",
        "masks": f"masks {output} --split splits/{_split_name(dataset)}.txt",
    }
    print(f"verify it: python -m datasets.check {again[options.to]}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
