"""Measures frames per second against the number of streams in one run.

    python -m tests.benchmarks.streams [VIDEO]

The same video is given once, twice, …; each stream is decoded, tracked, drawn and written separately, with
all outputs in a temporary folder. The numbers of streams alternate, so that other load on the machine affects
all of them; medians of the repeats are compared. Loading the network is not measured.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile

import torch

from detectors.backends.devices import pick_device
from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.runner.multi import run_many
from pipeline.runner.single import run
from pipeline.system import cli
from pipeline.system.cli import int_at_least
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
    parser = benchmark_parser("tests.benchmarks.streams", __doc__)
    parser.add_argument("video", nargs="?", default=str(DEMO), help="(default: the sample of the project)")
    add_detector_options(parser)
    parser.add_argument(
        "--streams", type=int_at_least(1), nargs="+", default=[1, 2, 4], help="(default: 1 2 4)"
    )
    parser.add_argument(
        "--max-frames", type=int_at_least(0), default=0, help="frames of each stream (default: all)"
    )
    parser.add_argument("--repeats", type=int_at_least(1), default=3)
    return parser


def rate(video: str, count: int, settings: dict) -> float:
    """Returns the frames per second of all streams, from the first frame to the last file closed."""
    with tempfile.TemporaryDirectory() as folder:
        config = build(RunConfig, {**settings, "output": {"folder": folder}})
        if count == 1:
            record = run(video, config, parts(), progress="off")
            failures, written, seconds = [record.failure], record.written, record.seconds
        else:
            summary = run_many([video] * count, config, parts(), progress="off")
            failures, seconds = summary.failures, summary.seconds
            written = sum(record.written for record in summary.records.values())
    for failure in filter(None, failures):
        raise failure
    return written / seconds


def measure(options: argparse.Namespace) -> str:
    """Returns the table of all numbers of streams."""
    settings = {"detector": detector_settings(options), "source": {"max_frames": options.max_frames}}
    rate(options.video, 1, {**settings, "source": {"max_frames": 8}})  # warm-up
    rates = {count: [] for count in options.streams}
    for _ in range(options.repeats):
        for count in options.streams:
            rates[count].append(rate(options.video, count, settings))
    medians = {count: statistics.median(values) for count, values in rates.items()}
    least = min(medians)
    device = pick_device(options.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return "\n".join(
        [
            f"{options.video}: {options.detector} on {where}, "
            f"{torch.get_num_threads()} threads, {options.repeats} repeats",
            f"{'streams':<9}{'frames/s':>10}{'of each':>10}{f'over {least}':>10}",
            *(
                f"{count:<9}{value:>10.1f}{value / count:>10.1f}{value / medians[least]:>10.2f}"
                for count, value in medians.items()
            ),
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_benchmark(parser(), measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
