"""Measures how long after the arrival of a frame its alarms are received, over HTTP and MQTT.

    python -m tests.benchmarks.alarms

A server on the loopback interface sends raw frames of a synthetic scene in which targets come and go, at a
rate that the network keeps up with. The run tells the start of each event to a real web server and, if
mosquitto is installed, to a real broker. The delay from the frame begins with the arrival of the bytes of the
frame that starts the event, so that it has decoding, network, tracker, evidence and files in it; the delay
from the event begins when the event is handed over for delivery. `--detector tests.benchmarks.alarms:Spots`
takes a threshold in place of a network, which shows the delay without it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import cv2
import numpy as np

from datasets.synthesis.rendering import render
from datasets.synthesis.scene import Scene, Target
from pipeline.alarms.delivery import Deliveries
from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.runner.single import run
from pipeline.structures.detections import Detections
from pipeline.structures.events import Event
from pipeline.structures.frame import Frame
from pipeline.structures.results import FrameDetections, Result
from pipeline.system import cli
from pipeline.system.errors import UsageError
from run_pipeline import parts
from tests.benchmarks.latency import camera
from tests.benchmarks.options import benchmark_parser, run_benchmark
from tests.support.alarms import broker, has_mosquitto, subscriber, web_receiver

TOPIC = "benchmark"
FRAMES_OF_TARGET = 40
COLUMNS, ROWS = (40, 100, 160, 220, 270), (40, 90, 140, 190)


class Spots:
    """A detector of one frame: pixels far brighter than the others."""

    window = 1
    classes = ("spot",)

    def __init__(self, config: object = None):
        """Takes the section [detector], of which nothing is used."""

    def detect(self, groups: Iterable[tuple[Frame, ...]]) -> Generator[FrameDetections]:
        """Yields the detections of each frame."""
        for group in groups:
            for frame in group:
                grey = frame.image[..., 0] if frame.image.ndim == 3 else frame.image
                marked = grey > grey.mean() + 6 * grey.std()
                _, _, rows, _ = cv2.connectedComponentsWithStats(marked.astype(np.uint8), connectivity=8)
                boxes = np.array([[x, y, x + w, y + h] for x, y, w, h, _ in rows[1:]], np.float32)
                count = len(boxes)
                found = Detections(
                    boxes.reshape(-1, 4), np.full(count, 0.9, np.float32), np.zeros(count, np.int64)
                )
                yield FrameDetections(frame, found, warmup=False)


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


class Row(NamedTuple):
    """Delays to one receiver in seconds."""

    receiver: str
    from_frame: list[float]
    from_event: list[float]


def delays(options: argparse.Namespace) -> tuple[list[Row], str]:
    """Returns the delays to each receiver, and how many events and frames there were."""
    frames = pictures(options.targets)
    arrivals: dict[str, float] = {}
    sent: dict[str, float] = {}
    send = Deliveries.send

    def noted(self: Deliveries, event: Event) -> None:
        sent[f"{event.id}:{event.sequence}"] = time.monotonic()
        send(self, event)

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
        stack.enter_context(mock.patch.object(Deliveries, "send", noted))
        record = run(f"tcp://127.0.0.1:{port}", config, parts(), progress="off", on_result=note)
        if record.failure:
            raise record.failure
        receipts = {"webhook": dict(zip(hook.keys, (one.arrival for one in hook.requests), strict=True))}
        if seen:
            receipts["mqtt"] = {json.loads(one.payload)["key"]: one.arrival for one in seen.messages}
    return [
        Row(
            name, [at - arrivals[key] for key, at in one.items()], [at - sent[key] for key, at in one.items()]
        )
        for name, one in receipts.items()
    ], f"{len(arrivals)} events, {record.dropped.count} of {record.decoded} frames dropped"


def quantile(values: list[float], share: float) -> float:
    """Returns a value of a sorted copy."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def measure(options: argparse.Namespace) -> str:
    """Returns the table of the receivers."""
    rows, account = delays(options)
    lines = [f"{account}, {options.rate:g} frames/s", ""]
    lines += ["receiver  received  from the frame: p50, p95 (ms)  from the event: p50, p95 (ms)"]
    for name, frames, events in rows:
        if not frames:
            raise UsageError("no event came about; try another --detector or a lower --rate")
        cells = [1e3 * quantile(values, share) for values in (frames, events) for share in (0.5, 0.95)]
        texts = [f"{cells[0]:.1f}, {cells[1]:.1f}", f"{cells[2]:.1f}, {cells[3]:.1f}"]
        lines.append(f"{name:<8}  {len(frames):8}  {texts[0]:>29}  {texts[1]:>29}")
    if len(rows) < 2:
        lines += ["", "no mosquitto: MQTT was not measured"]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_benchmark(parser(), measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
