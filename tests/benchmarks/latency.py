"""How late results are behind a live source, in frame intervals.

    python -m tests.benchmarks.latency

A server on the loopback interface sends raw frames of a synthetic scene. First it sends as fast as they are
taken, with room to wait, which gives the most that the run gets through with all that is asked for; then at
rising shares of that rate, with the policy for live sources, each at its time. Sustained is the highest of
these rates up to which no frame was dropped. Latency runs from the arrival of a frame's bytes until the
result is in all files.
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
"""First frames, and how many times as long they are apart: the first ones take a network longer."""
TARGETS = (Target(x=60, y=80, vx=1, scr=30), Target(x=200, y=150, vx=-0.7, vy=0.2, scr=30))


def parser() -> cli.Parser:
    """The command line."""
    parser = benchmark_parser("tests.benchmarks.latency", __doc__)
    parser.add_argument("--detector", default="tridos-nano")
    parser.add_argument("--weights", default="", help="a name or a file (default: the detector's own)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--width", type=int_at_least(32), default=320)
    parser.add_argument("--height", type=int_at_least(32), default=256)
    parser.add_argument("--frames", type=int_at_least(20), default=300, help="in each run (default: 300)")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of the highest rate")
    parser.add_argument("--queue", type=int_at_least(0), default=0, help="frames that may wait (0: as ever)")
    parser.add_argument("--no-video", action="store_true", help="do not draw and encode")
    return parser


@contextmanager
def camera(pictures: list[bytes], count: int, rate: float | None) -> Iterator[int]:
    """Sends so many frames, over and over the pictures, to the one who connects to the port that it gives.

    `rate` frames per second, each whole and at its time, after a slow beginning; None for as fast as they are
    taken.
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
    """One run over the camera; with a rate it drops what it cannot keep up with."""
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
    """What came of one rate."""

    rate: float
    """Frames per second."""
    p50: float
    """Latency in frame intervals."""
    p95: float
    dropped: int
    decoded: int


def row(options: argparse.Namespace, pictures: list[bytes], rate: float) -> Row:
    """One run at a rate."""
    record = live(options, pictures, rate)
    p50, p95 = (record.latency.quantile(share) * rate for share in (0.5, 0.95))
    return Row(rate, p50, p95, record.dropped.count, record.decoded)


def measure(options: argparse.Namespace) -> str:
    """The table of all shares, and the rate that is sustained."""
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
