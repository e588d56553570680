"""Evaluates whether a segmenter beside the detector improves its detections.

    python -m tests.benchmarks.fusion --root DATA [--segmenter datransnet] [--stride 50]

The detections of each frame are evaluated unchanged, confirmed by the segmenter, and united with its
components, for several probability thresholds. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from datasets.layouts import registry
from datasets.sequences.clips import read_sequence
from detectors.evaluation import detection
from detectors.inference.components import extract_components
from detectors.inference.probability_maps import ProbabilityMaps
from detectors.weights import restore, zoo
from pipeline.config.schema import ComponentsConfig, SegmentationConfig
from pipeline.evaluation.detection.evaluator import Evaluator
from pipeline.evaluation.detection.matching import CENTRE_5
from pipeline.stages.fusion import add_segments, confirm_detections
from pipeline.system import cli
from pipeline.system.progress import Progress
from tests.benchmarks.options import benchmark_parser

CONF = 0.4
"""Score threshold of precision and recall; that of drawing."""


def parser() -> cli.Parser:
    """Returns the parser of the command."""
    parser = benchmark_parser("tests.benchmarks.fusion", __doc__)
    parser.add_argument("--dataset", default="drone-ir")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--weights", default="tridos-nano-drone-ir")
    parser.add_argument("--segmenter", default="datransnet")
    parser.add_argument("--segmenter-weights", help="(default: the shipped ones)")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.5, 0.1], metavar="P")
    parser.add_argument("--stride", type=int, default=50, help="evaluate every n-th frame (default: 50)")
    return parser


def fused(detections, found, way: str, threshold: float):
    """Fuses detections with the components of a probability map by the method `way`."""
    if way == "none":
        return detections
    segments = [extract_components(found, replace(ComponentsConfig(), threshold=threshold))]
    margin = SegmentationConfig().margin
    if way == "confirm":
        return confirm_detections(detections, segments, margin=margin)
    return add_segments(detections, segments, margin=margin, conf=detection.MIN_SCORE)


def evaluators(options: argparse.Namespace) -> dict[tuple[str, float], Evaluator]:
    """Returns an evaluator of all frames for each (method, threshold)."""
    torch.set_num_threads(1)
    detector, path, _ = restore.restore_network("tridos-nano", options.weights)
    chosen = zoo.weights_or_default(options.segmenter, options.segmenter_weights)
    maps = ProbabilityMaps(restore.restore_network(options.segmenter, chosen)[0], device="cpu")
    dataset = registry.load_dataset(options.dataset, options.root, options.split)
    ways = [("none", 0.0), *((way, t) for way in ("confirm", "union") for t in options.thresholds)]
    measured = {way: Evaluator(dataset.to_coco(), classes=False) for way in ways}
    enlarge = restore.trained_enlargement(path)
    with Progress(len(dataset.records)) as progress:
        for record in dataset.records:
            sequence, positions = (
                read_sequence(record, dataset.root),
                detection.annotated_positions(record, options.stride),
            )
            for position, detections in detection.detect_frames(
                detector, sequence, positions, enlarge=enlarge
            ):
                found = maps(sequence.frames[position])
                for (way, threshold), evaluator in measured.items():
                    evaluator.add(record.image_ids[position], fused(detections, found, way, threshold))
            progress.advance()
    return measured


def table(measured: dict[tuple[str, float], Evaluator]) -> str:
    """Formats a row per method: matches by IoU 0.5, and by centres within 5 pixels."""
    lines = [
        "| `--fuse` | marked above | AP50 | best F1 | centre AP | best centre F1 | precision | recall |",
        "|" + "---|" * 8,
    ]
    for (way, threshold), evaluator in measured.items():
        report = evaluator.report(CONF)
        centre = report.criteria[CENTRE_5.name]
        numbers = (report.scores.ap50, report.scores.best_f1, centre.ap, centre.best_f1)
        numbers += (centre.at_threshold.precision, centre.at_threshold.recall)
        marked = "" if way == "none" else f"{threshold:g}"
        lines.append(f"| {way} | {marked} | " + " | ".join(f"{number:.3f}" for number in numbers) + " |")
    lines.append(f"\nPrecision and recall: centres within 5 pixels, at score {CONF:g}.")
    return "\n".join(lines)


def work(options: argparse.Namespace) -> None:
    """Evaluates and prints the table. Raises MoteError."""
    print(table(evaluators(options)))


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
