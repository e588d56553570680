"""Completes the events.jsonl of a killed run from the results that it had written."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.config.events_section import EventsConfig
from pipeline.events.clock import TimeOfDay
from pipeline.events.engine import EventEngine
from pipeline.events.event_file import EventFile, scan_events
from pipeline.events.rules import rules_of
from pipeline.sinks.jsonl_codec import ValidPrefix, read_records
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.structures.results import Result
from pipeline.system.errors import UsageError

log = logging.getLogger(__name__)


def recorded_engine(
    record: dict[str, Any], config: EventsConfig, info: SourceInfo, paths: Iterable[Path]
) -> EventEngine | None:
    """Returns the engine of a recorded run; None if it had no events or their masks are gone.

    Args:
        record: contents of its run.json.
        config: its section of events.
        info: its source.
        paths: its events.jsonl, or those of its rotated files in order.
    """
    name = record.get("stream", "")
    if not (rules_of(config, name) and record.get("id")):
        return None
    classes, evidence = record["detector"]["classes"], config.keeps_evidence
    clock = recorded_time(record, paths) if info.live else None
    try:
        return EventEngine(
            config, info, name, classes, run=record["id"], evidence=evidence, time_of_day=clock
        )
    except UsageError as error:
        log.warning("events are left as they are: %s", error)
        return None


def recorded_time(record: dict[str, Any], paths: Iterable[Path]) -> TimeOfDay:
    """Returns the time of the frames of a live source, by its last message, else by the start of the run."""
    pts, known = 0.0, record.get("started")
    for path in paths:
        for message in read_records(path, scan_events(path).line_count):
            if isinstance(message.get("time"), str) and isinstance(message.get("pts"), int | float):
                pts, known = float(message["pts"]), message["time"]
    try:
        start = datetime.fromisoformat(str(known)) - timedelta(seconds=pts)
    except (ValueError, OverflowError):
        return lambda frame: None
    start = start if start.tzinfo else start.replace(tzinfo=UTC)

    def time_of(frame: Frame) -> datetime | None:
        return start + timedelta(seconds=float(frame.pts))

    return time_of


def complete_events(
    engine: EventEngine, path: Path, kept: ValidPrefix, results: Iterable[Result], *, finish: bool
) -> Iterator[Result]:
    """Yields results with their events, and appends the messages that an events.jsonl lacks.

    Args:
        engine: the engine of the run.
        path: the file.
        kept: its complete lines.
        results: the results whose messages are in the file.
        finish: whether the open events end with them.

    Raises OutputError if the file cannot be written.
    """
    with EventFile(path, kept=kept, checked=False) as file:
        for result in results:
            events = tuple(engine.update(result))
            file.append(events)
            yield replace(result, events=events)
        if finish:
            file.append(engine.finish())
