"""What limits AP50: each kind of error is taken away from finished results, and what that gains is told.

    python -m pipeline.error_analysis --annotations gt.json --detections found.json

With the pictures (`--root`) the sizes of labels and of found boxes are compared with what stands out in them,
to tell whose sizes follow the targets. All categories count as one. `--stride` is that of
`detectors.evaluate`, which wrote the detections.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.evaluation.analysis.error_attribution import limits_of
from pipeline.evaluation.analysis.error_report import PLOT, extent_tables, extents, plot, tables
from pipeline.evaluation.analysis.inputs import add_inputs, evaluated
from pipeline.structures.annotations import load_coco
from pipeline.system import cli
from pipeline.system.cli import SCORE


def parser() -> cli.Parser:
    """The command line."""
    parser = cli.Parser(prog="python -m pipeline.error_analysis", description=__doc__.splitlines()[0])
    add_inputs(parser)
    parser.add_argument(
        "--conf", type=SCORE, default=0.4, help="score from which on a target is found (default: 0.4)"
    )
    parser.add_argument(
        "--root", type=Path, help="folder of the videos: compare sizes with the pictures, too"
    )
    parser.add_argument("--plots", type=Path, metavar="DIR", help=f"draw {PLOT}")
    return parser


def work(options: argparse.Namespace) -> None:
    """Compute, write and print. Raises MoteError."""
    cli.require_writable(options.output, folder=options.plots)
    table = load_coco(options.annotations)
    evaluator = evaluated(options, table)
    limits = limits_of(evaluator, options.conf)
    print(tables(limits))
    numbers = limits.as_dict()
    if options.root:
        sizes = extents(table, options.root, evaluator, options.conf)
        print(f"\n{extent_tables(sizes)}")
        numbers["extents"] = sizes.as_dict()
    if options.output:
        cli.write_json(options.output, numbers)
    if options.plots:
        print(f"\nplot: {plot(limits, options.plots / PLOT)}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
