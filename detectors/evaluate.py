"""How good weights are on an annotated dataset.

python -m detectors.evaluate tridos-nano-drone-ir --root DIR --stride 5
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from detectors.evaluation.detection import ENLARGE, score_dataset
from pipeline.system import cli
from pipeline.system.cli import PROBABILITY, SCORE
from pipeline.system.errors import UsageError


def parser() -> cli.Parser:
    """The command line."""
    parser = cli.Parser(prog="python -m detectors.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("weights", help="a name of `run_pipeline.py --list`, or a file")
    parser.add_argument("--detector", default="tridos-nano", help="network of a weights file")
    parser.add_argument("--dataset", default="drone-ir", help="how it lies on disk (default: drone-ir)")
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--split", default="val", help="a split of the dataset (default: val)")
    parser.add_argument("--videos", nargs="+", metavar="NAME", help="measure these sequences (default: all)")
    parser.add_argument(
        "--stride", type=cli.whole(1), default=5, metavar="N", help="measure each n-th frame (default: 5)"
    )
    parser.add_argument(
        "--enlarge", type=ENLARGE, metavar="N", help="enlarge frames (default: as the weights learned)"
    )
    parser.add_argument("--by-class", action="store_true", help="score class by class, not all as one")
    parser.add_argument(
        "--conf", type=SCORE, default=0.4, help="threshold where one is asked for (default: 0.4)"
    )
    parser.add_argument(
        "--threshold", type=PROBABILITY, default=0.5, help="of segmenters: found is above (default: 0.5)"
    )
    parser.add_argument(
        "--flip-averaging", action="store_true", help="of segmenters: the mean of four mirrored views"
    )
    parser.add_argument("--workers", type=cli.whole(1), default=1, help="processes (default: 1)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="as of a run (default: fp32)"
    )
    parser.add_argument("--output", type=Path, help="write all numbers as JSON, too")
    parser.add_argument("--detections", type=Path, help="write what was found as COCO results, too")
    parser.add_argument(
        "--plots", type=Path, help="folder for curves: precision-recall and FROC, of segmenters ROC"
    )
    return parser


def work(options: argparse.Namespace) -> None:
    """Measure, write and print. Raises MoteError."""
    cli.require_writable(options.output, options.detections, folder=options.plots)
    # torch takes seconds to load: not for --help
    import torch

    from datasets.layouts import registry
    from detectors.backends.devices import pick_device, require_precision, thread_count
    from detectors.inference.streaming import optimise_for_inference
    from detectors.networks.segmenters.base import Segmenter
    from detectors.weights import restore, zoo
    from pipeline.evaluation.detection.tables import tables

    device = pick_device(options.device)
    require_precision(options.precision, device)
    ours = zoo.ZOO_TABLE.get(options.weights)
    model, path, _ = restore.network(ours.detector if ours else options.detector, options.weights)
    dataset = registry.load(options.dataset, options.root, options.split)
    if options.videos:
        dataset = dataset.only(options.videos)
    if isinstance(model, Segmenter):
        _segmenter(model.to(device), dataset, options, enlarge=options.enlarge or restore.enlargement(path))
        return
    torch.set_num_threads(thread_count(model))
    workers = options.workers if device.type == "cpu" else 1
    if options.by_class and model.num_classes != len(dataset.classes):
        raise UsageError(f"the network has {model.num_classes} classes, the dataset {len(dataset.classes)}")
    evaluator, rows = score_dataset(
        optimise_for_inference(model.to(device).eval(), options.precision),
        dataset,
        stride=options.stride,
        enlarge=options.enlarge or restore.enlargement(path),
        workers=workers,
        by_class=options.by_class,
    )
    report = evaluator.report(options.conf)
    print(tables(report))
    if options.detections:
        cli.write_json(options.detections, rows)
    if options.output:
        cli.write_json(options.output, report.as_dict())
    if options.plots:
        from pipeline.evaluation.detection.plots import plot

        print("\nplots: " + ", ".join(map(str, plot(report, options.plots))))


def _segmenter(model, dataset, options, *, enlarge) -> None:
    from detectors.evaluation.segmentation import report

    boxes = {"--by-class": options.by_class, "--detections": options.detections}
    boxes["--precision"] = options.precision != "fp32"
    if name := next((name for name, given in boxes.items() if given), None):
        raise UsageError(f"{name} is for networks that find boxes, {type(model).__name__} marks pixels")
    report(model, dataset, options, enlarge=enlarge)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
