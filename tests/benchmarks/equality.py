"""Checks on real frames that the optimised form of a network finds the same as the plain one.

    python -m tests.benchmarks.equality --root DATA [--frames 500] [--precision bf16]

The plain form computes each window from its five frames in float32, as in `tests.benchmarks.speed`; the
optimised one is that of a run. Frames are the first ones of clips spread evenly over a split, equally many of
each clip. Detections of a frame are matched greedily by score with the nearest one of the other form that has
the same class and edges within half a pixel. The command fails if a detection is unmatched, or if boxes or
scores of a match differ by more than `--edge` and `--score`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from datasets.layouts import registry
from datasets.sequences.clips import read_sequence
from detectors.backends.devices import pick_device, require_precision, thread_count
from detectors.inference import postprocess
from detectors.inference.normalisation import to_network_input
from detectors.inference.streaming import optimise_for_inference
from detectors.weights import restore, zoo
from pipeline.config.schema import DetectorConfig
from pipeline.imaging.geometry import Geometry
from pipeline.system import cli
from pipeline.system.errors import MoteError
from pipeline.system.progress import Progress
from tests.benchmarks.options import benchmark_parser
from tests.benchmarks.speed import plain_way

NEAR = 0.5
"""Largest distance of edges within a match, source pixels."""

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Boxes (N, 4) in source pixels, scores (N,), labels (N,) of one frame, best score first."""


class Comparison(NamedTuple):
    """Differences between the detections of two forms, in one frame or several."""

    frames: int = 0
    detections: int = 0
    """Of the plain form."""
    alone: int = 0
    """Unmatched detections of either form."""
    edge: float = 0.0
    """Largest difference of an edge within a match, source pixels."""
    score: float = 0.0
    """Largest difference of a score within a match."""

    def __add__(self, other: Comparison) -> Comparison:
        counts = (a + b for a, b in zip(self[:3], other[:3], strict=True))
        return Comparison(*counts, max(self.edge, other.edge), max(self.score, other.score))


def compared(plain: Rows, ours: Rows) -> Comparison:
    """Matches the detections of one frame."""
    free, alone, edge, score = np.ones(len(ours[0]), bool), 0, 0.0, 0.0
    for box, value, label in zip(*plain, strict=True):
        apart = np.abs(ours[0] - box).max(axis=1, initial=0.0)
        apart = np.where(free & (ours[2] == label), apart, np.inf)
        best = int(apart.argmin()) if len(apart) else -1
        if best < 0 or apart[best] > NEAR:
            alone += 1
            continue
        free[best] = False
        edge, score = max(edge, float(apart[best])), max(score, float(abs(ours[1][best] - value)))
    return Comparison(1, len(plain[0]), alone + int(free.sum()), edge, score)


def clips(options: argparse.Namespace) -> Iterator[tuple[str, np.ndarray]]:
    """Yields name and frames (T, H, W) of each clip."""
    dataset = registry.load_dataset("drone-ir", options.root, options.split)
    step = max(len(dataset.records) // options.clips, 1)  # clips of one class are adjacent
    records = dataset.records[::step][: options.clips]
    each = -(-options.frames // len(records))
    for record in records:
        yield Path(record.name).stem, read_sequence(record, dataset.root).frames[:each]


def measure(options: argparse.Namespace) -> Comparison:
    """Compares all frames and prints a line per clip."""
    device = pick_device(options.device)
    require_precision(options.precision, device)
    entry = zoo.ZOO_TABLE.get(options.weights)
    model, path, _ = restore.restore_network(entry.detector if entry else "tridos-nano", options.weights)
    model = model.to(device).eval()
    torch.set_num_threads(options.threads or thread_count(model))
    fast, total = optimise_for_inference(model, options.precision), Comparison()
    with Progress(options.frames) as progress:
        for name, frames in clips(options):
            geometry = Geometry.native(frames.shape[:0:-1], scale=restore.trained_enlargement(path))
            steps, part = (plain_way(model), fast.stream().push), Comparison()
            for frame in frames:
                scale = int(np.iinfo(frame.dtype).max)
                picture = geometry.apply(frame, full_scale=scale)
                pixels = to_network_input([picture], full_scale=scale, device=device)
                part += compared(*(found(step(pixels), geometry, options.conf) for step in steps))
                progress.advance()
            print(
                f"{name}: {part.frames} frames, {part.detections} detections, {part.alone} unmatched, "
                f"edges {part.edge:.1e}, scores {part.score:.1e}",
                flush=True,
            )
            total += part
    return total


def found(raw: torch.Tensor, geometry: Geometry, conf: float) -> Rows:
    """Returns the detections of one frame after non-maximum suppression."""
    (rows,) = postprocess.decode(raw, conf=conf, iou=DetectorConfig.iou)
    boxes, scores, labels = (values.cpu().numpy() for values in rows)
    return geometry.to_source(boxes), scores, labels


def parser() -> cli.Parser:
    """Returns the parser of the command."""
    parser = benchmark_parser("tests.benchmarks.equality", __doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of drone-ir")
    parser.add_argument("--split", default="val")
    parser.add_argument("--weights", default="tridos-nano-drone-ir", help="a name of --list, or a file")
    parser.add_argument(
        "--frames", type=cli.int_at_least(1), default=500, help="number of frames of all clips (default: 500)"
    )
    parser.add_argument(
        "--clips", type=cli.int_at_least(1), default=10, help="maximum number of clips (default: 10)"
    )
    parser.add_argument(
        "--conf", type=float, default=DetectorConfig.conf, help="minimum score (default: that of a run)"
    )
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--threads", type=cli.int_at_least(0), default=0, help="CPU threads (default: as in a run)"
    )
    parser.add_argument(
        "--edge", type=float, default=0.05, help="largest difference of edges, source pixels (default: 0.05)"
    )
    parser.add_argument(
        "--score", type=float, default=1e-3, help="largest difference of scores (default: 0.001)"
    )
    return parser


def work(options: argparse.Namespace) -> None:
    """Compares and prints the result. Raises MoteError if the forms differ."""
    total = measure(options)
    print(
        f"all: {total.frames} frames, {total.detections} detections, {total.alone} unmatched, "
        f"edges differ by up to {total.edge:.1e} pixels, scores by {total.score:.1e}"
    )
    if total.alone or total.edge > options.edge or total.score > options.score:
        raise MoteError("the two forms differ")


def main(arguments: list[str] | None = None) -> int:
    """Runs the comparison; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
