"""Finds thresholds for given false-alarm rates and tests scores as probabilities of a hit.

    python -m pipeline.calibration --annotations gt.json --detections found.json --false-alarms 0.05

The slope and the offset in the file of `--output` turn scores into chances of a hit:
`python -m detectors.publish RUN NAME --calibration FILE` stores them with weights. All categories count as
one. `--stride` must be that of `detectors.evaluate`, which wrote the detections.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline.evaluation.analysis.calibration_report import PLOT, calibration_tables, plot_reliability
from pipeline.evaluation.analysis.inputs import add_input_options, build_evaluator
from pipeline.evaluation.analysis.score_calibration import calibrate
from pipeline.structures.coco_tables import load_coco
from pipeline.system import cli
from pipeline.system.cli import RATE, SCORE
from pipeline.system.errors import UsageError
from pipeline.system.packages import require_package

STRIDE = cli.int_at_least(1)
MIN_SCORE = 0.05
"""Default of `--least`: the lowest score that a run writes; thousands of detections lie below."""


def parser() -> cli.Parser:
    """Returns the parser of the command line."""
    parser = cli.Parser(prog="python -m pipeline.calibration", description=__doc__.splitlines()[0])
    add_input_options(parser)
    parser.add_argument(
        "--also",
        nargs=3,
        action="append",
        default=[],
        metavar=("ANNOTATIONS", "DETECTIONS", "STRIDE"),
        help="a further dataset that counts, too; may be repeated",
    )
    parser.add_argument(
        "--false-alarms",
        type=RATE,
        nargs="+",
        default=[0.01, 0.05, 0.1],
        metavar="RATE",
        help="find thresholds for these false alarms per frame (default: 0.01 0.05 0.1)",
    )
    parser.add_argument(
        "--least",
        type=SCORE,
        default=MIN_SCORE,
        help=f"lowest score that the calibration takes (default: {MIN_SCORE})",
    )
    parser.add_argument("--plots", type=Path, metavar="DIR", help=f"draw {PLOT}")
    return parser


def work(options: argparse.Namespace) -> None:
    """Computes, prints and writes the numbers. Raises MoteError."""
    cli.require_writable(options.output, folder=options.plots)
    if options.plots:
        require_package("matplotlib", "--plots")
    evaluators = [build_evaluator(inputs, load_coco(inputs.annotations)) for inputs in _inputs(options)]
    calibrations = calibrate(evaluators, options.false_alarms, min_score=options.least)
    print(calibration_tables(calibrations))
    if options.output:
        cli.write_json(options.output, {c.name: c.as_dict() for c in calibrations})
    if options.plots:
        print(f"\nplot: {plot_reliability(calibrations, options.plots / PLOT)}")


def _inputs(options: argparse.Namespace) -> Iterator[argparse.Namespace]:
    """Yields the options `annotations`, `detections` and `stride` of each dataset. Raises UsageError."""
    yield options
    for truth, detections, stride in options.also:
        try:
            number = STRIDE(stride)
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"--also {truth} {detections} {stride}: {error}") from error
        yield argparse.Namespace(annotations=Path(truth), detections=Path(detections), stride=number)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
