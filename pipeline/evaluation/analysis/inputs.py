"""pipeline.evaluation.analysis.inputs."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.evaluation.detection.evaluator import Evaluator
from pipeline.evaluation.detection.predictions import load_results
from pipeline.structures.annotations import video_records
from pipeline.system import cli


def evaluated(options: argparse.Namespace, table: dict) -> Evaluator:
    """What `add_inputs` asks for, with the annotations read, all categories as one. Raises UsageError."""
    images = images_of_stride(table, options.stride) if options.stride > 1 else None
    evaluator = Evaluator(table, image_ids=images, classes=False)
    evaluator.add_results(load_results(options.detections))
    return evaluator


def images_of_stride(table: dict, stride: int) -> list:
    """Image ids of each `stride`-th annotated frame of every video of a COCO-video dictionary."""
    records = video_records(table)
    return [record.image_ids[frame] for record in records for frame in sorted(record.image_ids)[::stride]]


def add_inputs(parser: cli.Parser) -> None:
    """The options that say what was found and in which frames."""
    parser.add_argument("--annotations", type=Path, required=True, metavar="JSON", help="COCO ground truth")
    parser.add_argument("--detections", type=Path, required=True, metavar="JSON", help="COCO results")
    parser.add_argument(
        "--stride",
        type=cli.whole(1),
        default=1,
        metavar="N",
        help="only each n-th frame was measured (default: 1)",
    )
    parser.add_argument("--output", type=Path, metavar="JSON", help="write all numbers as JSON, too")
