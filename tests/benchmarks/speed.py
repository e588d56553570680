"""Measures the speed of the networks against a plain implementation, and that of whole runs.

    python -m tests.benchmarks.speed [--quick] [--plot speed.png]

The plain implementation computes every window from its five frames in float32 and eager mode, one window at a
time, with separate normalisation layers and attention that stores its scores, as published programs do; as in
ours, the non-local block without effect is left out. All implementations alternate in one process on the same
frames; medians are reported. Operations are those of direct convolutions and matrix products, 2 for a
multiply-add; the rate of the machine is that of one large convolution. Stages are measured one after the
other on the frames of the video; a run overlaps them. The whole job reads a video file and writes all
outputs. On a GPU, it is also measured with batches of 16 frames and with several streams.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import detectors
from detectors.backends.devices import core_count, pick_device, thread_count
from detectors.inference.streaming import PRECISIONS
from detectors.networks.tridos import Tridos
from detectors.networks.tridos.optimised.fused import FusedTridos
from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.runner.multi import run_many
from pipeline.runner.single import run
from run_pipeline import parts
from tests.benchmarks.stage_times import STAGES, of_stages

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "datasets" / "samples" / "demo.mp4"
NETWORKS, SIZES = ("tridos", "tridos-nano"), ("512x512", "320x256")
PLAIN = "plain"
Step = Callable[[Tensor], Tensor]


def stored_scores(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Computes `scaled_dot_product_attention` with the whole score matrix in memory."""
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    return (scores if attn_mask is None else scores + attn_mask).softmax(dim=-1) @ value


@contextmanager
def unfused_attention() -> Iterator[None]:
    """Replaces attention by `stored_scores` within the block."""
    kept, F.scaled_dot_product_attention = F.scaled_dot_product_attention, stored_scores
    try:
        yield
    finally:
        F.scaled_dot_product_attention = kept


def plain_way(model: Tridos) -> Step:
    """Returns a step that computes each new frame (1, 3, H, W) from the whole clip of its window."""
    window: list[Tensor] = []

    def step(frame: Tensor) -> Tensor:
        window[:] = [*(window or [frame] * model.frames)[1:], frame]
        with torch.inference_mode(), unfused_attention():
            return model(torch.stack(window, dim=2))

    return step


def ways(model: Tridos) -> dict[str, Step]:
    """Returns the implementations by name; "stream" is ours without `FusedTridos`."""
    half = {"fp16": torch.float16} if next(model.parameters()).is_cuda else {}
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, **half}
    steps = {PLAIN: plain_way(model), "stream": model.stream().push}
    return steps | {name: FusedTridos(model, dtype=dtype).stream().push for name, dtype in dtypes.items()}


def seconds(step: Step, frames: Tensor) -> float:
    """Returns the seconds of one call, including its work on the GPU."""
    started = time.perf_counter()
    step(frames)
    if frames.is_cuda:
        torch.cuda.synchronize(frames.device)
    return time.perf_counter() - started


def alternated(steps: dict[str, Step], frames: Tensor, rounds: int) -> dict[str, float]:
    """Returns the median seconds per frame of each step; they alternate, after two warm-up rounds."""
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 2):
        for name, step in steps.items():
            taken = seconds(step, frames)
            if turn >= 2:
                spent[name].append(taken)
    return {name: statistics.median(values) for name, values in spent.items()}


def operations(step: Step, frame: Tensor) -> int:
    """Returns the floating-point operations of one call by torch's counter."""
    with FlopCounterMode(display=False) as counter:
        step(frame)
    return counter.get_total_flops()


def machine_rate(device: torch.device, dtype: torch.dtype, rounds: int = 5) -> float:
    """Returns the floating-point operations per second of a 3×3 convolution, 256 channels, 64×64."""
    x, weight = torch.randn(1, 256, 64, 64), torch.randn(256, 256, 3, 3)
    x, weight = (t.to(device, dtype, memory_format=torch.channels_last) for t in (x, weight))
    count = 2 * x.numel() * weight[0].numel()
    with torch.inference_mode():
        return count / min(seconds(lambda x: F.conv2d(x, weight, padding=1), x) for _ in range(rounds))


