"""The events of one source: their start, updates and end, from the results of its frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from pipeline.config.events_section import EventsConfig
from pipeline.events.clock import TimeOfDay, in_words, live_time, time_from
from pipeline.events.rules import Progress, Rule, Sight, rules_of
from pipeline.events.zones import Places, Point, resolve_places
from pipeline.sinks.file_names import EVIDENCE
from pipeline.structures.events import Event, Phase
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks, TrackState

RATE_FRAMES = 31
"""Number of recent frames over which the rate of a source is measured."""
MIN_RATE_FRAMES = 6
"""Number of frames from which it is used."""
NEAR = 0.02
"""Relative deviation from the nominal rate up to which that is used."""
_NEW_TIMES = ("jump", "reconnect")
"""Gaps after which presentation times may count from another moment."""


@dataclass
class _OpenEvent:
    """An event that goes on."""

    id: str
    zone: str | None
    messages: int = 0
    told: float = 0.0
    """Time of its last message in seconds of the engine."""


@dataclass
class _Moment:
    """A frame, as messages name it."""

    frame: int
    pts: float
    now: float
    """Seconds of the engine: presentation times without their jumps."""
    moment: datetime | None


@dataclass
class _Track:
    """What is remembered of a track while it is alive."""

    begun: float
    """Presentation time of its first frame."""
    first: float
    """Time of its first frame in seconds of the engine."""
    score: float = 0.0
    centre: Point | None = None
    """Centre of its box in the last frame with a detection."""
    progress: dict[str, Progress] = field(default_factory=dict)
    """By rule."""
    events: dict[str, _OpenEvent] = field(default_factory=dict)
    """Events that go on, by rule."""
    last: tuple[_Moment, Sight] | None = None
    """The last frame in which it was alive."""


class EventEngine:
    """Finds the events of one source in its results, which come in order.

    A rule starts at most one event for a track. The event goes on while the track is confirmed, also without
    detections, and ends with it, as at a scene cut. Ids follow from the run, the rule and the track: the same
    results give the same messages.

    Args:
        config: the section of the configuration.
        info: the source; presentation times and velocities are converted with its rate.
        name: name of the source in messages.
        classes: names of the labels 0, 1, …
        run: identifies the run in ids.
        evidence: whether messages name a folder of evidence.
        time_of_day: time of the frames; None for that of `info` and `config`.

    Raises UsageError if a zone, line or mask does not fit the source.
    """

    def __init__(
        self,
        config: EventsConfig,
        info: SourceInfo,
        name: str,
        classes: Sequence[str],
        *,
        run: str,
        evidence: bool = False,
        time_of_day: TimeOfDay | None = None,
    ):
        rules, zone = rules_of(config, name), config.zone_info()
        self.places: Places = resolve_places(config, rules, info)
        """Zones, lines and masks of the rules, in pixels."""
        self.rules = [Rule(rule, config, self.places, zone=zone) for rule in rules]
        self._update, self._source, self._classes = config.update, name, classes
        self._run, self._evidence = run, evidence
        self._time = time_of_day or (live_time if info.live else time_from(config.recording_start()))
        self._nominal = float(info.rate)
        self._recent: deque[tuple[float, float]] = deque(maxlen=RATE_FRAMES)  # pts, time in frame intervals
        self._tracks: dict[int, _Track] = {}
        self._last: _Moment | None = None

    def watch(self, results: Iterable[Result]) -> Iterator[Result]:
        """Yields the results with their events."""
        for result in results:
            events = self.update(result)
            yield replace(result, events=tuple(events)) if events else result

    def update(self, result: Result) -> list[Event]:
        """Returns the messages of one frame: ends first, then updates and starts in the order of tracks."""
        here = self._last = self._advance(result.frame)
        before, self._tracks = self._tracks, {}
        sights = list(self._sights(result.tracks, before, here))
        events = [event for track_id in sorted(before) for event in self._ends(track_id, before[track_id])]
        for track_id, track, sight, alive in sights:
            if alive:
                track.last = here, sight
                events += self._updates(track_id, track)
            events += self._starts(track_id, track, sight, here)
            if sight.detected:
                track.centre = sight.centre
        return events

    def finish(self) -> list[Event]:
        """Returns the ends of all events that go on, at the end of the source."""
        ended, self._tracks = self._tracks, {}
        return [event for track_id in sorted(ended) for event in self._ends(track_id, ended[track_id])]

    def _advance(self, frame: Frame) -> _Moment:
        """Returns the moment of the next frame."""
        pts, last = round(float(frame.pts), 6), self._last
        intervals = float(frame.index) if frame.time_in_frames is None else frame.time_in_frames
        step = 0.0
        if last is not None:
            step = max(pts - last.pts, 0.0)
            if frame.gap and frame.gap.event in _NEW_TIMES:
                passed = (frame.gap.missing + 1) * frame.stride / self._nominal
                step = passed if frame.gap.event == "jump" or pts <= last.pts else step
                self._recent.clear()
        self._recent.append((pts, intervals))
        return _Moment(frame.index, pts, (last.now if last else 0.0) + step, self._time(frame))

    @property
    def _rate(self) -> float:
        """Frame intervals per second: the nominal rate, unless the frames come at another one."""
        (first, begun), (last, ended) = self._recent[0], self._recent[-1]
        if len(self._recent) < MIN_RATE_FRAMES or last <= first or ended <= begun:
            return self._nominal
        measured = (ended - begun) / (last - first)
        return self._nominal if abs(measured / self._nominal - 1) <= NEAR else measured

    def _sights(
        self, tracks: Tracks, before: dict[int, _Track], here: _Moment
    ) -> Iterator[tuple[int, _Track, Sight, bool]]:
        """Yields id, memory and sight of each track, and whether it is confirmed; moves the memories over."""
        rate = self._rate
        names = [0] * len(tracks) if tracks.provisional is None else tracks.provisional.tolist()
        columns = (
            tracks.ids.tolist(),
            names,
            tracks.boxes.tolist(),
            tracks.scores.tolist(),
            tracks.labels.tolist(),
            tracks.state.tolist(),
            tracks.velocity.tolist(),
            tracks.age.tolist(),
        )
        for track_id, name, box, score, label, state, velocity, age in zip(*columns, strict=True):
            track = before.pop(track_id, None) or before.pop(name, None)
            if track is None:  # a tracker of another kind may give the first frames no track
                track = _Track(round(here.pts - age / rate, 6), here.now - age / rate)
            self._tracks[track_id] = track
            track.score = max(track.score, round(score, 6))  # 0.9 as float32 is less than 0.9
            sight = Sight(
                self._classes[label] if 0 <= label < len(self._classes) else str(label),
                state == TrackState.CONFIRMED,
                state != TrackState.COASTING,
                tuple(box),
                (round(velocity[0], 4) * rate, round(velocity[1], 4) * rate),
                track.score,
                here.now - track.first,
                track.centre,
            )
            yield track_id, track, sight, state != TrackState.TENTATIVE

    def _starts(self, track_id: int, track: _Track, sight: Sight, here: _Moment) -> Iterator[Event]:
        for rule in self.rules:
            progress = track.progress.setdefault(rule.name, Progress())
            if progress.started:
                continue
            active = rule.is_active(here.now, here.moment)
            if rule.judge(sight, progress, here.now, active=active):
                progress.started = True
                rule.start(here.now)
                event_id = f"{self._run}-{rule.name}-{track_id}"
                track.events[rule.name] = _OpenEvent(event_id, rule.place_of(sight, progress))
                yield self._message(track_id, track, rule.name, "start")

    def _updates(self, track_id: int, track: _Track) -> Iterator[Event]:
        assert track.last is not None
        for rule, event in track.events.items():
            if self._update and track.last[0].now - event.told >= self._update:
                yield self._message(track_id, track, rule, "update")

    def _ends(self, track_id: int, track: _Track) -> Iterator[Event]:
        for rule in track.events:
            yield self._message(track_id, track, rule, "end")

    def _message(self, track_id: int, track: _Track, rule: str, phase: Phase) -> Event:
        """Returns the next message of an event, about the last frame in which its track was alive."""
        assert track.last is not None
        (here, sight), event = track.last, track.events[rule]
        sequence, event.messages, event.told = event.messages, event.messages + 1, here.now
        x1, y1, x2, y2 = (round(value, 4) for value in sight.box)
        return Event(
            id=event.id,
            sequence=sequence,
            phase=phase,
            rule=rule,
            source=self._source,
            track=track_id,
            label=sight.label,
            frame=here.frame,
            pts=here.pts,
            time=in_words(here.moment),
            begun=track.begun,
            duration=round(sight.duration, 6),
            score=sight.score,
            box=(x1, y1, x2, y2),
            velocity=(round(sight.velocity[0], 4), round(sight.velocity[1], 4)),
            zone=event.zone,
            evidence=f"{EVIDENCE}/{event.id}" if self._evidence else None,
        )
