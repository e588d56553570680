"""Compares runtimes with torch for the streaming step of a network, as a Markdown table.

    python -m tests.benchmarks.backends [--detector tridos --size 512x512] [--threads 2] [--clock cpu]

A step processes one frame: its features, the pair with the previous frame, and the join of the window. The
runtimes alternate step by step, so that other load on the machine affects all of them; medians are compared.
`--clock cpu` measures CPU time of the process instead of wall time, for one thread on a busy machine.
Networks without weights get random ones.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

import detectors
from detectors.backends import export_folder, graph_cache, runtimes
from detectors.networks.tridos.optimised.fused import FusedTridos
from detectors.weights import restore, state_dict, zoo
from pipeline.config.schema import parse_size
from pipeline.system import cli
from tests.benchmarks.options import benchmark_parser, run_benchmark

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
WARM = 6
"""Warm-up steps, which fill the window and are not measured."""


def parser() -> cli.Parser:
    """Returns the parser of the command."""
    parser = benchmark_parser("tests.benchmarks.backends", __doc__)
    parser.add_argument("--detector", choices=export_folder.NETWORKS, default="tridos-nano")
    parser.add_argument("--size", default="320x256", metavar="WxH", help="input size (default: 320x256)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--rounds", type=int, default=15, help="measured steps (default: 15)")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="(default: wall)")
    parser.add_argument("--backends", nargs="+", choices=("onnxruntime", "openvino"))
    return parser


def network(name: str, place: Path) -> tuple[torch.nn.Module, export_folder.Origin]:
    """Returns a network in evaluation mode with its shipped weights, or random ones if there are none."""
    chosen = zoo.default_weights(name)
    if chosen is None:
        torch.manual_seed(0)
        chosen = str(place / "random.safetensors")
        state_dict.save(detectors.build(name).state_dict(), Path(chosen), metadata={"trained_on": "nothing"})
    model, path, _ = restore.restore_network(name, chosen)
    return model.eval(), export_folder.describe_origin(name, chosen, path, model, ("target",))


def alternate(
    steps: dict[str, Callable[[Tensor], Tensor]], frames: Tensor, clock: Callable[[], float]
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Returns the seconds of each measured step and the largest relative difference from the first."""
    spent: dict[str, list[float]] = {name: [] for name in steps}
    apart = dict.fromkeys(steps, 0.0)
    for number, frame in enumerate(frames):
        outputs = {}
        for name, step in steps.items():
            started = clock()
            outputs[name] = step(frame[None])
            if number >= WARM:
                spent[name].append(clock() - started)
        first = next(iter(outputs.values()))
        for name, output in outputs.items():
            share = float((output - first).abs().max() / first.abs().max())
            apart[name] = max(apart[name], share)
    return spent, apart


def measure(options: argparse.Namespace) -> str:
    """Returns the table."""
    size = parse_size(options.size, multiple=32)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as place:
        model, origin = network(options.detector, Path(place))
        steps = {"torch": FusedTridos(model).stream().push}  # as in a run
        for name in options.backends or ("onnxruntime", "openvino"):
            cache = graph_cache.GraphCache.at(place, "")
            other = runtimes.network_from_model(model, origin, name, threads=options.threads, cache=cache)
            steps[name] = other.stream().push
        chance = torch.Generator().manual_seed(0)
        frames = torch.randn(WARM + options.rounds, 3, size[1], size[0], generator=chance)
        spent, apart = alternate(steps, frames, CLOCKS[options.clock])
    lines = [
        f"{options.detector} at {options.size}, {options.threads} threads, {options.rounds} rounds, "
        f"{options.clock} time; " + ", ".join(f"{name} {metadata.version(name)}" for name in steps),
        "",
        "| runtime | ms a frame | times torch's rate | largest difference |",
        "|---|---|---|---|",
    ]
    medians = {name: statistics.median(seconds) for name, seconds in spent.items()}
    for name, median in medians.items():
        ratio = medians["torch"] / median
        lines.append(f"| {name} | {1000 * median:.1f} | {ratio:.2f} | {apart[name]:.1e} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_benchmark(parser(), measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
