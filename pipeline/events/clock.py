"""Time of day of frames: of the computer for live sources, as configured for recordings."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from pipeline.structures.frame import Frame

TimeOfDay = Callable[[Frame], datetime | None]
"""Returns the time of a frame with its time zone; None if it is unknown."""


def live_time(frame: Frame) -> datetime | None:
    """Returns the time of arrival of a frame in UTC; None for a frame of a recording."""
    if frame.arrival is None:
        return None
    return datetime.now(UTC) - timedelta(seconds=time.monotonic() - frame.arrival)


def time_from(start: datetime | None) -> TimeOfDay:
    """Returns the time of the frames of a recording that begins at `start`; None if that is unknown."""

    def recorded(frame: Frame) -> datetime | None:
        return None if start is None else start + timedelta(seconds=float(frame.pts))

    return recorded


def in_words(moment: datetime | None) -> str | None:
    """Returns a time in UTC as ISO 8601 with milliseconds, such as 2026-11-30T20:58:00.040Z."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
