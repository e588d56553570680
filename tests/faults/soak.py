"""Monitors one long run on an unreliable live stream from outside.

    python -m tests.faults.soak --minutes 60 --plot soak.png

A camera in a separate process sends a synthetic scene over TCP on the loopback interface. At seeded times it
disconnects, stays silent, or loses and damages packets; with `--calm` it has no faults. The command line
processes the stream with the embedded weights and all outputs until it receives SIGTERM. Memory, threads and
file descriptors are read every few seconds.

Prints a Markdown table over time and the result of each check: memory does not grow after a warm-up
(Theil–Sen slope), numbers of threads and descriptors stay constant, every frame is accounted for, no
standstill, no traceback, exit code 143. The exit code is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from pipeline.evaluation.detection.plots import save_figure, style_axes
from pipeline.system import cli
from pipeline.system.cli import int_at_least
from pipeline.system.errors import MoteError
from tests.faults.camera import Trouble, serve, troubles
from tests.support.outputs import lines, report

PROJECT_ROOT = Path(__file__).resolve().parents[2]

SLOPE = 1.0
"""Allowed growth of memory in 10^6 bytes per ten minutes."""
IN_HAND = 8
"""Frames that may be in the queues at the signal."""
STANDSTILL_SECONDS = 45.0
"""Longest time without a new result: an absence of the camera, waits between attempts, and a reconnection."""
WARM_UP = 1 / 3, 20.0
"""Share of the run, and maximum in minutes, after which memory must be constant: before, caches fill and the
heap fragments over the first dozens of connections."""
ENDING_SECONDS = 300.0
ROWS = 12


class Reading(NamedTuple):
    """Resources of the process at one time."""

    seconds: float
    """Since the start of the camera."""
    memory: float
    """Private resident memory in 10^6 bytes, without pages of programs and libraries, which the system evicts
    and reloads."""
    resident: float
    """All resident memory."""
    threads: int
    descriptors: int
    written: int
    """Frames written so far."""


class Verdict(NamedTuple):
    """A check and its result."""

    asked: str
    found: str
    passed: bool


def parser() -> cli.Parser:
    """Returns the parser of the command."""
    parser = cli.Parser(prog="python -m tests.faults.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=int_at_least(1), default=12, help="frames per second (default: 12)")
    parser.add_argument("--width", type=int_at_least(32), default=320)
    parser.add_argument("--height", type=int_at_least(32), default=256)
    parser.add_argument("--seed", type=int_at_least(0), default=0, help="seed of the faults (default: 0)")
    parser.add_argument("--calm", action="store_true", help="no faults: one connection throughout")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between readings (default: 5)")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="plot the readings")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="keep the outputs of the run in this folder"
    )
    return parser


def expected(options: argparse.Namespace) -> list[Trouble]:
    """Returns the faults of the camera."""
    return [] if options.calm else troubles(options.seed, 60 * options.minutes + ENDING_SECONDS)


@contextmanager
def camera(options: argparse.Namespace) -> Iterator[tuple[int, multiprocessing.connection.Connection]]:
    """Runs the camera in a process during the block; yields its port and the pipe to it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    size, seconds = (options.width, options.height), 60 * options.minutes + ENDING_SECONDS
    arguments = (there, size, options.rate, expected(options), options.seed, seconds)
    process = context.Process(target=serve, args=arguments, daemon=True)
    process.start()
    there.close()
    try:
        yield here.recv(), here
    finally:
        here.close()
        process.join()


@contextmanager
def followed(port: int, folder: Path, errors: Path) -> Iterator[subprocess.Popen]:
    """Runs the command line on the camera; kills it at the end of the block if it is still running."""
    arguments = ["--video", f"tcp://127.0.0.1:{port}", "--source-format", "mpegts", "--timeout", "5"]
    arguments += ["--reconnect", "forever", "--set", "live.backoff_cap=4", "--output", str(folder)]
    with errors.open("w") as said:
        command = [sys.executable, "run_pipeline.py", *arguments, "--progress", "off"]
        process = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL, stderr=said)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


