"""Rules: which tracks start events, judged frame by frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import NamedTuple

from pipeline.config.events_section import EventsConfig, RuleConfig
from pipeline.events.zones import Places, Point, masks_of
from pipeline.system.errors import unknown_name

_SIDES = {"any": 0, "to-right": 1, "to-left": -1}
SEEN_SHARE = 0.5
"""Least share of the frames of `hold` in which the target is detected: a track that has lost its target is
drawn away by random false alarms, a few of them in many frames."""


class Sight(NamedTuple):
    """A track in one frame, as rules see it. Lengths are source pixels, times seconds."""

    label: str
    """Name of the class."""
    confirmed: bool
    """True if the track is confirmed and its target was detected in this frame."""
    detected: bool
    """True if its target was detected in this frame."""
    box: tuple[float, float, float, float]
    """x1 y1 x2 y2."""
    velocity: tuple[float, float]
    """x and y in pixels per second."""
    score: float
    """Highest score of the track so far."""
    duration: float
    """Seconds since its first detection."""
    before: Point | None
    """Centre of its box when its target was detected before; None in its first frame."""

    @property
    def centre(self) -> Point:
        """Centre of the box."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def speed(self) -> float:
        """Speed in pixels per second."""
        return math.hypot(*self.velocity)

    @property
    def size(self) -> float:
        """Length of the longer side of the box in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])


@dataclass
class Progress:
    """How far a track has fulfilled one rule."""

    since: float | None = None
    """Time from which its conditions hold without a break, in seconds of the engine; None if they do not."""
    frames: int = 0
    """Number of frames since then, with the first one."""
    seen: int = 0
    """Number of those in which the target was detected."""
    crossed: str | None = None
    """Name of the line that it has crossed."""
    started: bool = False
    """True once the rule has started an event for the track."""


class Rule:
    """A rule of one source. It remembers when it last started an event.

    Args:
        config: the rule.
        events: the section of the configuration that it is in.
        places: the places of the source.
        zone: time zone of the schedule; None for that of the computer.
    """

    def __init__(self, config: RuleConfig, events: EventsConfig, places: Places, *, zone: tzinfo | None):
        self.config, self._places, self._zone = config, places, zone
        self._masks, self._spans = masks_of(config, events), config.spans
        self._started: float | None = None

    @property
    def name(self) -> str:
        """Name of the rule."""
        return self.config.name

    def is_active(self, now: float, moment: datetime | None) -> bool:
        """Returns whether the rule may start an event: it has not just done so, and its schedule holds.

        Args:
            now: time in seconds of the engine.
            moment: time of day, with a time zone; None if it is unknown.
        """
        if self._started is not None and now - self._started < self.config.cooldown:
            return False
        if not self._spans or moment is None:
            return True
        local = moment.astimezone(self._zone)
        return any(span.holds(local) for span in self._spans)

    def judge(self, sight: Sight, progress: Progress, now: float, *, active: bool) -> bool:
        """Returns whether a track starts an event in this frame; its progress is changed.

        Frames without a detection of the target start nothing, because its box is only predicted.
        """
        progress.frames += 1
        if not sight.detected:
            return False
        config, masked = self.config, self._places.is_masked(self._masks, sight.centre)
        if config.lines and active and not masked and sight.before is not None and not progress.crossed:
            side = _SIDES[config.crossing]
            progress.crossed = self._places.crossed(config.lines, sight.before, sight.centre, side=side)
        if masked or not self._fits(sight):
            progress.since = None
            return False
        progress.seen += 1
        if progress.since is None or progress.seen < SEEN_SHARE * progress.frames:
            progress.since, progress.frames, progress.seen = now, 1, 1
        held = now - progress.since >= config.hold and sight.duration >= config.min_duration
        return held and sight.confirmed and active and bool(progress.crossed or not config.lines)

    def start(self, now: float) -> None:
        """Begins the cool-down."""
        self._started = now

    def place_of(self, sight: Sight, progress: Progress) -> str | None:
        """Returns the name of the line that a track has crossed, or of the zone in which it is."""
        return progress.crossed or self._places.zone_of(self.config.zones, sight.centre)

    def _fits(self, sight: Sight) -> bool:
        """Returns whether the conditions hold that depend on this frame alone."""
        rule = self.config
        return (
            (not rule.classes or sight.label in rule.classes)
            and sight.score >= rule.min_score
            and rule.min_speed <= sight.speed <= (rule.max_speed or math.inf)
            and rule.min_size <= sight.size <= (rule.max_size or math.inf)
            and (not rule.direction or _is_heading(sight.velocity, *rule.direction))
            and (not rule.zones or self._places.zone_of(rule.zones, sight.centre) is not None)
        )


def heading(velocity: Point) -> float:
    """Returns the direction of a velocity in degrees from 0 to 360: 0 up, 90 right, 180 down, 270 left."""
    return math.degrees(math.atan2(velocity[0], -velocity[1])) % 360


def _is_heading(velocity: Point, first: float, last: float) -> bool:
    """Returns whether a velocity points between two headings, clockwise from the first; never at rest."""
    if not any(velocity):
        return False
    width = last - first if last - first == 360 else (last - first) % 360
    return (heading(velocity) - first) % 360 <= width


def rules_of(config: EventsConfig, source: str) -> tuple[RuleConfig, ...]:
    """Returns the rules that are in effect for a source."""
    return tuple(rule for rule in config.active_rules if not rule.sources or source in rule.sources)


def require_sources(config: EventsConfig, sources: Sequence[str]) -> None:
    """Raises UsageError for a rule that names a source which is not in the run."""
    for rule in config.active_rules:
        for name in rule.sources:
            if name not in sources:
                raise unknown_name(f"source of rule '{rule.name}'", name, sources)


def require_classes(config: EventsConfig, classes: Sequence[str]) -> None:
    """Raises UsageError for a rule that names a class whose detections are not kept."""
    for rule in config.active_rules:
        for name in rule.classes:
            if name not in classes:
                raise unknown_name(f"class of rule '{rule.name}'", name, classes)
