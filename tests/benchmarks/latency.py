"""Measures the latency of results behind a live source, in frame intervals.

    python -m tests.benchmarks.latency

A server on the loopback interface sends raw frames of a synthetic scene. First it sends as fast as they are
read, with a blocking queue, which gives the highest rate of the whole pipeline; then at increasing shares of
that rate with the queue policy for live sources, each frame at its time. The sustained rate is the highest up
to which no frame was dropped. Latency is the time from the arrival of a frame's bytes until its result is in
all files.
"""

from __future__ import annotations

import argparse
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from typing import NamedTuple

from datasets.synthesis.rendering import render
from datasets.synthesis.scene import Scene, Target
from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.runner.run_record import RunRecord
from pipeline.runner.single import run
from pipeline.system import cli
from pipeline.system.cli import int_at_least
from run_pipeline import parts
from tests.benchmarks.options import benchmark_parser, run_benchmark

SHARES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
BEGINNING, SLOWER = 10, 4
"""Number of first frames and the factor of their interval: a network is slower at first."""
TARGETS = (Target(x=60, y=80, vx=1, scr=30), Target(x=200, y=150, vx=-0.7, vy=0.2, scr=30))


def parser() -> cli.Parser:
    """Returns the parser of the command."""
    parser = benchmark_parser("tests.benchmarks.latency", __doc__)
    parser.add_argument("--detector", default="tridos-nano")
    parser.add_argument("--weights", default="", help="name or file (default: that of the detector)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--width", type=int_at_least(32), default=320)
    parser.add_argument("--height", type=int_at_least(32), default=256)
    parser.add_argument("--frames", type=int_at_least(20), default=300, help="frames per run (default: 300)")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="shares of the highest rate")
    parser.add_argument(
        "--queue", type=int_at_least(0), default=0, help="queue size (default: that of a run)"
    )
    parser.add_argument("--no-video", action="store_true", help="do not draw and encode")
    return parser


@contextmanager
def camera(pictures: list[bytes], count: int, rate: float | None) -> Iterator[int]:
    """Sends `count` frames, cycling through the pictures, to the first client; yields the port.

    `rate` is in frames per second, lower for the first frames; None sends as fast as the client reads.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send() -> None:
            with suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    begin = time.monotonic()
                    for number in range(count):
                        if rate:
                            intervals = number + (SLOWER - 1) * min(number, BEGINNING)
                            time.sleep(max(0.0, begin + intervals / rate - time.monotonic()))
                        connection.sendall(pictures[number % len(pictures)])

        threading.Thread(target=send, daemon=True).start()
        yield server.getsockname()[1]


def live(options: argparse.Namespace, pictures: list[bytes], rate: float | None) -> RunRecord:
    """Runs the pipeline on the camera; if `rate` is given, frames that it cannot keep up with are dropped."""
    source = {"format": "raw", "size": f"{options.width}x{options.height}", "dtype": "uint8"}
    table = {
        "source": {**source, "rate": rate or 30.0, "max_frames": options.frames},
        "detector": {"name": options.detector, "weights": options.weights, "device": options.device},
        "live": {"on_full": "auto", "queue": options.queue, "reconnect": "none"},
    }
    if not rate:
        table["live"].update(on_full="wait", queue=0)
    with tempfile.TemporaryDirectory() as folder, camera(pictures, options.frames, rate) as port:
        table["output"] = {"folder": folder, "video": not options.no_video}
        record = run(f"tcp://127.0.0.1:{port}", build(RunConfig, table), parts(), progress="off")
    if record.failure:
        raise record.failure
    return record


class Row(NamedTuple):
    """Result of one rate."""

    rate: float
    """Frames per second."""
    p50: float
    """Latency in frame intervals."""
    p95: float
    dropped: int
    decoded: int


def row(options: argparse.Namespace, pictures: list[bytes], rate: float) -> Row:
    """Measures one run at a rate."""
    record = live(options, pictures, rate)
    p50, p95 = (record.latency.quantile(share) * rate for share in (0.5, 0.95))
    return Row(rate, p50, p95, record.dropped.count, record.decoded)


def measure(options: argparse.Namespace) -> str:
    """Returns the table of all shares and the sustained rate."""
    scene = Scene(width=options.width, height=options.height, frames=60, targets=TARGETS)
    pictures = [picture.tobytes() for picture, _ in render(scene)]
    record = live(options, pictures, None)
    highest = record.written / record.seconds
    lines = [f"{options.detector}, {options.width}x{options.height}: {highest:.1f} frames/s at most", ""]
    lines += ["share of it  frames/s  p50 (intervals)  p95 (intervals)  dropped"]
    rows = [row(options, pictures, share * highest) for share in sorted(options.shares)]
    for one in rows:
        dropped = f"{one.dropped} of {one.decoded}"
        lines.append(
            f"{one.rate / highest:11.2f}  {one.rate:8.1f}  {one.p50:15.2f}  {one.p95:15.2f}  {dropped}"
        )
    without = list(takewhile(lambda one: not one.dropped, rows))
    if without:
        lines += ["", f"sustained: {without[-1].rate:.1f} frames/s, p95 {without[-1].p95:.2f} intervals"]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_benchmark(parser(), measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
