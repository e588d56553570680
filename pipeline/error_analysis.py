"""Attributes the loss of AP50 of finished results to kinds of errors.

    python -m pipeline.error_analysis --annotations gt.json --detections found.json

With the images (`--root`), the sizes of annotated and predicted boxes are compared with the visible sizes of
the targets. All categories count as one. `--stride` must be that of `detectors.evaluate`, which wrote the
detections.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.evaluation.analysis.box_sizes import measure_box_sizes
from pipeline.evaluation.analysis.error_attribution import attribute_errors
from pipeline.evaluation.analysis.error_report import PLOT, error_tables, plot_errors, size_tables
from pipeline.evaluation.analysis.inputs import add_input_options, build_evaluator
from pipeline.structures.coco_tables import load_coco
from pipeline.system import cli
from pipeline.system.cli import SCORE
from pipeline.system.packages import require_package


def parser() -> cli.Parser:
    """Returns the parser of the command line."""
    parser = cli.Parser(prog="python -m pipeline.error_analysis", description=__doc__.splitlines()[0])
    add_input_options(parser)
    parser.add_argument(
        "--conf", type=SCORE, default=0.4, help="score from which detections are counted (default: 0.4)"
    )
    parser.add_argument(
        "--root", type=Path, help="folder of the videos: also compare box sizes with the images"
    )
    parser.add_argument("--plots", type=Path, metavar="DIR", help=f"draw {PLOT}")
    return parser


def work(options: argparse.Namespace) -> None:
    """Computes, prints and writes the numbers. Raises MoteError."""
    cli.require_writable(options.output, folder=options.plots)
    if options.plots:
        require_package("matplotlib", "--plots")
    coco = load_coco(options.annotations)
    evaluator = build_evaluator(options, coco)
    errors = attribute_errors(evaluator, options.conf)
    print(error_tables(errors))
    numbers = errors.as_dict()
    if options.root:
        sizes = measure_box_sizes(coco, options.root, evaluator, options.conf)
        print(f"\n{size_tables(sizes)}")
        numbers["extents"] = sizes.as_dict()
    if options.output:
        cli.write_json(options.output, numbers)
    if options.plots:
        print(f"\nplot: {plot_errors(errors, options.plots / PLOT)}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
