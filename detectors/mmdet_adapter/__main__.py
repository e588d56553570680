"""Trains in mmengine's Runner, exports weights and compares metrics with mmdet.

python -m detectors.mmdet_adapter train configs/mmdet/tridos_drone_ir.py --root DIR
python -m detectors.mmdet_adapter export runs/mmdet/tridos_drone_ir/iter_40000.pth tridos.safetensors
python -m detectors.mmdet_adapter compare --annotations gt.json --detections det.json --tracks DIR
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.system import cli
from pipeline.system.errors import UsageError

PROGRAM = "python -m detectors.mmdet_adapter"


def train_parser() -> cli.Parser:
    """Returns the parser of `train`."""
    parser = cli.Parser(
        prog=f"{PROGRAM} train",
        description="Train by a configuration of mmengine. Configurations are Python programs that are "
        "executed when they are read: use only those that you trust.",
    )
    add = parser.add_argument
    add("config", type=Path, metavar="CONFIG", help="configuration, such as configs/mmdet/tridos_drone_ir.py")
    add("--root", type=Path, metavar="DIR", help="folder of the data (default: that of the configuration)")
    add(
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="folder for checkpoints and logs (default: runs/mmdet/NAME)",
    )
    add("--resume", action="store_true", help="resume from the last checkpoint in that folder")
    add("--set", action="append", default=[], metavar="A.B=VALUE", help="override one key; repeatable")
    return parser


def train_work(options: argparse.Namespace) -> None:
    """Trains and prints the folder. Raises MoteError."""
    from detectors.mmdet_adapter.training import train

    folder = train(
        options.config,
        root=options.root,
        work_dir=options.work_dir,
        resume=options.resume,
        settings=options.set,
    )
    print(f"checkpoints in {folder}")


def export_parser() -> cli.Parser:
    """Returns the parser of `export`."""
    parser = cli.Parser(
        prog=f"{PROGRAM} export",
        description="Convert a checkpoint of one of our networks to a weights file for --weights.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="PTH", help="checkpoint that mmengine wrote")
    parser.add_argument("output", type=Path, metavar="SAFETENSORS", help="file to write")
    return parser


def export_work(options: argparse.Namespace) -> None:
    """Converts the checkpoint. Raises MoteError."""
    from detectors.mmdet_adapter.checkpoints import export_weights

    if options.output.suffix != ".safetensors":
        raise UsageError(f"{options.output} does not end in .safetensors; choose another name")
    print(f"{export_weights(options.checkpoint, options.output)} tensors in {options.output}")


def compare_parser() -> cli.Parser:
    """Returns the parser of `compare`."""
    parser = cli.Parser(
        prog=f"{PROGRAM} compare",
        description="Evaluate the same files by our evaluators and by mmdet's CocoMetric and "
        "MOTChallengeMetric.",
    )
    add = parser.add_argument
    add(
        "--annotations",
        type=Path,
        required=True,
        metavar="JSON",
        help="COCO ground truth; COCO-video with --tracks",
    )
    add("--detections", type=Path, metavar="JSON", help="COCO results")
    add("--tracks", type=Path, metavar="DIR", help="folder of MOT files, NAME-OF-VIDEO.txt")
    add("--class-agnostic", action="store_true", help="treat all categories as one")
    add(
        "--stride",
        type=cli.int_at_least(1),
        default=1,
        metavar="N",
        help="evaluate detections on every n-th annotated frame, as `detectors.evaluate` does (default: 1)",
    )
    add("--output", type=Path, metavar="JSON", help="also write all numbers as JSON")
    return parser


def compare_work(options: argparse.Namespace) -> None:
    """Evaluates by both, prints the tables and writes the file. Raises MoteError."""
    from detectors.mmdet_adapter import comparison
    from pipeline.evaluation.detection.predictions import load_results
    from pipeline.structures.annotations import video_records
    from pipeline.structures.coco_tables import load_coco

    if not (options.detections or options.tracks):
        raise UsageError("nothing to compare: give --detections, --tracks or both")
    table, parts = load_coco(options.annotations), {}
    if options.detections:
        results = load_results(options.detections)
        parts["detections"] = comparison.compare_detections(
            table, results, stride=options.stride, class_agnostic=options.class_agnostic
        )
    if options.tracks:
        if not options.tracks.is_dir():
            raise UsageError(f"{options.tracks} is not a folder; give one with a MOT file for each video")
        files = {path.stem: path for path in sorted(options.tracks.glob("*.txt"))}
        parts["tracks"] = comparison.compare_tracks(video_records(table), files)
    print("\n\n".join(f"{name}\n{comparison.format_table(rows)}" for name, rows in parts.items()))
    if options.output:
        rows = {name: [row._asdict() for row in part] for name, part in parts.items()}
        cli.write_json(options.output, rows)


@dataclass(frozen=True)
class Subcommand:
    """A subcommand: its options and what it does with them."""

    parser: Callable[[], cli.Parser]
    work: Callable[[argparse.Namespace], None]


SUBCOMMANDS = {
    "train": Subcommand(train_parser, train_work),
    "export": Subcommand(export_parser, export_work),
    "compare": Subcommand(compare_parser, compare_work),
}


def parser() -> cli.Parser:
    """Returns the parser of the command without a subcommand."""
    parser = cli.Parser(
        prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=SUBCOMMANDS, help="subcommand; for its options: TASK --help")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in SUBCOMMANDS:
        subcommand = SUBCOMMANDS[arguments[0]]
        return cli.run(subcommand.parser(), subcommand.work, arguments[1:])
    return cli.run(parser(), lambda _: None, arguments)


if __name__ == "__main__":
    sys.exit(main())
