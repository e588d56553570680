"""How good weights are on annotated videos.

python -m detectors.measure tridos-nano-drone-ir --root DIR --annotations annotations/val.json --stride 5
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

import detectors
from datasets.clips import Sequence, clip_at, read_sequence
from datasets.records import VideoRecord, load_coco, video_records
from detectors import weights
from pipeline.boxes import to_xywh
from pipeline.errors import MoteError
from pipeline.evaluate import Scores, evaluate
from pipeline.geometry import Geometry
from pipeline.normalise import to_network_input
from pipeline.suppress import decode

CONF = 0.01
"""Least score that is measured: what lies below adds less than a thousandth to the average precision."""


@torch.inference_mode()
def measure(
    model: nn.Module,
    records: Iterable[VideoRecord],
    sequences: Iterable[Sequence],
    truth: dict,
    *,
    stride: int,
) -> Scores:
    """Class-agnostic scores on every `stride`-th frame of the sequences, whole frames, clip by clip."""
    model.eval()
    device = next(model.parameters()).device
    detections, ids = [], []
    for record, sequence in zip(records, sequences, strict=True):
        geometry = Geometry.native((record.width, record.height))
        for position in range(0, len(sequence), stride):
            clip = clip_at(sequence, position, length=model.frames)
            pixels = to_network_input([geometry.apply(f) for f in clip.frames], device=device)
            boxes, scores, _ = decode(model(pixels.transpose(0, 1)[None]), conf=CONF, iou=0.5)[0]
            ids.append(record.image_ids[position])
            rows = to_xywh(geometry.to_source(boxes.cpu().numpy()))
            detections += [
                {"image_id": ids[-1], "category_id": 1, "bbox": box, "score": score}
                for box, score in zip(rows.tolist(), scores.tolist(), strict=True)
            ]
    model.train()
    return evaluate(truth, detections, image_ids=ids, classes=False)


def main(arguments: list[str] | None = None) -> int:
    """Entry of the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="detectors.measure", description=__doc__.splitlines()[0])
    parser.add_argument("weights", help="a name of `run_pipeline.py --list`, or a file")
    parser.add_argument("--detector", default="tridos-nano", help="network of a weights file")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--annotations", default="annotations/val.json", help="COCO-video, below the root")
    parser.add_argument("--stride", type=int, default=5, help="measure each n-th frame (default: 5)")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        path, entry = weights.locate(options.weights)
        built = dict(entry.options) if entry else weights.options_of(path)
        model = detectors.build(entry.detector if entry else options.detector, **built)
        weights.load(model, path)
        truth = load_coco(options.root / options.annotations)
        records = video_records(truth)
        sequences = (read_sequence(record, options.root) for record in records)
        scores = measure(model, records, sequences, truth, stride=options.stride)
    except MoteError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for name, value in scores.as_dict().items():
        print(f"{name:<15}{value:.4f}" if isinstance(value, float) else f"{name:<15}{value}")
    print(f"{'seconds':<15}{time.monotonic() - started:.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
