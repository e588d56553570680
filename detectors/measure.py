"""How good weights are on annotated videos.

python -m detectors.measure tridos-nano-drone-ir --root DIR --annotations annotations/val.json --stride 5
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import command
from pipeline.config import DetectorConfig

if TYPE_CHECKING:
    from torch import nn

    from datasets.clips import Sequence
    from datasets.records import VideoRecord
    from pipeline.evaluate import Scores

CONF = 0.01
"""Least score that is measured: what lies below adds less than a thousandth to the average precision."""


def measure(
    model: nn.Module,
    records: Iterable[VideoRecord],
    sequences: Iterable[Sequence],
    truth: dict,
    *,
    stride: int,
) -> Scores:
    """Class-agnostic scores on every `stride`-th frame of the sequences, whole frames, clip by clip.

    Frames that are not annotated are left out. The model is given back in the mode it came in.
    """
    import torch

    from pipeline.evaluate import evaluate

    training = model.training
    model.eval()
    detections, ids = [], []
    try:
        with torch.inference_mode():
            for record, sequence in zip(records, sequences, strict=True):
                for position in range(0, len(sequence), stride):
                    if position in record.image_ids:
                        ids.append(record.image_ids[position])
                        detections += _detect(model, sequence, position, image_id=ids[-1])
    finally:
        model.train(training)
    return evaluate(truth, detections, image_ids=ids, classes=False)


def _detect(model: nn.Module, sequence: Sequence, position: int, *, image_id: int) -> list[dict]:
    """COCO results of one frame."""
    from datasets.clips import clip_at
    from pipeline.boxes import to_xywh
    from pipeline.geometry import Geometry
    from pipeline.normalise import to_network_input
    from pipeline.suppress import decode

    geometry = Geometry.native(sequence.frames.shape[:0:-1])
    clip = clip_at(sequence, position, length=model.frames)
    device = next(model.parameters()).device
    pixels = to_network_input([geometry.apply(f) for f in clip.frames], device=device)
    boxes, scores, _ = decode(model(pixels.transpose(0, 1)[None]), conf=CONF, iou=DetectorConfig.iou)[0]
    rows = to_xywh(geometry.to_source(boxes.cpu().numpy()))
    return [
        {"image_id": image_id, "category_id": 1, "bbox": box, "score": score}
        for box, score in zip(rows.tolist(), scores.tolist(), strict=True)
    ]


def parser() -> command.Parser:
    """The command line."""
    parser = command.Parser(prog="python -m detectors.measure", description=__doc__.splitlines()[0])
    parser.add_argument("weights", help="a name of `run_pipeline.py --list`, or a file")
    parser.add_argument("--detector", default="tridos-nano", help="network of a weights file")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--annotations", default="annotations/val.json", help="COCO-video, below the root")
    parser.add_argument(
        "--stride", type=command.whole(1), default=5, metavar="N", help="measure each n-th frame (default: 5)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    return parser


def work(options: argparse.Namespace) -> None:
    """Measure and print. Raises MoteError."""
    # torch takes seconds to load: not for --help
    from datasets.clips import read_sequence
    from datasets.records import load_coco, video_records
    from detectors import weights
    from pipeline.device import pick_device

    started = time.monotonic()
    device = pick_device(options.device)
    ours = weights.ZOO_TABLE.get(options.weights)
    model, _, _ = weights.network(ours.detector if ours else options.detector, options.weights)
    truth = load_coco(options.root / options.annotations)
    records = video_records(truth)
    sequences = (read_sequence(record, options.root) for record in records)
    scores = measure(model.to(device), records, sequences, truth, stride=options.stride)
    print(scores.table())
    print(f"{'seconds':<15}{time.monotonic() - started:.0f}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
