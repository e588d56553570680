"""How well probability maps of single frames fit masks, by every definition that is in use.

    python -m pipeline.mask_metrics --predictions results/nuaa-sirst/img --masks nuaa-sirst/masks

Maps are pictures (value over full scale), .npy, or .mat (its only array, else the one called T), and have the
names of the masks. Published numbers are to be compared with the line of the definition they were made by.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.evaluation.segmentation.scorer import _scored, write_scores
from pipeline.system import cli
from pipeline.system.cli import PROBABILITY
from pipeline.system.errors import UsageError

DESCRIPTION = __doc__.splitlines()[0]


def parser() -> cli.Parser:
    """The command line."""
    parser = cli.Parser(prog="python -m pipeline.mask_metrics", description=DESCRIPTION)
    add = parser.add_argument
    add("--predictions", type=Path, required=True, metavar="DIR", help="probability maps (PNG, .mat, .npy)")
    add("--masks", type=Path, required=True, metavar="DIR", help="masks, of the same names and sizes")
    add("--split", type=Path, metavar="LIST", help="names to be scored, one a line (default: all masks)")
    add(
        "--threshold",
        type=PROBABILITY,
        default=0.5,
        metavar="P",
        help="above it pixels are found, in definitions that are not published ones (default: 0.5)",
    )
    add("--logits", action="store_true", help="numbers in .mat and .npy are logits, not probabilities")
    add("--allow-missing", action="store_true", help="count maps that are missing as empty ones")
    add("--output", type=Path, metavar="JSON", help="write all numbers and those of each image, too")
    add("--plots", type=Path, metavar="DIR", help="draw ROC curves (PNG)")
    return parser


def work(options: argparse.Namespace) -> None:
    """Score, print and write. Raises MoteError."""
    from pipeline.evaluation.segmentation.definitions import definitions
    from pipeline.evaluation.segmentation.map_files import left_over, pairs, shortened
    from pipeline.evaluation.segmentation.scorer import MaskScorer
    from pipeline.evaluation.segmentation.tables import tables

    images = pairs(options.predictions, options.masks, split=options.split)
    missing = [image.name for image in images if image.prediction is None]
    if len(missing) == len(images):
        raise UsageError(f"{options.predictions} has no map of the name of any mask in {options.masks}")
    if missing and not options.allow_missing:
        remedy = "add them, or say --allow-missing to count them as empty"
        raise UsageError(f"{options.predictions} has no map of {shortened(missing)}; {remedy}")
    scorer = MaskScorer(definitions(options.threshold).values())
    rows = [_scored(scorer, image, logits=options.logits) for image in images]
    unused = 0 if options.split else left_over(options.predictions, images)
    notes = []
    if missing:
        notes.append(f"missing maps, counted as empty: {len(missing)}, the first of them {missing[0]}")
    if unused:
        notes.append(f"maps without a mask, left out: {unused}")
    print("\n\n".join([tables(scorer, options.threshold), *(f"note: {note}" for note in notes)]))
    if options.output:
        facts = {"threshold": options.threshold, "notes": notes, "per_image": rows}
        write_scores(options.output, scorer, facts)
    if options.plots:
        from pipeline.evaluation.segmentation.plots import plot

        print(f"\nplot: {plot(scorer, options.plots)}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