class Lines:
    """Counts the lines of a growing file."""

    def __init__(self, path: Path):
        self._path, self._place, self._count = path, 0, 0

    def count(self) -> int:
        """Returns the number of lines; 0 if there is no file yet."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._place)
                while data := file.read(1 << 20):
                    self._place += len(data)
                    self._count += data.count(b"\n")
        return self._count


def read(process: int, seconds: float, written: int) -> Reading:
    """Reads the resources of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    own, resident = (
        sum(int(status[name].split()[0]) for name in names) * 1024 / 1e6
        for names in (("RssAnon", "RssShmem"), ("VmRSS",))
    )
    descriptors = len(os.listdir(f"/proc/{process}/fd"))
    return Reading(seconds, own, resident, int(status["Threads"]), descriptors, written)


def watch(process: subprocess.Popen, results: Path, options: argparse.Namespace) -> list[Reading]:
    """Returns readings from the first result on, over the whole time or until the run ends."""
    counter, readings = Lines(results), []
    begin, printed = None, 0.0
    started = time.monotonic()
    limit = started + ENDING_SECONDS
    while process.poll() is None:
        time.sleep(options.every if begin else 0.2)
        written, now = counter.count(), time.monotonic()
        if begin is None and not written:
            if now > limit:
                raise MoteError(f"no result came in {ENDING_SECONDS:g} s")
            continue
        begin = now if begin is None else begin
        if process.poll() is None:
            readings.append(read(process.pid, now - started, written))
        if now - printed >= 60:
            printed = now
            print(f"{(now - begin) / 60:.0f} min: {readings[-1]}", file=sys.stderr, flush=True)
        if now - begin >= 60 * options.minutes:
            break
    return readings


def slope(readings: Sequence[Reading]) -> float:
    """Returns the growth of memory in 10^6 bytes per ten minutes: the median over all pairs of readings."""
    seconds = np.array([reading.seconds for reading in readings])
    memory = np.array([reading.memory for reading in readings])
    first, second = np.triu_indices(len(readings), 1)
    return float(np.median((memory[second] - memory[first]) / (seconds[second] - seconds[first]))) * 600


def settled(readings: Sequence[Reading]) -> list[Reading]:
    """Returns the readings after the warm-up."""
    share, minutes = WARM_UP
    begin = min(share * readings[-1].seconds, 60 * minutes)
    return [reading for reading in readings if reading.seconds >= begin]


