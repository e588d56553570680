"""Measures how long after the arrival of a frame its alarms are received, over HTTP and MQTT.

    python -m tests.benchmarks.alarms

A server on the loopback interface sends raw frames of a synthetic scene in which targets come and go, at a
rate that the network keeps up with. The run tells the start of each event to a real web server and, if
mosquitto is installed, to a real broker. The delay is the time from the arrival of the bytes of the frame
that starts the event, so with decoding, network, tracker, evidence and files, to the receipt of the message.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from itertools import product
from pathlib import Path

from datasets.synthesis.rendering import render
from datasets.synthesis.scene import Scene, Target
from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.runner.single import run
from pipeline.structures.results import Result
from pipeline.system import cli
from run_pipeline import parts
from tests.benchmarks.latency import camera
from tests.benchmarks.options import benchmark_parser, run_benchmark
from tests.support.alarms import broker, has_mosquitto, subscriber, web_receiver

TOPIC = "benchmark"
FRAMES_OF_TARGET = 40
COLUMNS, ROWS = (40, 100, 160, 220, 270), (40, 90, 140, 190)


def parser() -> cli.Parser:
    """Returns the parser of the command."""
    parser = benchmark_parser("tests.benchmarks.alarms", __doc__)
    parser.add_argument("--detector", default="tridos-nano")
    parser.add_argument("--weights", default="", help="name or file (default: that of the detector)")
    parser.add_argument("--rate", type=float, default=15.0, help="frames per second (default: 15)")
    parser.add_argument("--targets", type=cli.int_at_least(1), default=40, help="targets (default: 40)")
    parser.add_argument("--evidence", action="store_true", help="keep clips and pictures of the events, too")
    return parser


def pictures(count: int) -> list[bytes]:
    """Renders a scene of 320x256 pixels in which a target appears every ten frames."""
    places = list(product(COLUMNS, ROWS))
    targets = []
    for number in range(count):
        x, y = places[(7 * number) % len(places)]
        first = 10 * (number + 1)
        targets.append(Target(x=x, y=y, vx=0.6, vy=0.2, scr=30, start=first, stop=first + FRAMES_OF_TARGET))
    frames = 10 * count + FRAMES_OF_TARGET
    scene = Scene(width=320, height=256, frames=frames, targets=tuple(targets))
    return [picture.tobytes() for picture, _ in render(scene)]


def delays(options: argparse.Namespace) -> tuple[dict[str, list[float]], int, int]:
    """Returns the delays in seconds by receiver, and the numbers of events and of frames dropped."""
    frames = pictures(options.targets)
    arrivals: dict[str, float] = {}

    def note(result: Result) -> None:
        for event in result.events:
            if event.phase == "start" and result.frame.arrival is not None:
                arrivals[f"{event.id}:{event.sequence}"] = result.frame.arrival

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        hook = stack.enter_context(web_receiver())
        port = stack.enter_context(camera(frames, len(frames), options.rate))
        alarms: dict = {"webhooks": [{"url": hook.url, "phases": ["start"]}]}
        seen = None
        if has_mosquitto:
            place = stack.enter_context(broker(Path(folder)))
            seen = stack.enter_context(subscriber(place.port, f"{TOPIC}/+/+/events"))
            alarms["mqtt"] = {"host": "127.0.0.1", "port": place.port, "topic": TOPIC, "phases": ["start"]}
        source = {"format": "raw", "size": "320x256", "dtype": "uint8", "rate": options.rate}
        source["scaling"] = "percentile"
        table = {
            "source": {**source, "max_frames": len(frames)},
            "detector": {"name": options.detector, "weights": options.weights},
            "live": {"reconnect": "none"},
            "events": {"rules": [{"name": "any", "min_duration": 0.0}], "evidence": options.evidence},
            "alarms": alarms,
            "output": {"folder": str(Path(folder, "out"))},
        }
        config = build(RunConfig, table)
        record = run(f"tcp://127.0.0.1:{port}", config, parts(), progress="off", on_result=note)
        if record.failure:
            raise record.failure
        found = {
            "webhook": [
                one.arrival - arrivals[key] for one, key in zip(hook.requests, hook.keys, strict=True)
            ]
        }
        if seen:
            rows = [(json.loads(one.payload)["key"], one.arrival) for one in seen.messages]
            found["mqtt"] = [arrival - arrivals[key] for key, arrival in rows]
    return found, len(arrivals), record.dropped.count


def quantile(values: list[float], share: float) -> float:
    """Returns a value of a sorted copy."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def measure(options: argparse.Namespace) -> str:
    """Returns the table of the receivers."""
    found, events, dropped = delays(options)
    lines = [f"{events} events at {options.rate:g} frames/s, {dropped} frames dropped", ""]
    lines += ["receiver  received  p50 (ms)  p95 (ms)  max (ms)"]
    for name, values in found.items():
        cells = (
            [1e3 * quantile(values, share) for share in (0.5, 0.95, 1.0)] if values else [float("nan")] * 3
        )
        lines.append(f"{name:<8}  {len(values):8}" + "".join(f"  {value:8.1f}" for value in cells))
    if "mqtt" not in found:
        lines += ["", "no mosquitto: MQTT was not measured"]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_benchmark(parser(), measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
