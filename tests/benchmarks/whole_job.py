"""Compares the time of a whole run with that of the detector alone.

    python -m tests.benchmarks.whole_job [VIDEO]

The detector alone processes frames in memory; the whole run decodes them from the file, detects, applies
non-maximum suppression, tracks, draws and writes all outputs to a temporary folder. The two alternate, so
that other load on the machine affects both; medians of the repeats are compared.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time

import torch

from detectors.inference.streaming import StreamingDetector
from detectors.loading import load_detector
from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.runner.setup import batch_size
from pipeline.runner.single import run
from pipeline.sources.opening import open_source
from pipeline.stages.batching import batches
from pipeline.structures.frame import Frame
from pipeline.system import cli
from run_pipeline import parts
from tests.benchmarks.options import (
    DEMO,
    add_detector_options,
    benchmark_parser,
    detector_settings,
    run_benchmark,
)


def parser() -> cli.Parser:
    """Returns the parser of the command."""
    parser = benchmark_parser("tests.benchmarks.whole_job", __doc__)
    parser.add_argument("video", nargs="?", default=str(DEMO), help="(default: the sample of the project)")
    add_detector_options(parser)
    parser.add_argument("--max-frames", type=int, default=0, help="(default: all)")
    parser.add_argument("--repeats", type=int, default=3)
    return parser


def detector_alone(detector: StreamingDetector, frames: list[Frame], size: int) -> float:
    """Returns the seconds of the network for all frames."""
    detector.reset()
    started = time.perf_counter()
    for group in batches(frames, size):
        raw = detector(group).raw
    if raw.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def whole_job(video: str, settings: dict) -> float:
    """Returns the seconds from the first frame to the last file closed, without loading the network."""
    with tempfile.TemporaryDirectory() as folder:
        config = build(RunConfig, {**settings, "output": {"folder": folder, "overwrite": True}})
        record = run(video, config, parts(), progress="off")
    if record.failure:
        raise record.failure
    return record.seconds


def measure(options: argparse.Namespace) -> str:
    """Returns the table of both."""
    settings = {"detector": detector_settings(options), "source": {"max_frames": options.max_frames}}
    config = build(RunConfig, settings)
    with open_source(options.video, max_frames=options.max_frames or None) as source:
        frames, info = list(source), source.info
    detector, loaded = load_detector(config.detector)
    size = batch_size(config.detector, loaded.device)
    detector_alone(detector, frames[: 2 * size], size)  # warm-up
    alone, whole = [], []
    for _ in range(options.repeats):
        alone.append(detector_alone(detector, frames, size))
        whole.append(whole_job(options.video, settings))
    first, second = statistics.median(alone), statistics.median(whole)
    return "\n".join(
        [
            f"{info.name}: {len(frames)} frames of {info.width}x{info.height}; {loaded.weights} by "
            f"{loaded.backend} on {loaded.device}, batch {size}, {torch.get_num_threads()} threads, "
            f"{options.repeats} repeats",
            f"{'':<15}{'seconds':>9}{'frames/s':>10}",
            f"{'detector alone':<15}{first:>9.2f}{len(frames) / first:>10.1f}",
            f"{'whole job':<15}{second:>9.2f}{len(frames) / second:>10.1f}",
            f"{'ratio':<15}{second / first:>9.3f}",
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_benchmark(parser(), measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
