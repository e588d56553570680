"""Counts the alarms of an invented night of eight hours, as fast as tracker and rules can.

    python -m tests.benchmarks.night
    python -m tests.benchmarks.night --tracker centre:quiet --hours 1 --list

`tests.support.night_scene` tells what the night holds: a rain of false alarms, lamps, twigs, a clock, clouds,
and flights of 3 to 20 seconds. No picture is made and no network is computed: the detections of each frame go
through tracker and engine of events as in a run. The rules are those of examples/drone_watch.toml, its rule
`drone` without a zone as `drone-anywhere`, and `any-target`, the rule of `--events`. The masks of the
example, a clock and a tree line, hold for all.

An alarm is true if the box of its start is near a flight; a flight is found if it has one. A track is false
if it was confirmed and never near a flight. Seconds are those of a processor.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import trackers
from pipeline.config.events_section import DEFAULT_RULE, EventsConfig
from pipeline.config.parsing import build, load_toml, override, parse_setting
from pipeline.evaluation.detection.tables import format_table
from pipeline.events.clock import time_from
from pipeline.events.engine import EventEngine
from pipeline.stages.tracking import track
from pipeline.structures.events import Event
from pipeline.structures.results import FrameDetections, Result
from pipeline.structures.tracks import TrackState
from pipeline.system import cli
from tests.benchmarks.options import benchmark_parser, run_benchmark
from tests.support.night_scene import Night

TRACKERS = ("centre:quiet", "centre", "centre:sensitive", "centre,birth=evidence")
WATCH = Path(__file__).resolve().parents[2] / "examples" / "drone_watch.toml"
NEAR = 8.0
"""Greatest distance of the centre of a true track from its flight in pixels."""
BEGIN = datetime(2026, 11, 30, 21, 0, tzinfo=UTC)


def parser() -> cli.Parser:
    """Returns the parser of the command."""
    parser = benchmark_parser("tests.benchmarks.night", __doc__)
    add = parser.add_argument
    add("--hours", type=float, default=8.0, help="length of the night (default: 8)")
    add("--rate", type=cli.int_at_least(5), default=25, help="frames per second (default: 25)")
    add("--seed", type=int, default=1)
    add("--tracker", nargs="+", metavar="NAME[,OPTION=VALUE…]", default=list(TRACKERS))
    add("--list", action="store_true", help="also print each false alarm")
    return parser


def rules() -> EventsConfig:
    """Returns the rules of the drone watch, and two without a zone."""
    config = build(EventsConfig, load_toml(WATCH)["events"], "events.")
    drone = next(rule for rule in config.rules if rule.name == "drone")
    anywhere = replace(drone, name="drone-anywhere", zones=())
    return replace(config, rules=(*config.rules, anywhere, DEFAULT_RULE), time_zone="UTC")


@dataclass
class Outcome:
    """What a tracker made of a night."""

    frames: int = 0
    false_detections: int = 0
    tracks: set[int] = field(default_factory=set)
    true_tracks: set[int] = field(default_factory=set)
    found: dict[str, set[int]] = field(default_factory=dict)
    """Numbers of the flights found, by rule."""
    alarms: Counter[str] = field(default_factory=Counter)
    false: list[Event] = field(default_factory=list)
    """Starts of false events."""
    seconds: float = 0.0

    @property
    def false_tracks(self) -> int:
        """Number of confirmed tracks that were never near a flight."""
        return len(self.tracks - self.true_tracks)


def spend(night: Night, tracker: str) -> Outcome:
    """Returns what a tracker, such as 'centre,birth=evidence', makes of a night. Raises UsageError."""
    name, *settings = tracker.split(",")
    options = override({}, [parse_setting(text) for text in settings])
    config, outcome = rules(), Outcome()
    clock = time_from(BEGIN)
    engine = EventEngine(config, night.info, "night", ["target"], run="night", time_of_day=clock)
    outcome.found = {rule.name: set() for rule in config.rules}

    def detections() -> Iterator[FrameDetections]:
        for frame, found, false in night:
            outcome.frames += 1
            outcome.false_detections += false
            yield FrameDetections(frame, found, warmup=False)

    started = time.process_time()
    for result in engine.watch(track(detections(), trackers.build(name, **options))):
        _judge(result, night, outcome)
    outcome.seconds = time.process_time() - started
    return outcome


def _judge(result: Result, night: Night, outcome: Outcome) -> None:
    """Counts the tracks of a frame and the events that start in it."""
    tracks, frame = result.tracks, result.frame.index
    for row in (tracks.state == TrackState.CONFIRMED).nonzero()[0].tolist():
        number = int(tracks.ids[row])
        outcome.tracks.add(number)
        if number not in outcome.true_tracks and near(night, frame, tracks.boxes[row].tolist()) is not None:
            outcome.true_tracks.add(number)
    for event in result.events:
        if event.phase != "start":
            continue
        outcome.alarms[event.rule] += 1
        flight = near(night, frame, event.box)
        if flight is None:
            outcome.false.append(event)
        else:
            outcome.found[event.rule].add(flight)


def near(night: Night, frame: int, box: tuple[float, ...] | list[float]) -> int | None:
    """Returns the number of the flight that a box is near to in a frame; None if there is none."""
    for number, flight in enumerate(night.flights):
        at = flight.at(frame)
        if (
            at is not None
            and math.hypot((box[0] + box[2]) / 2 - at[0], (box[1] + box[3]) / 2 - at[1]) <= NEAR
        ):
            return number
    return None


def measure(options: argparse.Namespace) -> str:
    """Returns the tables. Raises MoteError."""
    night = Night(options.hours, options.rate, options.seed)
    hours = night.parts / 60
    runs = [
        ["tracker", "hours", "frames", "false detections", "tracks", "false tracks", "an hour", "seconds"]
    ]
    rows = [["tracker", "rule", "alarms", "flights found", "false alarms", "an hour"]]
    kinds = [["tracker", *(f"{flight.kind} {n + 1}" for n, flight in enumerate(night.flights))]]
    listed = []
    for tracker in options.tracker:
        outcome = spend(night, tracker)
        counts = (outcome.frames, outcome.false_detections, len(outcome.tracks), outcome.false_tracks)
        rate = f"{outcome.false_tracks / hours:.2f}"
        runs.append([tracker, f"{hours:g}", *map(str, counts), rate, f"{outcome.seconds:.0f}"])
        false = Counter(event.rule for event in outcome.false)
        for rule, found in outcome.found.items():
            cells = (outcome.alarms[rule], f"{len(found)} / {len(night.flights)}", false[rule])
            rows.append([tracker, rule, *map(str, cells), f"{false[rule] / hours:.2f}"])
        seen = outcome.found["any-target"]
        kinds.append([tracker, *("found" if n in seen else "-" for n in range(len(night.flights)))])
        listed += [_line(tracker, event) for event in outcome.false] if options.list else []
    tables = [format_table("runs", runs), format_table("alarms", rows), format_table("flights", kinds)]
    return "\n\n".join([*tables, *(["\n".join(listed)] if listed else [])])


def _line(tracker: str, event: Event) -> str:
    x1, y1, x2, y2 = event.box
    place = f"({(x1 + x2) / 2:.0f}, {(y1 + y2) / 2:.0f})"
    speed = math.hypot(*event.velocity)
    what = f"score {event.score:.2f}, {event.duration:.1f} s, {speed:.1f} px/s"
    return f"{tracker}: {event.rule} at {event.pts:.1f} s, {place}, {what}"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return run_benchmark(parser(), measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
