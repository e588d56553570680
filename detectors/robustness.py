"""Evaluates weights on corrupted frames: noise, blur, low contrast, camera shake …

python -m detectors.robustness tridos-nano-drone-ir --root DIR --stride 50

Each window of frames is corrupted on its own. Boxes and distances are in pixels of the clean frame.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from detectors.evaluation.robustness import evaluate_robustness, robustness_table
from pipeline.system import cli

DESCRIPTION = "Evaluate weights on corrupted frames: noise, blur, low contrast, camera shake …"


def parser() -> cli.Parser:
    """Returns the parser of the command line."""
    from detectors.evaluation.detection import ENLARGE

    parser = cli.Parser(prog="python -m detectors.robustness", description=DESCRIPTION)
    add = parser.add_argument
    add("weights", help="a name of `run_pipeline.py --list`, or a file")
    add("--detector", help="network of a weights file (default: tridos-nano)")
    add("--dataset", default="drone-ir", help="layout of the dataset (default: drone-ir)")
    add("--root", type=Path, required=True, help="folder of the dataset")
    add("--split", default="val", help="split of the dataset (default: val)")
    add(
        "--stride",
        type=cli.int_at_least(1),
        default=50,
        metavar="N",
        help="evaluate every n-th annotated frame (default: 50)",
    )
    add(
        "--enlarge",
        type=ENLARGE,
        metavar="N",
        help="factor to enlarge frames by (default: the factor the weights were trained with)",
    )
    add("--only", nargs="+", default=[], metavar="NAME", help="corruptions, besides none (default: all)")
    add("--workers", type=cli.int_at_least(1), default=1, help="number of processes (default: 1)")
    add("--device", default="auto", help="auto, cpu, mps, cuda or cuda:N (default: auto)")
    add("--output", type=Path, metavar="JSON", help="also write all numbers as JSON")
    return parser


def work(options: argparse.Namespace) -> None:
    """Evaluates, prints the table and writes the file. Raises MoteError."""
    from datasets.augmentation.corruptions import CORRUPTIONS
    from datasets.layouts import registry
    from detectors.evaluation.detection import load_network
    from pipeline.system.errors import UsageError, unknown_name

    cli.require_writable(options.output)
    known = {corruption.name: corruption for corruption in CORRUPTIONS}
    for name in options.only:
        if name not in known:
            raise unknown_name("corruption", name, known)
    wanted = {CORRUPTIONS[0].name, *options.only} if options.only else known
    dataset = registry.load_dataset(options.dataset, options.root, options.split)
    model, enlarge, device = load_network(options)
    if options.workers > 1 and device.type != "cpu":
        raise UsageError(f"--workers {options.workers} is for a CPU, not for '{device}'; leave it out")
    rows = evaluate_robustness(
        model,
        dataset,
        [corruption for corruption in CORRUPTIONS if corruption.name in wanted],
        stride=options.stride,
        enlarge=enlarge,
        workers=options.workers,
    )
    print(robustness_table(rows))
    if options.output:
        cli.write_json(options.output, [asdict(row) for row in rows])


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