def constant(readings: Sequence[Reading], name: str) -> Verdict:
    """Checks that the first and the last third of the readings have the same median."""
    values = [getattr(reading, name) for reading in readings]
    third = max(1, len(values) // 3)
    first, last = median(values[:third]), median(values[-third:])
    found = f"{first:g} in the first third, {last:g} in the last; {min(values)} to {max(values)}"
    return Verdict(f"{name} constant", found, first == last)


def judge(readings: Sequence[Reading], code: int, folder: Path, said: str) -> list[Verdict]:
    """Returns the results of all checks."""
    after, frames, written = settled(readings), report(folder)["frames"], lines(folder)
    indices = [line["frame"] for line in written]
    dropped, left = sum(frames["dropped"].values()), frames["unprocessed"]
    growth = slope(after)
    new = [readings[0], *(b for a, b in pairwise(readings) if b.written > a.written)]
    still = max(b.seconds - a.seconds for a, b in pairwise([*new, readings[-1]]))
    account = (
        f"{frames['decoded']} = {frames['written']} + {dropped} {frames['dropped'] or 'dropped'} + {left}"
    )
    gaps = sum(
        line["gap"]["missing"] > 0 for line in written if line.get("gap", {}).get("event") == "dropped"
    )
    return [
        Verdict(f"memory grows by less than {SLOPE:g} MB in 10 min", f"{growth:+.2f} MB", growth < SLOPE),
        constant(after, "threads"),
        constant(after, "descriptors"),
        Verdict(
            f"decoded = written + dropped + left in the queues, at most {IN_HAND}",
            account,
            0 <= left <= IN_HAND and frames["decoded"] == frames["written"] + dropped + left,
        ),
        Verdict(
            "a line for each frame written, indices rising",
            f"{len(written)} lines, {gaps} gaps by drops",
            len(written) == frames["written"] > 0 and indices == sorted(set(indices)),
        ),
        Verdict(
            f"no {STANDSTILL_SECONDS:g} s without a result", f"{still:.0f} s", still < STANDSTILL_SECONDS
        ),
        Verdict("no traceback", f"{said.count('Traceback')}", "Traceback" not in said),
        Verdict("exit code 143 after SIGTERM", f"{code}", code == 128 + signal.SIGTERM),
    ]


def table(readings: Sequence[Reading], wrong: Sequence[Trouble]) -> list[str]:
    """Formats medians over equal parts of the time as Markdown; faults are counted by the camera's clock."""
    rows = ["| minutes | frames written | own memory, MB | resident, MB | threads | descriptors | faults |"]
    rows += ["|---|---|---|---|---|---|---|"]
    length = readings[-1].seconds / ROWS
    for number in range(ROWS):
        begin, end = number * length, (number + 1) * length
        part = [reading for reading in readings if begin <= reading.seconds <= end]
        if not part:
            continue
        happened = sum(begin <= trouble.begin < end for trouble in wrong)
        middle = [median(getattr(reading, name) for reading in part) for name in Reading._fields[1:5]]
        rows.append(
            f"| {begin / 60:.1f} to {end / 60:.1f} | {part[-1].written} | {middle[0]:.1f} | {middle[1]:.1f} "
            f"| {middle[2]:g} | {middle[3]:g} | {happened} |"
        )
    return rows


def draw(readings: Sequence[Reading], wrong: Sequence[Trouble], path: Path) -> None:
    """Plots memory, threads and descriptors over time as PNG. Raises OutputError."""
    from matplotlib.figure import Figure

    minutes = [reading.seconds / 60 for reading in readings]
    figure = Figure(figsize=(8, 6), dpi=120, layout="constrained")
    axes = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1, 1))
    for place, name in zip(axes, ("memory", "threads", "descriptors"), strict=True):
        place.plot(minutes, [getattr(reading, name) for reading in readings], color="#1f5fa8", linewidth=1)
        place.set_ylabel(f"{name}, MB" if name == "memory" else name)
        for trouble in wrong:
            if trouble.kind in ("stop", "silence"):
                place.axvspan(trouble.begin / 60, trouble.end / 60, color="#f3d9c8", linewidth=0)
        style_axes(place)
    axes[-1].set_xlabel("minutes; shaded: the camera is disconnected or silent")
    save_figure(figure, path)


def soak(options: argparse.Namespace, place: Path) -> int:
    """Runs camera and command line, prints the results; returns the exit code."""
    folder, errors = options.output or place / "run", place / "errors.txt"
    with camera(options) as (port, pipe), followed(port, folder, errors) as process:
        readings = watch(process, folder / "results.jsonl", options)
        process.send_signal(signal.SIGTERM)
        code = process.wait(ENDING_SECONDS)
        sent = "it ended earlier"
        with suppress(OSError, EOFError):
            pipe.send("end")
            sent = pipe.recv()
    said = errors.read_text()
    if not readings or len(settled(readings)) < 3:
        raise MoteError(f"the run ended with code {code} before the warm-up was over: {said.strip()}")
    wrong = [trouble for trouble in expected(options) if trouble.begin < readings[-1].seconds]
    kinds = {kind: sum(trouble.kind == kind for trouble in wrong) for kind in sorted({t.kind for t in wrong})}
    facts, verdicts = report(folder), judge(readings, code, folder, said)
    print("\n".join(table(readings, wrong)))
    print(f"\nCamera: {sent}, faults: {kinds}")
    print(f"Run: {facts['frames']}, gaps {facts['gaps']}, latency {facts['latency_ms']} ms\n")
    print("| check | result | |\n|---|---|---|")
    for verdict in verdicts:
        print(f"| {verdict.asked} | {verdict.found} | {'yes' if verdict.passed else 'NO'} |")
    if options.plot:
        draw(readings, wrong, options.plot)
    return int(not all(verdict.passed for verdict in verdicts))


def work(options: argparse.Namespace) -> int:
    """Runs the soak test. Raises MoteError."""
    cli.require_writable(options.plot)
    with tempfile.TemporaryDirectory() as place:
        return soak(options, Path(place))


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
