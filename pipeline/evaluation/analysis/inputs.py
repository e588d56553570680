"""Command-line options and inputs that the analysis commands share."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Hashable
from pathlib import Path

from pipeline.evaluation.detection.evaluator import Evaluator
from pipeline.evaluation.detection.predictions import load_results
from pipeline.structures.annotations import video_records
from pipeline.system import cli

log = logging.getLogger(__name__)


def add_input_options(parser: cli.Parser) -> None:
    """Adds the options for annotations, detections, evaluated frames and the JSON output."""
    parser.add_argument("--annotations", type=Path, required=True, metavar="JSON", help="COCO ground truth")
    parser.add_argument("--detections", type=Path, required=True, metavar="JSON", help="COCO results")
    parser.add_argument(
        "--stride",
        type=cli.int_at_least(1),
        default=1,
        metavar="N",
        help="the detections cover every n-th frame only (default: 1)",
    )
    parser.add_argument("--output", type=Path, metavar="JSON", help="also write all numbers as JSON")


def build_evaluator(options: argparse.Namespace, coco: dict) -> Evaluator:
    """Returns an evaluator with the detections of `--detections`, all categories treated as one.

    `coco` is the content of `--annotations`. Raises UsageError if either cannot be used.
    """
    image_ids = strided_image_ids(coco, options.stride) if options.stride > 1 else None
    evaluator = Evaluator(coco, image_ids=image_ids, classes=False)
    evaluator.add_results(load_results(options.detections))
    if evaluator.without_results:
        log.warning(
            "frames without any result: %d of %d; they count as frames in which nothing was found",
            evaluator.without_results,
            evaluator.frames,
        )
    return evaluator


def strided_image_ids(coco: dict, stride: int) -> list[Hashable]:
    """Returns the image ids of every `stride`-th annotated frame of each video of a COCO-video dictionary."""
    records = video_records(coco)
    return [record.image_ids[frame] for record in records for frame in sorted(record.image_ids)[::stride]]