def network_rows(name: str, size: str, options: argparse.Namespace) -> tuple[list[str], dict[str, float]]:
    """Returns table rows and seconds per frame of each implementation of a network at one size."""
    device = pick_device(options.device)
    torch.manual_seed(0)
    model = detectors.build(name).eval().to(device)
    torch.set_num_threads(options.threads or thread_count(model))
    width, height = map(int, size.split("x"))
    frame = torch.randn(1, 3, height, width, device=device)
    spent = alternated(ways(model), frame, options.rounds)
    with torch.inference_mode():
        count = operations(model.stream().push, frame)
    rows = []
    for way, taken in spent.items():
        share = ""
        if way != PLAIN:
            dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(way, torch.float32)
            share = f"{count / taken / machine_rate(device, dtype):.2f}"
        ratio = spent[PLAIN] / taken
        cells = (f"`{name}`", size, way, f"{1000 * taken:.1f}", f"{1 / taken:.1f}", f"{ratio:.2f}", share)
        rows.append("| " + " | ".join(cells) + " |")
    return rows, spent


def batch_rows(name: str, size: str, options: argparse.Namespace) -> list[str]:
    """Returns table rows of frames per second of the fused network on frames in memory, by batch size."""
    device = pick_device(options.device)
    dtype = PRECISIONS[options.precision] or torch.float32
    model = FusedTridos(detectors.build(name).eval().to(device), dtype=dtype)
    torch.set_num_threads(options.threads or thread_count(model))
    width, height = map(int, size.split("x"))
    rows = []
    for batch in options.batches:
        frames = torch.randn(batch, 3, height, width, device=device)
        taken = alternated({"ours": model.stream().push}, frames, options.rounds)["ours"]
        rows.append(f"| `{name}` | {size} | {batch} | {batch / taken:.1f} |")
    return rows


def stage_rows(options: argparse.Namespace) -> list[str]:
    """Returns table rows of milliseconds per frame and stage, with a column per network and size."""
    jobs = [(name, size) for name in options.networks for size in options.sizes]
    columns = [of_stages(name, size, options) for name, size in jobs]
    rows = ["| stage, ms a frame | " + " | ".join(f"`{name}` {size}" for name, size in jobs) + " |"]
    rows.append("|---|" + "---|" * len(jobs))
    for stage in STAGES:
        rows.append(f"| {stage} | " + " | ".join(f"{1000 * column[stage]:.2f}" for column in columns) + " |")
    total = " | ".join(f"{1000 * sum(column.values()):.2f}" for column in columns)
    return [*rows, f"| one after the other | {total} |"]


def settings(options: argparse.Namespace, folder: str, batch: int = 0) -> dict:
    """Returns the configuration of a run of tridos-nano that writes to a folder."""
    detector = {"device": options.device, "backend": "torch", "precision": options.precision, "batch": batch}
    return {"detector": detector, "output": {"folder": folder, "overwrite": True}}


def whole_job(options: argparse.Namespace, batch: int = 0) -> str:
    """Reports frames per second from the video file to all outputs, without loading the network."""
    rates = []
    for _ in range(options.jobs):
        with tempfile.TemporaryDirectory() as folder:
            config = build(RunConfig, settings(options, folder, batch))
            record = run(options.video, config, parts(), progress="off")
            rates.append(record.decoded / record.seconds)
    what = f"whole job, `tridos-nano`, {Path(options.video).name}" + (f", batch {batch}" if batch else "")
    return f"{what}: {statistics.median(rates):.1f} frames/s"


