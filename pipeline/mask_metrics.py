"""Scores probability maps of single frames against masks by every published definition in use.

    python -m pipeline.mask_metrics --predictions results/nuaa-sirst/img --masks nuaa-sirst/masks

Maps are images (value over full scale), .npy, or .mat (its only array, else the one called T), and have the
names of the masks. Compare published numbers with the line of the definition that they were computed by.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.evaluation.segmentation.definitions import definitions
from pipeline.evaluation.segmentation.map_files import abbreviate, count_unpaired, pair_files
from pipeline.evaluation.segmentation.plots import plot_roc
from pipeline.evaluation.segmentation.scorer import MaskScorer, score_files, write_scores
from pipeline.evaluation.segmentation.tables import mask_tables
from pipeline.system import cli
from pipeline.system.cli import PROBABILITY
from pipeline.system.errors import UsageError
from pipeline.system.packages import require_package


def parser() -> cli.Parser:
    """Returns the parser of the command line."""
    parser = cli.Parser(prog="python -m pipeline.mask_metrics", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--predictions", type=Path, required=True, metavar="DIR", help="probability maps (PNG, .mat, .npy)")
    add("--masks", type=Path, required=True, metavar="DIR", help="masks of the same names and sizes")
    add("--split", type=Path, metavar="LIST", help="names to score, one a line (default: all masks)")
    add(
        "--threshold",
        type=PROBABILITY,
        default=0.5,
        metavar="P",
        help="pixels above it are predicted, in definitions that are not published ones (default: 0.5)",
    )
    add("--logits", action="store_true", help="numbers in .mat and .npy are logits, not probabilities")
    add("--allow-missing", action="store_true", help="count missing maps as empty")
    add("--output", type=Path, metavar="JSON", help="also write all numbers and those of each image")
    add("--plots", type=Path, metavar="DIR", help="draw ROC curves (PNG)")
    return parser


def work(options: argparse.Namespace) -> None:
    """Computes, prints and writes the numbers. Raises MoteError."""
    if options.plots:
        require_package("matplotlib", "--plots")
    images = pair_files(options.predictions, options.masks, split=options.split)
    missing = [image.name for image in images if image.prediction is None]
    if len(missing) == len(images):
        raise UsageError(f"{options.predictions} has no map of the name of any mask in {options.masks}")
    if missing and not options.allow_missing:
        remedy = "add them, or use --allow-missing to count them as empty"
        raise UsageError(f"{options.predictions} has no map of {abbreviate(missing)}; {remedy}")
    suffixes = {image.prediction.suffix.lower() for image in images if image.prediction}
    if options.logits and not suffixes & {".mat", ".npy"}:
        raise UsageError("--logits is for .mat and .npy, and all maps are images; leave it out")
    scorer = MaskScorer(definitions(options.threshold).values())
    rows = [score_files(scorer, image, logits=options.logits) for image in images]
    unpaired = 0 if options.split else count_unpaired(options.predictions, images)
    notes = []
    if missing:
        notes.append(f"missing maps, counted as empty: {len(missing)}, the first of them {missing[0]}")
    if unpaired:
        notes.append(f"maps without a mask, left out: {unpaired}")
    if doubtful := [row for row in rows if "remark" in row]:
        first = f"{doubtful[0]['name']}: {doubtful[0]['remark']}"
        notes.append(f"masks whose background is in doubt: {len(doubtful)}, the first of them {first}")
    print("\n\n".join([mask_tables(scorer, options.threshold), *(f"note: {note}" for note in notes)]))
    if options.output:
        sections = {"threshold": options.threshold, "notes": notes, "per_image": rows}
        write_scores(options.output, scorer, sections)
    if options.plots:
        print(f"\nplot: {plot_roc(scorer, options.plots)}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
