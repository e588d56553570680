"""Measures detection probability against signal-to-clutter ratio, in synthetic scenes.

python -m detectors.sensitivity tridos-nano-drone-ir --plots DIR

Each scene is rendered once for every ratio; only the brightness of its targets differs. The score threshold
is the same for all ratios: the lowest one that keeps the rate of false alarms over all frames.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from detectors.evaluation.sensitivity import (
    FALSE_ALARMS,
    PLOT_NAME,
    RATIOS,
    measure_sensitivity,
    plot_sensitivity,
    sensitivity_table,
)
from pipeline.system import cli
from pipeline.system.packages import require_package

DESCRIPTION = "Measure detection probability against signal-to-clutter ratio, in synthetic scenes."


def parser() -> cli.Parser:
    """Returns the parser of the command line."""
    from detectors.evaluation.detection import ENLARGE
    from pipeline.system.cli import RATE

    parser = cli.Parser(prog="python -m detectors.sensitivity", description=DESCRIPTION)
    add = parser.add_argument
    add("weights", help="a name of `run_pipeline.py --list`, or a file")
    add("--detector", help="network of a weights file (default: tridos-nano)")
    add(
        "--ratios",
        type=RATE,
        nargs="+",
        default=list(RATIOS),
        metavar="SCR",
        help=f"signal-to-clutter ratios (default: {' '.join(f'{ratio:g}' for ratio in RATIOS)})",
    )
    add(
        "--false-alarms",
        type=RATE,
        nargs="+",
        default=list(FALSE_ALARMS),
        metavar="RATE",
        help=f"false alarms per frame (default: {' '.join(f'{rate:g}' for rate in FALSE_ALARMS)})",
    )
    add("--scenes", type=cli.int_at_least(1), default=10, metavar="N", help="scenes per ratio (default: 10)")
    add("--frames", type=cli.int_at_least(5), default=30, metavar="N", help="frames per scene (default: 30)")
    add(
        "--enlarge",
        type=ENLARGE,
        metavar="N",
        help="factor to enlarge frames by (default: the factor the weights were trained with)",
    )
    add("--device", default="auto", help="auto, cpu, mps, cuda or cuda:N (default: auto)")
    add("--output", type=Path, metavar="JSON", help="also write all numbers as JSON")
    add("--plots", type=Path, metavar="DIR", help=f"folder for a plot, {PLOT_NAME}")
    return parser


def work(options: argparse.Namespace) -> None:
    """Measures, prints the table and writes the files. Raises MoteError."""
    from detectors.evaluation.detection import load_network

    cli.require_writable(options.output, folder=options.plots)
    if options.plots:
        require_package("matplotlib", "--plots")
    model, enlarge, _ = load_network(options)
    ratios, rates = options.ratios, options.false_alarms
    measured = measure_sensitivity(
        model, ratios, rates, count=options.scenes, frames=options.frames, enlarge=enlarge
    )
    print(sensitivity_table(measured))
    if options.output:
        cli.write_json(options.output, asdict(measured))
    if options.plots:
        name = Path(options.weights).stem
        print(f"\nplot: {plot_sensitivity(measured, options.plots / PLOT_NAME, title=name)}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
