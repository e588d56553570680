"""Evaluates weights on an annotated dataset.

python -m detectors.evaluate tridos-nano-drone-ir --root DIR --stride 5
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from detectors.evaluation.detection import ENLARGE, score_dataset
from pipeline.system import cli
from pipeline.system.cli import PROBABILITY, SCORE
from pipeline.system.errors import UsageError
from pipeline.system.packages import require_package

if TYPE_CHECKING:
    from datasets.layouts.registry import Dataset
    from detectors.networks.segmenters.base import Segmenter

DESCRIPTION = "Evaluate weights on an annotated dataset."
MARGIN = cli.float_in_range(-32, 32, "pixels from -32 to 32")


def parser() -> cli.Parser:
    """Returns the parser of the command line."""
    parser = cli.Parser(prog="python -m detectors.evaluate", description=DESCRIPTION)
    add = parser.add_argument
    add("weights", help="a name of `run_pipeline.py --list`, or a file")
    add("--detector", help="network of a weights file (default: tridos-nano)")
    add("--dataset", default="drone-ir", help="layout of the dataset (default: drone-ir)")
    add("--root", type=Path, required=True, help="folder of the dataset")
    add("--split", default="val", help="split of the dataset (default: val)")
    add("--videos", nargs="+", metavar="NAME", help="evaluate on these sequences (default: all)")
    add(
        "--stride",
        type=cli.int_at_least(1),
        default=5,
        metavar="N",
        help="evaluate every n-th annotated frame (default: 5)",
    )
    add(
        "--enlarge",
        type=ENLARGE,
        metavar="N",
        help="factor to enlarge frames by (default: the factor the weights were trained with)",
    )
    add(
        "--margin",
        type=MARGIN,
        default=0.0,
        metavar="PX",
        help="pixels added to each side of a predicted box, for labels that are looser than those of the "
        "training; negative for tighter ones (default: 0)",
    )
    add("--by-class", action="store_true", help="score each class separately, instead of all as one")
    add("--conf", type=SCORE, help="score threshold of threshold-based metrics (default: 0.4)")
    add(
        "--threshold",
        type=PROBABILITY,
        help="segmenters: probability above which a pixel is a target (default: 0.5)",
    )
    add("--flip-averaging", action="store_true", help="segmenters: average over four mirrored views")
    add("--workers", type=cli.int_at_least(1), default=1, help="number of processes (default: 1)")
    add("--device", default="auto", help="auto, cpu, mps, cuda or cuda:N (default: auto)")
    add(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        default="fp32",
        help="number format of the network (default: fp32)",
    )
    add("--output", type=Path, help="also write all numbers as JSON")
    add("--detections", type=Path, help="also write the detections as COCO results")
    add("--plots", type=Path, help="folder for plots: precision-recall and FROC curves, segmenters: ROC")
    return parser


def work(options: argparse.Namespace) -> None:
    """Evaluates, prints the tables and writes the files. Raises MoteError."""
    cli.require_writable(options.output, options.detections, folder=options.plots)
    if options.plots:
        require_package("matplotlib", "--plots")
    # torch takes seconds to load: not for --help
    import torch

    from datasets.layouts import registry
    from detectors.backends.devices import pick_device, require_precision, thread_count
    from detectors.inference.streaming import optimise_for_inference
    from detectors.networks.segmenters.base import Segmenter
    from detectors.weights import restore, zoo
    from pipeline.evaluation.detection.tables import report_tables

    device = pick_device(options.device)
    require_precision(options.precision, device)
    if options.workers > 1 and device.type != "cpu":
        raise UsageError(f"--workers {options.workers} is for a CPU, not for '{device}'; leave it out")
    network = zoo.network_of(options.weights, options.detector)
    model, path, _ = restore.restore_network(network, options.weights)
    dataset = registry.load_dataset(options.dataset, options.root, options.split)
    if options.videos:
        dataset = dataset.subset(options.videos)
    if isinstance(model, Segmenter):
        enlarge = options.enlarge or restore.trained_enlargement(path)
        _evaluate_segmenter(model.to(device), dataset, options, enlarge=enlarge)
        return
    torch.set_num_threads(thread_count(model))
    for_masks = {"--threshold": options.threshold is not None, "--flip-averaging": options.flip_averaging}
    if name := next((name for name, given in for_masks.items() if given), None):
        raise UsageError(f"{name} is for segmenters, '{options.weights}' predicts boxes; leave it out")
    if options.by_class and model.num_classes != len(dataset.classes):
        raise UsageError(f"the network has {model.num_classes} classes, the dataset {len(dataset.classes)}")
    evaluator, rows = score_dataset(
        optimise_for_inference(model.to(device).eval(), options.precision),
        dataset,
        stride=options.stride,
        enlarge=options.enlarge or restore.trained_enlargement(path),
        workers=options.workers,
        by_class=options.by_class,
        margin=options.margin,
    )
    report = evaluator.report(0.4 if options.conf is None else options.conf)
    print(report_tables(report))
    if options.detections:
        cli.write_json(options.detections, rows)
    if options.output:
        cli.write_json(options.output, report.as_dict())
    if options.plots:
        from pipeline.evaluation.detection.plots import plot_report

        print("\nplots: " + ", ".join(map(str, plot_report(report, options.plots))))


def _evaluate_segmenter(
    model: Segmenter, dataset: Dataset, options: argparse.Namespace, *, enlarge: float
) -> None:
    from detectors.evaluation.segmentation import report_masks

    for_boxes = {"--by-class": options.by_class, "--detections": options.detections}
    for_boxes["--precision"] = options.precision != "fp32"
    for_boxes |= {"--margin": options.margin != 0, "--conf": options.conf is not None}
    for_boxes["--workers"] = options.workers > 1
    if name := next((name for name, given in for_boxes.items() if given), None):
        raise UsageError(f"{name} is for networks that predict boxes, {type(model).__name__} predicts masks")
    if options.threshold is None:
        options.threshold = 0.5
    report_masks(model, dataset, options, enlarge=enlarge)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
