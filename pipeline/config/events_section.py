"""Sections of the configuration that describe events: rules, and the zones, lines and masks that they name.

A place is a list of points [x, y]: the corners of a zone or a mask in their order around it, or the points of
a line. What needs the size of the frames is checked by `pipeline.events.zones`.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from pipeline.config.ranges import require_range
from pipeline.config.units import byte_count, parse_named
from pipeline.system.errors import as_json, unknown_name

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
"""Names of the days in schedules."""
ALL_MASKS = "all"
"""The entry of a rule's masks that stands for every mask of the configuration."""
DAY_MINUTES = 24 * 60
MAX_ROLL, MAX_CLIP = 600.0, 3600.0
"""Maximum seconds before and after an event in its clip, and of the whole clip."""


class Span(NamedTuple):
    """Times of the day on some days of the week."""

    days: frozenset[int]
    """Days on which a span begins: 0 for Monday to 6 for Sunday."""
    first: int
    """Minute of the day at which it begins."""
    last: int
    """Minute of the day at which it ends; not above `first` if that is on the next day."""

    def holds(self, moment: datetime.datetime) -> bool:
        """Returns whether a local time lies in the span."""
        minute, day = 60 * moment.hour + moment.minute, moment.weekday()
        if self.first < self.last:
            return day in self.days and self.first <= minute < self.last
        return (day in self.days and minute >= self.first) or (
            (day - 1) % 7 in self.days and minute < self.last
        )


def parse_span(text: str) -> Span:
    """Parses 'Mon-Fri 22:00-06:00', 'Sat,Sun' or '06:30-18:00'. Raises ValueError for other texts."""
    words = text.split()
    times = words.pop() if words and ":" in words[-1] else "00:00-24:00"
    try:
        first, last = map(_minute, times.split("-"))
        days = _days(words[0]) if words else frozenset(range(7))
        if not text.strip() or len(words) > 1 or first in (DAY_MINUTES, last) or not last <= DAY_MINUTES:
            raise ValueError
    except ValueError:
        example = "expected days, times or both, such as 'Mon-Fri 22:00-06:00', 'Sat,Sun' or '06:30-18:00'"
        raise ValueError(f"'{text}', {example}") from None
    return Span(days, first, last)


def _minute(text: str) -> int:
    found = re.fullmatch(r"(\d{1,2}):(\d\d)", text, re.ASCII)
    if not found or int(found[2]) > 59:
        raise ValueError
    return 60 * int(found[1]) + int(found[2])


def _days(text: str) -> frozenset[int]:
    """Parses 'Mon-Fri' or 'Sat,Sun'; 'Fri-Mon' goes over the end of the week."""
    days: set[int] = set()
    for part in text.split(","):
        ends = [DAYS.index(name.strip().capitalize()) for name in part.split("-")]
        if len(ends) > 2:
            raise ValueError
        count = (ends[-1] - ends[0]) % 7 + 1
        days |= {(ends[0] + step) % 7 for step in range(count)}
    return frozenset(days)


