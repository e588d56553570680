"""What the single-frame segmenters cost, beside the published networks: a table in Markdown.

    python -m tests.benchmarks.segmenters [--networks rdian madnet]

One frame of 256x256, float32, evaluation mode. Operations are counted by torch's FLOP counter, 2 for a
multiply-add: convolutions and matrix products, not what is done element by element. Time is that of the
process on the CPU with one thread, so that other programs disturb it little; the median of all rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

import detectors

SIZE = 256


class Original(NamedTuple):
    """The published network, measured the same way on two cores of an EPYC processor, torch 2.13."""

    parameters: int
    gflop: float
    milliseconds: float
    """CPU time of one thread; the lower end where a range was measured."""


ORIGINALS = {
    "rdian": Original(216_758, 7.38, 116),
    "madnet": Original(3_721_334, 10.39, 200),
    "datransnet": Original(2_930_729, 16.87, 484),
    "dconet": Original(9_894_160, 49.36, 1080),
    "drtenet": Original(63_633_293, 78.10, 1200),
    "dstransnet": Original(21_878_532, 44.05, 1126),
}
"""Taken when the networks were specified, from the published code."""


def operations(model: torch.nn.Module, pictures: torch.Tensor) -> int:
    """Floating-point operations of one evaluation."""
    with FlopCounterMode(display=False) as counter:
        model.probability(pictures)
    return counter.get_total_flops()


def milliseconds(model: torch.nn.Module, pictures: torch.Tensor, rounds: int) -> float:
    """Median CPU time of the process for one evaluation, after one that does not count."""
    spent = []
    for _ in range(rounds + 1):
        started = time.process_time()
        model.probability(pictures)
        spent.append(time.process_time() - started)
    return 1000 * statistics.median(spent[1:])


def row(name: str, rounds: int) -> str:
    """The line of one network."""
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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.segmenters", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--networks", nargs="+", choices=list(ORIGINALS), default=list(ORIGINALS))
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | parameters | GFLOP | the original's | CPU ms at 256² | the original's | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name in options.networks:
        print(row(name, options.rounds), flush=True)


if __name__ == "__main__":
    main()
