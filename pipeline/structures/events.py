"""Events: messages about a confirmed track that fulfils a rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Phase = Literal["start", "update", "end"]
"""The first message of an event, one about an event that goes on, and the last one."""


@dataclass(frozen=True)
class Event:
    """One message about an event; the messages of one event have the same `id`.

    Coordinates are source pixels, times are seconds of the source.
    """

    id: str
    """Identifies the event among all runs; equal if a run is resumed."""
    sequence: int
    """Number of the message among those of the event, from 0: `id` and `sequence` identify a message."""
    phase: Phase
    rule: str
    """Name of the rule."""
    source: str
    """Name of the source, without credentials."""
    track: int
    """Id of the track, as in `tracks.txt`."""
    label: str
    """Name of the class."""
    frame: int
    """Index of the frame to which the message belongs."""
    pts: float
    """Presentation time of this frame."""
    time: str | None
    """Time of day of this frame in UTC, ISO 8601 with milliseconds; None if it is unknown."""
    begun: float
    """Presentation time of the first frame of the track."""
    duration: float
    """Seconds from there to this frame."""
    score: float
    """Maximum score of the track so far."""
    box: tuple[float, float, float, float]
    """x1 y1 x2 y2 of the track in this frame."""
    velocity: tuple[float, float]
    """x and y in pixels per second."""
    zone: str | None
    """Name of the zone or line that the rule is about; None if it has none."""
    evidence: str | None
    """Folder with clip and pictures, relative to the output folder; None if none are kept."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the message as a JSON object."""
        table = dict(vars(self))
        table["box"], table["velocity"] = list(self.box), list(self.velocity)
        return table
