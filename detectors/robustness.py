"""How well weights stand what goes wrong with video: noise, blur, low contrast, a shaking camera …

python -m detectors.robustness tridos-nano-drone-ir --root DIR --stride 50

Each window of frames is disturbed by itself. Boxes and distances are in pixels of the undisturbed picture.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from detectors.evaluation.robustness import network, robustness, table
from pipeline.system import cli


def parser() -> cli.Parser:
    """The command line."""
    from detectors.evaluation.detection import ENLARGE

    parser = cli.Parser(prog="python -m detectors.robustness", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("weights", help="a name of `run_pipeline.py --list`, or a file")
    add("--detector", default="tridos-nano", help="network of a weights file")
    add("--dataset", default="drone-ir", help="how it lies on disk (default: drone-ir)")
    add("--root", type=Path, required=True, help="folder of the dataset")
    add("--split", default="val", help="a split of the dataset (default: val)")
    add("--stride", type=cli.whole(1), default=50, metavar="N", help="each n-th frame (default: 50)")
    add("--enlarge", type=ENLARGE, metavar="N", help="enlarge frames (default: as the weights learned)")
    add("--only", nargs="+", default=[], metavar="NAME", help="these disturbances, beside the clean frames")
    add("--workers", type=cli.whole(1), default=1, help="processes (default: 1)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add("--output", type=Path, metavar="JSON", help="write all numbers as JSON, too")
    return parser


def work(options: argparse.Namespace) -> None:
    """Measure, write and print. Raises MoteError."""
    from datasets.augmentation.corruptions import DISTURBANCES
    from datasets.layouts import registry
    from pipeline.system.errors import unknown_name

    cli.require_writable(options.output)
    known = {disturbance.name: disturbance for disturbance in DISTURBANCES}
    for name in options.only:
        if name not in known:
            raise unknown_name("disturbance", name, known)
    wanted = {DISTURBANCES[0].name, *options.only} if options.only else known
    dataset = registry.load(options.dataset, options.root, options.split)
    model, enlarge, device = network(options)
    rows = robustness(
        model,
        dataset,
        [disturbance for disturbance in DISTURBANCES if disturbance.name in wanted],
        stride=options.stride,
        enlarge=enlarge,
        workers=options.workers if device.type == "cpu" else 1,
    )
    print(table(rows))
    if options.output:
        cli.write_json(options.output, [asdict(row) for row in rows])


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
