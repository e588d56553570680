"""How good weights are on an annotated dataset.

python -m detectors.measure tridos-nano-drone-ir --root DIR --stride 5
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import command
from pipeline.config import DetectorConfig
from pipeline.errors import UsageError
from pipeline.mask_metrics import PROBABILITY
from pipeline.vid_map_coco import SCORE

if TYPE_CHECKING:
    from torch import nn

    from datasets.clips import Sequence
    from datasets.layouts import Dataset
    from datasets.records import VideoRecord
    from pipeline.evaluate import Evaluator, Scores
    from pipeline.frame import Detections

CONF = 0.01
"""Least score that is measured: what lies below adds less than a thousandth to the average precision."""
ENLARGE = command.checked(lambda text: DetectorConfig(enlarge=float(text)).enlarge)
"""The type of an option."""


def measure(
    model: nn.Module,
    records: Iterable[VideoRecord],
    sequences: Iterable[Sequence],
    truth: dict,
    *,
    stride: int,
) -> Scores:
    """Class-agnostic scores on every `stride`-th frame of the sequences, whole frames.

    Frames that are not annotated are left out. The model is given back in the mode it came in.
    """
    return evaluated(model, records, sequences, truth, stride=stride, classes=False).scores()


def evaluated(
    model: nn.Module,
    records: Iterable[VideoRecord],
    sequences: Iterable[Sequence],
    truth: dict,
    *,
    stride: int,
    classes: bool,
) -> Evaluator:
    """What `measure` takes its scores from.

    With `classes` a target is found under its own class alone: label n is the n-th category by its id.
    """
    from pipeline.evaluate import Evaluator

    evaluator = Evaluator(truth, classes=classes)
    for record, sequence in zip(records, sequences, strict=True):
        for position, found in detect(model, sequence, annotated(record, stride)):
            evaluator.add(record.image_ids[position], found)
    return evaluator


def annotated(record: VideoRecord, stride: int) -> list[int]:
    """Every `stride`-th of the annotated frames."""
    return sorted(record.image_ids)[::stride]


def detect(
    model: nn.Module, sequence: Sequence, positions: list[int], *, enlarge: float = 1.0
) -> Iterator[tuple[int, Detections]]:
    """Detections of score `CONF` or more in some frames, ascending, in pixels of the sequence.

    The network sees frames enlarged by `enlarge`. Where windows overlap the sequence is streamed, else each
    window is a clip: the same numbers either way.
    """
    import torch

    from pipeline.frame import Detections
    from pipeline.geometry import Geometry
    from pipeline.suppress import decode

    geometry = Geometry.native(sequence.frames.shape[:0:-1], scale=enlarge)
    dense = len(positions) * (model.frames - 1) > len(sequence)
    raw_outputs = _streamed if dense else _clip_by_clip
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for position, raw in raw_outputs(model, sequence, positions, geometry):
                boxes, scores, labels = decode(raw, conf=CONF, iou=DetectorConfig.iou)[0]
                boxes = geometry.to_source(boxes.cpu().numpy())
                yield position, Detections(boxes, scores.cpu().numpy(), labels.cpu().numpy())
    finally:
        model.train(training)


def _streamed(model, sequence, positions, geometry):
    stream, wanted = model.stream(), set(positions)
    for position in range(max(positions) + 1):
        raw = stream.push(_pixels(model, geometry, sequence.frames[position : position + 1]))
        if position in wanted:
            yield position, raw


def _clip_by_clip(model, sequence, positions, geometry):
    from datasets.clips import clip_at

    for position in positions:
        clip = clip_at(sequence, position, length=model.frames)
        yield position, model(_pixels(model, geometry, clip.frames).transpose(0, 1)[None])


def _pixels(model, geometry, frames):
    """(T, H, W) uint8 or uint16 → (T, 3, h, w) network input on the model's device."""
    import numpy as np

    from pipeline.normalise import to_network_input

    scale = int(np.iinfo(frames.dtype).max)
    pictures = [geometry.apply(frame, full_scale=scale) for frame in frames]
    return to_network_input(pictures, full_scale=scale, device=next(model.parameters()).device)


