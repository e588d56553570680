"""Thresholds for a rate of false alarms, and how far scores are from the chance of a hit.

    python -m pipeline.calibration --annotations gt.json --detections found.json --false-alarms 0.05

All categories count as one. `--stride` is that of `detectors.evaluate`, which wrote the detections.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.evaluation.analysis.calibration_report import PLOT, plot, tables
from pipeline.evaluation.analysis.inputs import add_inputs, evaluated
from pipeline.evaluation.analysis.score_calibration import calibrations
from pipeline.structures.annotations import load_coco
from pipeline.system import cli
from pipeline.system.cli import RATE, SCORE

MIN_RATE = 0.05
"""Least score that the pipeline writes; below it lie thousands of boxes that no one looks at."""


def parser() -> cli.Parser:
    """The command line."""
    parser = cli.Parser(prog="python -m pipeline.calibration", description=__doc__.splitlines()[0])
    add_inputs(parser)
    parser.add_argument(
        "--false-alarms",
        type=RATE,
        nargs="+",
        default=[0.01, 0.05, 0.1],
        metavar="RATE",
        help="find thresholds for so many per frame (default: 0.01 0.05 0.1)",
    )
    parser.add_argument(
        "--least",
        type=SCORE,
        default=MIN_RATE,
        help=f"hold scores from here on against chance (default: {MIN_RATE})",
    )
    parser.add_argument("--plots", type=Path, metavar="DIR", help=f"draw {PLOT}")
    return parser


def work(options: argparse.Namespace) -> None:
    """Compute, write and print. Raises MoteError."""
    cli.require_writable(options.output, folder=options.plots)
    evaluator = evaluated(options, load_coco(options.annotations))
    found = calibrations(evaluator, options.false_alarms, least=options.least)
    print(tables(found))
    if options.output:
        cli.write_json(options.output, {one.name: one.as_dict() for one in found})
    if options.plots:
        print(f"\nplot: {plot(found, options.plots / PLOT)}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
