"""Evaluates the default tracker on the sequences of a data set.

    python -m tests.benchmarks.tracks --root DATA [--detections found.json]

Without a file of COCO results, detections are computed with the shipped weights first.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np

import trackers
from datasets.layouts import registry
from detectors.evaluation import detection
from detectors.weights import restore, zoo
from pipeline.config.schema import DetectorConfig
from pipeline.evaluation.tracking.gates import GATES
from pipeline.evaluation.tracking.scoring import score_videos
from pipeline.evaluation.tracking.track_rows import read_tracks
from pipeline.sinks.mot import MotSink
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.results import Result
from pipeline.system.errors import MoteError
from tests.benchmarks.tracker_sets import by_image


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.tracks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--dataset", default="drone-ir")
    parser.add_argument("--root", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--weights", default="tridos-nano-drone-ir")
    parser.add_argument("--detections", type=Path, help="COCO results (default: run the network)")
    parser.add_argument("--workers", type=int, default=2)
    return parser


def tracked(record, found: dict[int, Detections], folder: Path):
    """Tracks the detections of one sequence; returns its track rows."""
    tracker, path = trackers.build("centre"), folder / f"{record.name}.txt"
    picture = np.zeros((record.height, record.width), np.uint8)  # the tracker only uses its size
    with MotSink(path) as sink:
        for index in range(len(record)):
            frame = Frame(image=picture, index=index, pts=Fraction(index, 30), source=record.name)
            detections = found.get(record.image_ids.get(index), Detections.empty())
            sink.write(Result(frame, detections, False, tracks=tracker.update(detections, frame)))
    return read_tracks(path)


def main() -> int:
    """Prints the scores over all sequences for each gate; returns the exit code."""
    options = parser().parse_args()
    try:
        dataset = registry.load_dataset(options.dataset, options.root, options.split)
        if options.detections:
            rows = json.loads(options.detections.read_text(encoding="utf-8"))
        else:
            entry = zoo.ZOO_TABLE[options.weights]
            model, path, _ = restore.restore_network(entry.detector, options.weights)
            scale, workers = restore.trained_enlargement(path), options.workers
            rows = detection.score_dataset(model, dataset, stride=1, enlarge=scale, workers=workers)[1]
        found = by_image(rows, DetectorConfig().conf)
        with tempfile.TemporaryDirectory() as folder:
            runs = [(record, tracked(record, found, Path(folder))) for record in dataset.records]
        for gate in GATES:
            print(gate)
            print(score_videos(runs, gate=gate)["OVERALL"].table())
    except MoteError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
