"""How dim a target may be: detection probability against signal-to-clutter ratio, in synthetic scenes.

python -m detectors.sensitivity tridos-nano-drone-ir --plots DIR

Each scene is drawn once for every ratio; all that differs is how bright its targets are. The threshold is the
same for all ratios: the lowest score with no more than the wanted false alarms in all frames together.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from detectors.evaluation.sensitivity import FALSE_ALARMS, PLOT, RATIOS, plot, sensitivity, table
from pipeline.system import cli


def parser() -> cli.Parser:
    """The command line."""
    from detectors.evaluation.detection import ENLARGE
    from pipeline.system.cli import RATE

    parser = cli.Parser(prog="python -m detectors.sensitivity", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("weights", help="a name of `run_pipeline.py --list`, or a file")
    add("--detector", default="tridos-nano", help="network of a weights file")
    add("--ratios", type=RATE, nargs="+", default=list(RATIOS), metavar="SCR", help="signal over clutter")
    add("--false-alarms", type=RATE, nargs="+", default=list(FALSE_ALARMS), metavar="RATE", help="per frame")
    add("--scenes", type=cli.whole(1), default=10, metavar="N", help="of each ratio (default: 10)")
    add("--frames", type=cli.whole(5), default=30, metavar="N", help="of each scene (default: 30)")
    add("--enlarge", type=ENLARGE, metavar="N", help="enlarge frames (default: as the weights learned)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add("--output", type=Path, metavar="JSON", help="write all numbers as JSON, too")
    add("--plots", type=Path, metavar="DIR", help=f"draw {PLOT}")
    return parser


def work(options: argparse.Namespace) -> None:
    """Measure, write and print. Raises MoteError."""
    from detectors.evaluation.robustness import network

    cli.require_writable(options.output, folder=options.plots)
    model, enlarge, _ = network(options)
    ratios, rates = options.ratios, options.false_alarms
    measured = sensitivity(model, ratios, rates, count=options.scenes, frames=options.frames, enlarge=enlarge)
    print(table(measured))
    if options.output:
        cli.write_json(options.output, asdict(measured))
    if options.plots:
        name = Path(options.weights).stem
        print(f"\nplot: {plot(measured, options.plots / PLOT, title=name)}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
