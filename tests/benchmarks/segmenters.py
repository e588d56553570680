"""Compares the cost of the single-frame segmenters with the published networks, as a Markdown table.

    python -m tests.benchmarks.segmenters [--networks rdian madnet]

One frame of 256x256, float32, evaluation mode. Operations are those of torch's FLOP counter: convolutions and
matrix products, 2 for a multiply-add; element-wise operations are not counted. Time is CPU time of the
process with one thread, the median of all rounds; other programs change it little.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

import detectors
from pipeline.system import cli
from tests.benchmarks.options import benchmark_parser

SIZE = 256


class Original(NamedTuple):
    """The published network, measured in the same way on two cores of an EPYC processor with torch 2.13."""

    parameters: int
    gflop: float
    milliseconds: float
    """CPU time of one thread; the lower end if a range was measured."""


ORIGINALS = {
    "rdian": Original(216_758, 7.38, 116),
    "madnet": Original(3_721_334, 10.39, 200),
    "datransnet": Original(2_930_729, 16.87, 484),
    "dconet": Original(9_894_160, 49.36, 1080),
    "drtenet": Original(63_633_293, 78.10, 1200),
    "dstransnet": Original(21_878_532, 44.05, 1126),
}
"""Measured from the published code."""


def operations(model: torch.nn.Module, pictures: torch.Tensor) -> int:
    """Returns the floating-point operations of one evaluation."""
    with FlopCounterMode(display=False) as counter:
        model.probability(pictures)
    return counter.get_total_flops()


def milliseconds(model: torch.nn.Module, pictures: torch.Tensor, rounds: int) -> float:
    """Returns the median CPU time of the process for one evaluation, after a warm-up."""
    spent = []
    for _ in range(rounds + 1):
        started = time.process_time()
        model.probability(pictures)
        spent.append(time.process_time() - started)
    return 1000 * statistics.median(spent[1:])


def row(name: str, rounds: int) -> str:
    """Returns the table row of one network."""
    torch.manual_seed(0)
    model, pictures = detectors.build(name).eval(), torch.rand(1, 1, SIZE, SIZE)
    with torch.inference_mode():
        spent, count = milliseconds(model, pictures, rounds), operations(model, pictures)
    original = ORIGINALS[name]
    cells = (
        f"`{name}`",
        f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        f"{count / 1e9:.2f}",
        f"{original.gflop:.2f}",
        f"{spent:.0f}",
        f"{original.milliseconds:.0f}",
        f"{spent / original.milliseconds:.2f}",
    )
    return "| " + " | ".join(cells) + " |"


def parser() -> cli.Parser:
    """Returns the parser of the command."""
    parser = benchmark_parser("tests.benchmarks.segmenters", __doc__)
    add = parser.add_argument
    add("--networks", nargs="+", choices=list(ORIGINALS), default=list(ORIGINALS), help="(default: all)")
    add("--rounds", type=cli.int_at_least(1), default=9, help="measured evaluations (default: 9)")
    return parser


def work(options: argparse.Namespace) -> None:
    """Measures the networks and prints a row for each."""
    torch.set_num_threads(1)
    print("| network | parameters | GFLOP | the original's | CPU ms at 256² | the original's | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name in options.networks:
        print(row(name, options.rounds), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