def score_dataset(
    model: nn.Module,
    dataset: Dataset,
    *,
    stride: int,
    enlarge: float = 1.0,
    workers: int = 1,
    by_class: bool = False,
) -> tuple[Evaluator, list[dict]]:
    """Every `stride`-th frame of a dataset, scored, and the COCO results.

    All categories count as one unless `by_class`: then label n is the n-th category by its id.
    With several `workers`, sequences are shared among so many processes of one thread each: as fast as the
    cores together, where a narrow network gains nothing from a second thread.
    """
    from pipeline.evaluate import Evaluator
    from pipeline.progress import Progress
    from pipeline.sinks import coco_results

    table = dataset.coco()
    ids = sorted(category["id"] for category in table["categories"])
    categories = dict(enumerate(ids)) if by_class else dict.fromkeys(range(model.num_classes), ids[0])
    evaluator, rows = Evaluator(table, classes=by_class), []
    tasks = [(model, r, dataset.root, annotated(r, stride), enlarge) for r in dataset.records]
    count = sum(len(positions) for *_, positions, _ in tasks)
    with Progress(count) as progress, closing(_of_sequences(tasks, workers)) as of_sequences:
        for record, found in of_sequences:
            for position, detections in found:
                image = record.image_ids[position]
                evaluator.add(image, detections)
                rows += coco_results(detections, image_id=image, category_id=categories)
                progress.advance()
    return evaluator, rows


def _of_sequences(tasks, workers):
    """Each record with its detections, in the order of the dataset."""
    if workers == 1:
        for task in tasks:
            yield task[1], _of_sequence(*task)
        return
    from detectors.workers import shared

    with closing(shared(_of_sequence_whole, tasks, workers=workers)) as found:
        yield from zip((task[1] for task in tasks), found, strict=True)


def _of_sequence(model, record, root, positions, enlarge) -> Iterator[tuple[int, Detections]]:
    from datasets.clips import read_sequence

    return detect(model, read_sequence(record, root), positions, enlarge=enlarge) if positions else iter(())


def _of_sequence_whole(task) -> list[tuple[int, Detections]]:
    """In a process that is one of several."""
    import torch

    torch.set_num_threads(1)
    return list(_of_sequence(*task))


def parser() -> command.Parser:
    """The command line."""
    parser = command.Parser(prog="python -m detectors.measure", description=__doc__.splitlines()[0])
    parser.add_argument("weights", help="a name of `run_pipeline.py --list`, or a file")
    parser.add_argument("--detector", default="tridos-nano", help="network of a weights file")
    parser.add_argument("--dataset", default="drone-ir", help="how it lies on disk (default: drone-ir)")
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--split", default="val", help="a split of the dataset (default: val)")
    parser.add_argument("--videos", nargs="+", metavar="NAME", help="measure these sequences (default: all)")
    parser.add_argument(
        "--stride", type=command.whole(1), default=5, metavar="N", help="measure each n-th frame (default: 5)"
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
    parser.add_argument("--workers", type=command.whole(1), default=1, help="processes (default: 1)")
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
    command.require_writable(options.output, options.detections, folder=options.plots)
    # torch takes seconds to load: not for --help
    import torch

    from datasets import layouts
    from detectors import weights
    from detectors.segmenter import Segmenter
    from pipeline.device import pick_device, require_precision, thread_count
    from pipeline.evaluation.tables import tables
    from pipeline.stages import fastest

    device = pick_device(options.device)
    require_precision(options.precision, device)
    ours = weights.ZOO_TABLE.get(options.weights)
    model, path, _ = weights.network(ours.detector if ours else options.detector, options.weights)
    dataset = layouts.load(options.dataset, options.root, options.split)
    if options.videos:
        dataset = dataset.only(options.videos)
    if isinstance(model, Segmenter):
        _segmenter(model.to(device), dataset, options, enlarge=options.enlarge or weights.enlargement(path))
        return
    torch.set_num_threads(thread_count(model))
    workers = options.workers if device.type == "cpu" else 1
    if options.by_class and model.num_classes != len(dataset.classes):
        raise UsageError(f"the network has {model.num_classes} classes, the dataset {len(dataset.classes)}")
    evaluator, rows = score_dataset(
        fastest(model.to(device).eval(), options.precision),
        dataset,
        stride=options.stride,
        enlarge=options.enlarge or weights.enlargement(path),
        workers=workers,
        by_class=options.by_class,
    )
    report = evaluator.report(options.conf)
    print(tables(report))
    if options.detections:
        command.write_json(options.detections, rows)
    if options.output:
        command.write_json(options.output, report.as_dict())
    if options.plots:
        from pipeline.evaluation.plots import plot

        print("\nplots: " + ", ".join(map(str, plot(report, options.plots))))


def _segmenter(model, dataset, options, *, enlarge) -> None:
    from detectors.mask_measure import report

    boxes = {"--by-class": options.by_class, "--detections": options.detections}
    boxes["--precision"] = options.precision != "fp32"
    if name := next((name for name, given in boxes.items() if given), None):
        raise UsageError(f"{name} is for networks that find boxes, {type(model).__name__} marks pixels")
    report(model, dataset, options, enlarge=enlarge)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