def require_name(what: str, name: str) -> None:
    """Raises ValueError for a name that is not of letters, digits, - and _."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        if not name:
            raise ValueError(f"{what} has no name; give one of letters, digits, - and _")
        raise ValueError(f"{what} has the name '{name}', expected letters, digits, - and _, at most 64")


def require_points(key: str, points: Any, *, least: int) -> None:
    """Raises ValueError unless `points` is a list of at least `least` pairs of finite numbers."""
    what = f"expected a list of {least} or more points [x, y]"
    if not isinstance(points, (list, tuple)) or isinstance(points, str):
        raise ValueError(f"{key} = {as_json(points)}, {what}")
    for point in points:
        pair = isinstance(point, (list, tuple)) and len(point) == 2
        if not (pair and all(type(value) in (int, float) and math.isfinite(value) for value in point)):
            raise ValueError(f"{key} has the point {as_json(point)}, {what}")
    if len(points) < least:
        raise ValueError(f"{key} has {len(points)} points, {what}")


def require_known(kind: str, names: Sequence[str], known: Iterable[str]) -> None:
    """Raises ValueError for a name that is none of the known ones; it suggests the closest."""
    choices = list(known)
    for name in names:
        if name not in choices:
            raise ValueError(str(unknown_name(kind, name, choices)))


def _require_distinct(names: Sequence[str]) -> None:
    """Raises ValueError if two names are the same, in any case of letters: they are parts of folder names."""
    for place, name in enumerate(names):
        if name.casefold() in map(str.casefold, names[:place]):
            raise ValueError(
                f"two rules have the name '{name}'; names differ in more than the case of letters"
            )


@dataclass(frozen=True)
class RuleConfig:
    """A rule: what a confirmed track has to fulfil so that an event starts.

    All conditions have to hold together in a frame in which the target is detected. A rule starts at most one
    event for each track. Lengths are pixels of the source, whatever `units` says.
    """

    name: str = ""
    """Name of letters, digits, - and _; required."""
    sources: tuple[str, ...] = ()
    """Names of the sources that the rule is for, as in the table of a run over several; empty: all."""
    classes: tuple[str, ...] = ()
    """Names of the classes that the rule is for; empty: all."""
    min_duration: float = 0.5
    """Seconds that have passed since the first detection of the track."""
    hold: float = 0.0
    """Seconds for which all other conditions have been fulfilled without a break, while the target was
    detected in at least half of the frames."""
    min_score: float = 0.0
    """Minimum of the highest score of the track so far, 0 to 1."""
    min_speed: float = 0.0
    """Minimum speed in pixels per second."""
    max_speed: float = 0.0
    """Maximum speed in pixels per second; 0: none."""
    min_size: float = 0.0
    """Minimum length of the longer side of the box in pixels."""
    max_size: float = 0.0
    """Maximum length of the longer side of the box in pixels; 0: none."""
    direction: tuple[float, ...] = ()
    """Two headings in degrees, clockwise from the first to the second, between which the track moves: 0 is up
    in the picture, 90 right, 180 down, 270 left; [315, 45] is upwards. Empty: all."""
    zones: tuple[str, ...] = ()
    """Names of zones; the centre of the box lies in one of them. Empty: anywhere."""
    lines: tuple[str, ...] = ()
    """Names of lines; the centre of the box has crossed one of them. Empty: none needed."""
    crossing: Literal["any", "to-left", "to-right"] = "any"
    """Side to which lines are crossed, as seen by somebody who walks along the line in the picture, from its
    first point to its last."""
    masks: tuple[str, ...] = (ALL_MASKS,)
    """Names of the masks in which tracks are ignored, by the centre of their box; all: every mask."""
    cooldown: float = 0.0
    """Seconds after the start of an event in which the rule starts no other one; each source counts its own.
    A line that is crossed meanwhile does not count."""
    schedule: tuple[str, ...] = ()
    """Days and times of the day at which events start, such as "Mon-Fri 22:00-06:00", in
    `events.time_zone`; a span over midnight belongs to the day on which it begins. Empty: always."""

    def __post_init__(self) -> None:
        require_name("a rule", self.name)
        prefix = f"rule '{self.name}': "
        seconds = ("min_duration", "hold", "cooldown")
        require_range(self, *seconds, low=0, expected="seconds, 0 or more", prefix=prefix)
        require_range(self, "min_score", low=0, high=1, prefix=prefix)
        speeds = ("min_speed", "max_speed")
        require_range(self, *speeds, low=0, expected="pixels per second, 0 or more", prefix=prefix)
        require_range(self, "min_size", "max_size", low=0, expected="pixels, 0 or more", prefix=prefix)
        for what in ("speed", "size"):
            low, high = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if high and low > high:
                raise ValueError(f"{prefix}min_{what} = {low:g} is above max_{what} = {high:g}")
        if self.direction and not (len(self.direction) == 2 and all(0 <= v <= 360 for v in self.direction)):
            expected = "expected two headings from 0 to 360 degrees, such as [315, 45], or none"
            raise ValueError(f"{prefix}direction = {as_json(self.direction)}, {expected}")
        if self.crossing != "any" and not self.lines:
            raise ValueError(f"{prefix}crossing = {self.crossing} needs lines; name one of events.lines")
        for text in self.schedule:
            try:
                parse_span(text)
            except ValueError as error:
                raise ValueError(f"{prefix}schedule = {error}") from error

    @property
    def spans(self) -> tuple[Span, ...]:
        """The schedule; empty: always."""
        return tuple(map(parse_span, self.schedule))


DEFAULT_RULE = RuleConfig(name="any-target")
"""The rule of `--events` if the configuration has none: a confirmed track of half a second."""


@dataclass(frozen=True)
class EventsConfig:
    """Events: messages about confirmed tracks that fulfil a rule; without rules there are none."""

    enabled: bool | Literal["auto"] = "auto"
    """auto: events if there are rules. true: if there are none, by the rule any-target, a confirmed track of
    0.5 s. false: no events."""
    rules: tuple[RuleConfig, ...] = ()
    """The rules; a track may start an event of each."""
    zones: dict = field(default_factory=dict)
    """Areas by name: three or more corners [[x, y], ...] in their order around the area."""
    lines: dict = field(default_factory=dict)
    """Lines by name: two or more points [[x, y], ...]."""
    masks: dict = field(default_factory=dict)
    """Areas by name in which tracks start no events: corners as those of a zone, or the file of an image of
    the size of the frames whose light pixels are ignored. Detections and tracks are not affected."""
    units: Literal["pixels", "shares"] = "pixels"
    """Units of the points of zones, lines and masks: pixels of the source, or shares of width and height."""
    update: float = 10.0
    """Seconds between messages about an event that goes on; 0: only its start and its end are told."""
    time_zone: str = ""
    """Time zone of schedules, such as Europe/Berlin; empty: that of the computer."""
    recorded_at: str = ""
    """Date and time at which a recording begins, such as 2026-11-30 21:58, in this time zone; empty: unknown,
    schedules then hold at all times. Live sources have the time of the computer."""
    evidence: bool = True
    """Keep a clip, pictures and the last message of each event in a folder events/ID."""
    pre_roll: float = 5.0
    """Seconds before the first message of an event that its clip shows; a copied clip begins at the key frame
    before that."""
    post_roll: float = 5.0
    """Seconds after the last message of an event that its clip shows."""
    max_clip: float = 120.0
    """Maximum length of a clip in seconds, pre-roll and post-roll included: it ends then, and the event goes
    on."""
    clip_memory: str = "256MB"
    """Maximum size of the frames, or of the coded packets of a stream, that are kept in memory for the
    pre-roll; if the pre-roll needs more, it is shorter. Video files of H.264 need none."""

    def __post_init__(self) -> None:
        require_range(self, "update", low=0, expected="seconds, or 0 for none")
        self._require_clips()
        for kind, places in (("zone", self.zones), ("line", self.lines), ("mask", self.masks)):
            for name, points in places.items():
                require_name(f"a {kind}", name)
                if not (kind == "mask" and isinstance(points, str) and points):
                    require_points(f"{kind}s.{name}", points, least=2 if kind == "line" else 3)
        if ALL_MASKS in self.masks:
            raise ValueError(f"a mask cannot have the name '{ALL_MASKS}', which stands for every mask")
        _require_distinct([rule.name for rule in self.rules])
        for rule in self.rules:
            require_known(f"zone of rule '{rule.name}'", rule.zones, self.zones)
            require_known(f"line of rule '{rule.name}'", rule.lines, self.lines)
            require_known(f"mask of rule '{rule.name}'", rule.masks, (*self.masks, ALL_MASKS))
        self._require_times()

    def _require_clips(self) -> None:
        require_range(self, "pre_roll", "post_roll", low=0, high=MAX_ROLL, expected="seconds, 0 to 600")
        require_range(self, "max_clip", low=1, high=MAX_CLIP, expected="seconds, 1 to 3600")
        if self.pre_roll >= self.max_clip:
            pair = f"pre_roll = {self.pre_roll:g} is not below max_clip = {self.max_clip:g}"
            raise ValueError(f"{pair}: the clip would end before the event")
        parse_named("clip_memory", self.clip_memory, byte_count)
        if not self.clip_memory:
            raise ValueError("clip_memory is empty, expected a size such as 256MB")

    @property
    def clip_bytes(self) -> int:
        """The limit `clip_memory` in bytes."""
        return parse_named("clip_memory", self.clip_memory, byte_count)

    @property
    def keeps_evidence(self) -> bool:
        """Whether there are events, and evidence of them is kept."""
        return bool(self.active_rules) and self.evidence

    def _require_times(self) -> None:
        try:
            self.zone_info()
        except (ValueError, OSError, LookupError) as error:  # ZoneInfoNotFoundError is a KeyError
            expected = "expected a name such as Europe/Berlin or UTC"
            raise ValueError(f"time_zone = '{self.time_zone}', {expected}") from error
        try:
            self.recording_start()
        except ValueError as error:
            expected = "expected a date and a time such as 2026-11-30 21:58"
            raise ValueError(f"recorded_at = '{self.recorded_at}', {expected}") from error

    @property
    def active_rules(self) -> tuple[RuleConfig, ...]:
        """The rules that are in effect; empty if there are to be no events."""
        if self.enabled is False:
            return ()
        return self.rules or ((DEFAULT_RULE,) if self.enabled is True else ())

    def zone_info(self) -> datetime.tzinfo | None:
        """Returns the time zone of schedules; None for that of the computer. Raises as `ZoneInfo` does."""
        return ZoneInfo(self.time_zone) if self.time_zone else None

    def recording_start(self) -> datetime.datetime | None:
        """Returns the begin of a recording with its time zone; None if it is unknown. Raises ValueError."""
        if not self.recorded_at:
            return None
        moment = datetime.datetime.fromisoformat(self.recorded_at)
        if moment.tzinfo is None and (zone := self.zone_info()):
            return moment.replace(tzinfo=zone)
        return moment.astimezone()