def many_streams(options: argparse.Namespace) -> str:
    """Reports frames per second of all streams together, each from the video file to its outputs."""
    rates = []
    for _ in range(options.jobs):
        with tempfile.TemporaryDirectory() as folder:
            config = build(RunConfig, settings(options, folder))
            summary = run_many([options.video] * options.streams, config, parts(), progress="off")
            written = sum(record.written for record in summary.records.values())
            rates.append(written / summary.seconds)
    return f"{options.streams} streams, `tridos-nano`: {statistics.median(rates):.1f} frames/s together"


def start_up(video: str) -> str:
    """Reports the seconds of the command for its help, and for one frame with all outputs."""
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        for arguments in (["--help"], [video, "--max-frames", "1", "--output", folder, "--overwrite"]):
            started = time.perf_counter()
            command = [sys.executable, "run_pipeline.py", *arguments]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            taken.append(time.perf_counter() - started)
    return f"start-up: help after {taken[0]:.2f} s, one frame and the end after {taken[1]:.2f} s"


def hardware(device: torch.device) -> str:
    """Describes the machine and the versions."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        info = Path("/proc/cpuinfo")
        lines = info.read_text().splitlines() if info.exists() else []
        names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        name = f"{next(names, platform.processor())}, {core_count()} cores"
    return f"{name}; torch {torch.__version__}, Python {platform.python_version()}; {date.today()}"


def peak_memory(device: torch.device) -> str:
    """Reports the peak memory of this process and of the GPU, if one is used."""
    own = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"
    if device.type != "cuda":
        return own
    return f"{own}, on the GPU {torch.cuda.max_memory_allocated(device) / 2**20:.0f} MiB"


def plot(path: Path, results: dict[str, dict[str, float]]) -> None:
    """Plots the speed of each implementation relative to the plain one as bars."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    names = list(next(iter(results.values())))
    for number, name in enumerate(names):
        places = [place + (number - len(names) / 2 + 0.5) / (len(names) + 1) for place in range(len(results))]
        axes.bar(places, [s[PLAIN] / s[name] for s in results.values()], 1 / (len(names) + 1), label=name)
    axes.set_xticks(range(len(results)), list(results))
    axes.set_ylabel("speed relative to plain")
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.speed", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), metavar="WxH")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--jobs", type=int, default=3, help="whole jobs (default: 3; 0: none)")
    parser.add_argument("--quick", action="store_true", help="3 rounds, 1 job, no batches")
    parser.add_argument("--video", default=str(DEMO))
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--precision",
        choices=list(PRECISIONS),
        default="fp32",
        help="of batches, stages, jobs and streams (default: fp32); implementations are compared in all",
    )
    parser.add_argument(
        "--streams",
        type=int,
        default=16,
        help="streams of one job on a GPU (default: 16; 0: none); on a CPU see tests.benchmarks.streams",
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: as in a run)")
    parser.add_argument("--plot", type=Path, help="write a bar plot of the ratios")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Prints the tables; returns the exit code."""
    options = parser().parse_args(arguments)
    if options.quick:
        options.rounds, options.batches, options.jobs = 3, [], min(options.jobs, 1)
    device = pick_device(options.device)
    print(hardware(device) + "\n")
    print("| network | size | way | ms a frame | frames/s | times plain | share of the machine's rate |")
    print("|---|---|---|---|---|---|---|")
    results = {}
    for name in options.networks:
        for size in options.sizes:
            rows, results[f"{name} {size}"] = network_rows(name, size, options)
            print("\n".join(rows), flush=True)
    print("\n" + "\n".join(stage_rows(options)), flush=True)
    if options.batches:
        print("\n| network | size | batch | frames/s |\n|---|---|---|---|")
        for name in options.networks:
            for size in options.sizes:
                print("\n".join(batch_rows(name, size, options)), flush=True)
    if options.jobs:
        print("\n" + whole_job(options))
        if device.type == "cuda":
            print("\n" + whole_job(options, batch=16))
            if options.streams:
                print("\n" + many_streams(options))
        print("\n" + start_up(options.video))
    print("\npeak memory: " + peak_memory(device))
    if options.plot:
        plot(options.plot, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
