"""Detections of an invented night before a thermal camera that stands, as a detector would give them.

The picture has 320x256 pixels, with sky above row `GROUND`. Whatever is not a flight is false:

- random false alarms anywhere, Poisson distributed, `CALM` a frame and `RAIN` a frame while it rains;
- in rain bursts of one to three seconds, of drops or insects before the lens: `BURST` a frame more, whose
  scores are even up to the highest that the detector gives to targets;
- four lamps on the ground and one on a mast in the sky, which flicker; the brightest have scores of targets;
- a stuck pixel in the sky, which appears or disappears every minute;
- twigs of a tree line around row `TREES`, which sway by 2 to 4 pixels and are often detected in wind;
- digits of a burnt-in clock that change each second;
- pieces of the edges of clouds, which last for seconds and drift with the wind.

The scores of one thing change slowly, so that it is found in many successive frames, or in few. Weather lasts
for minutes. The camera closes its shutter for half a second every three to seven minutes, and one to eight
frames are lost every five minutes.

Scores follow those of `tridos-nano-drone-ir` on four validation clips of drone-ir in which nothing flies
without a label (1257 frames), and are worse: there it finds all targets, with mean scores of 0.50 to 0.59 and
deviations of 0.01 to 0.02 within a clip, and gives 1.5 false detections a frame with a mean score of 0.07 and
none above 0.2, most of them within 4 pixels of one in the frame before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from scipy.signal import lfilter

from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame, Gap, SourceInfo

WIDTH, HEIGHT, GROUND, TREES = 320, 256, 205, 232
PART = 60
"""Seconds that are made at once. The processes are stationary, and each part has its own."""
CALM, RAIN, BURST = 5.0, 15.0, 20.0
"""Random false alarms a frame."""
BURSTS, BURST_SECONDS = 1 / 3, (1.0, 3.0)
"""Number of bursts a minute in rain, and their shortest and longest time."""
FALSE_DECAY = 0.07
"""Mean score of random false alarms above `LEAST`."""
LAMPS, MAST = (0.33, 0.33, 0.38, 0.45, 0.42), (250.0, 170.0)
"""Mean scores of the lamps, and the place of the last one."""
STUCK = (97.0, 61.0)
"""Place of the stuck pixel."""
TWIGS, DIGITS = 12, 6
CLOUDS, CLOUD_SPEEDS = 6.0, (1.0, 8.0)
"""Pieces of clouds a minute under clouds, each for four seconds in the mean; pixels per second."""
SPREAD = 0.08
"""Standard deviation of the scores of one false thing."""
KINDS = (("clear", 0.53, 0.95), ("missed", 0.53, 0.6), ("clear", 0.53, 0.95), ("dim", 0.4, 0.9))
"""Kinds of flights in turn: name, mean score, probability of detection."""
FLIGHT_SPREAD = 0.02
"""Standard deviation of the scores of a flight."""
SPEEDS, FARTHEST = (8.0, 100.0), 165.0
"""Slowest and fastest flight in pixels per second, of even logarithms, and the longest way in pixels."""
SHUTTER_MINUTES, SHUTTER_SECONDS = (3, 7), 0.5
LOST = 1 / 5
"""Number of gaps of lost frames a minute."""
FLIGHTS_AN_HOUR = 1.5
LEAST, HIGHEST = 0.05, 0.65
"""Lowest score that a detector reports, and highest that `tridos-nano-drone-ir` gives."""


class Flight(NamedTuple):
    """A target that crosses the sky."""

    kind: str
    first: int
    """First frame."""
    centres: np.ndarray
    """(N, 2) x y in its frames."""
    size: float
    """Length of the sides of its box in pixels."""
    score: float
    """Mean score."""
    detected: float
    """Probability of detection in a frame."""

    def at(self, frame: int) -> np.ndarray | None:
        """Returns the centre in a frame, (2,); None before and after the flight."""
        here = frame - self.first
        return self.centres[here] if 0 <= here < len(self.centres) else None


class NightFrame(NamedTuple):
    """What a tracker is given in one frame."""

    frame: Frame
    detections: Detections
    false: int
    """Number of the detections that are of no flight."""


class _Spots(NamedTuple):
    """Detections of one part: K rows."""

    frames: np.ndarray
    centres: np.ndarray
    sizes: np.ndarray
    """(K, 2)."""
    scores: np.ndarray
    """Those below `LEAST` are not detected."""
    is_false: bool = True


@dataclass(frozen=True)
class _Weather:
    """What holds in one part."""

    rain: bool
    wind: bool
    clouds: bool
    drift: np.ndarray
    """(2,) motion of clouds in pixels per second."""


class Night:
    """The frames of a night and its flights; a seed gives the same ones each time.

    Args:
        hours: its length.
        rate: frames per second.
        seed: of everything.
    """

    def __init__(self, hours: float, rate: int, seed: int):
        self.rate, self._seed = rate, seed
        self.parts = max(round(hours * 3600 / PART), 1)
        self._length = PART * rate  # frames of a part
        self._weather = self._make_weather()
        self.flights = self._make_flights(max(round(hours * FLIGHTS_AN_HOUR), 1))
        self.info = SourceInfo("night", WIDTH, HEIGHT, Fraction(rate), None, 8, 1, live=True)

    def __iter__(self) -> Iterator[NightFrame]:
        """Yields the frames in order."""
        picture = np.zeros((HEIGHT, WIDTH), np.uint8)  # trackers only use its size
        closed, lost = self._closed(), self._lost()
        hidden = missing = 0
        for part in range(self.parts):
            for index, (detections, false) in enumerate(self._detections(part), part * self._length):
                if lost[index]:
                    missing += 1
                    continue
                if closed[index]:
                    detections, false, hidden = Detections.empty(), 0, hidden + 1
                gap, opens = None, hidden and not closed[index]
                if missing or opens:
                    event: Literal["shutter", "lost"] = "shutter" if opens else "lost"
                    gap = Gap(event, missing + hidden * bool(opens), repeat_previous=True, elapsed_known=True)
                    hidden, missing = hidden * (not opens), 0
                frame = Frame(
                    picture,
                    index,
                    Fraction(index, self.rate),
                    "night",
                    gap=gap,
                    time_in_frames=float(index),
                    seen=picture if closed[index] else None,
                )
                yield NightFrame(frame, detections, false)

    def _rng(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *purpose])

    def _closed(self) -> np.ndarray:
        """Returns whether the shutter is closed in each frame, (N,) bool."""
        rng, count = self._rng(0), round(SHUTTER_SECONDS * self.rate)
        closed, at = np.zeros(self.parts * self._length, bool), 0
        while at < len(closed):
            at += int(rng.uniform(*SHUTTER_MINUTES) * 60 * self.rate)
            closed[at : at + count] = True
        return closed

    def _lost(self) -> np.ndarray:
        """Returns whether each frame is lost, (N,) bool: one to eight together."""
        rng = self._rng(1)
        lost = np.zeros(self.parts * self._length, bool)
        for at in np.flatnonzero(rng.random(len(lost)) < LOST / (60 * self.rate)):
            lost[at : at + int(rng.integers(1, 9))] = True
        return lost

    def _make_weather(self) -> list[_Weather]:
        """Returns what holds in each part: rain in a third of the time, wind and clouds in a half."""
        rng = self._rng(2)
        states = _walks(rng, self.parts, 4, memory=12)
        angles = np.cumsum(rng.normal(0, 0.1, self.parts)) + rng.uniform(0, 2 * math.pi)
        speeds = np.interp(states[:, 3], (-2, 2), CLOUD_SPEEDS)
        return [
            _Weather(rain > 0.43, wind > 0, cloud > 0, speed * np.array([np.cos(angle), np.sin(angle)]))
            for (rain, wind, cloud, _), speed, angle in zip(states, speeds, angles, strict=True)
        ]

    def _make_flights(self, count: int) -> list[Flight]:
        """Returns flights of 3 to 20 s through the sky, one in each of `count` equal parts of the night."""
        rng, flights = self._rng(3), []
        span = self.parts * self._length / count
        for number in range(count):
            kind, score, detected = KINDS[number % len(KINDS)]
            frames = min(round(rng.uniform(3, 20) * self.rate), int(span / 2))
            first = int(span * number + rng.uniform(0, span - frames))
            speed = math.exp(rng.uniform(*np.log(SPEEDS)))  # pixels per second
            speed = min(speed, FARTHEST * self.rate / frames)
            angle = rng.uniform(0, 2 * math.pi)
            step = speed / self.rate * np.array([np.cos(angle), np.sin(angle)])
            turns = np.cumsum(_walks(rng, frames, 2, memory=self.rate), axis=0) * 0.1 * speed / self.rate
            way = step * np.arange(frames)[:, None] + turns
            low = 15 - way.min(axis=0)
            high = np.maximum((WIDTH - 15, GROUND - 15) - way.max(axis=0), low)
            centres = rng.uniform(low, high) + way
            flights.append(Flight(kind, first, centres, rng.uniform(10, 20), score, detected))
        return flights

    def _detections(self, part: int) -> Iterator[tuple[Detections, int]]:
        """Yields the detections of each frame of a part, and the number of those that are false."""
        weather, length = self._weather[part], self._length
        makers = (_random, _bursts, _lamps, _stuck_pixel, _twigs, _clock, _clouds)
        spots = [
            make(self._rng(4, part, number), length, self.rate, weather) for number, make in enumerate(makers)
        ]
        spots += self._flown(part)
        frames = np.concatenate([one.frames for one in spots])
        false = np.concatenate([np.full(len(one.frames), one.is_false) for one in spots])
        centres, sizes = (
            np.concatenate([getattr(one, name) for one in spots]) for name in ("centres", "sizes")
        )
        scores = np.concatenate([one.scores for one in spots]).clip(0, HIGHEST)
        boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
        boxes = boxes.clip(0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
        seen = (scores >= LEAST) & (boxes[:, 2:] - boxes[:, :2] > 1).all(axis=1)
        order = np.flatnonzero(seen)[np.lexsort((-scores[seen], frames[seen]))]
        ends = np.searchsorted(frames[order], np.arange(length + 1))
        for first, last in pairwise(ends):
            rows = order[first:last]
            found = Detections(boxes[rows], scores[rows], np.zeros(len(rows), np.int64))
            yield found, int(false[rows].sum())

    def _flown(self, part: int) -> Iterator[_Spots]:
        """Yields the detections of flights in a part."""
        for number, flight in enumerate(self.flights):
            rng, begin = self._rng(5, number), part * self._length
            count = len(flight.centres)
            scores = flight.score + FLIGHT_SPREAD * _walks(rng, count, 1, memory=8)[:, 0]
            hit = rng.random(count) < flight.detected
            jitter, sizes = rng.normal(0, 0.7, (count, 2)), rng.normal(flight.size, 1, (count, 2))
            here = flight.first + np.arange(count) - begin
            rows = hit & (here >= 0) & (here < self._length)
            yield _Spots(
                here[rows], (flight.centres + jitter)[rows], sizes[rows], scores[rows], is_false=False
            )


def _walks(rng: np.random.Generator, count: int, number: int, *, memory: float) -> np.ndarray:
    """Returns stationary processes (count, number), mean 0 and deviation 1, that forget in `memory` steps."""
    kept = math.exp(-1 / memory)
    noise = rng.normal(0, math.sqrt(1 - kept**2), (count, number))
    noise[0] = rng.normal(0, 1, number)
    return lfilter([1], [1, -kept], noise, axis=0)


def _spots(
    places: np.ndarray, scores: np.ndarray, seen: np.ndarray, size: float, rng: np.random.Generator
) -> _Spots:
    """Returns the detections of N things at `places` (T, N, 2) in the frames where they are `seen` (T, N)."""
    frames, things = np.nonzero(seen)
    sizes = size + rng.normal(0, 1, (len(frames), 2))
    return _Spots(frames, places[frames, things], sizes, scores[frames, things])


def _random(rng: np.random.Generator, length: int, rate: int, weather: _Weather) -> _Spots:
    count = rng.poisson((RAIN if weather.rain else CALM) * length)
    frames = rng.integers(0, length, count)
    return _Spots(
        frames, _anywhere(rng, count), _sizes(rng, count), LEAST + rng.exponential(FALSE_DECAY, count)
    )


def _bursts(rng: np.random.Generator, length: int, rate: int, weather: _Weather) -> _Spots:
    times = rng.uniform(0, PART, rng.poisson(BURSTS * weather.rain))
    inside = np.zeros(length, bool)
    for at in times:
        inside[int(at * rate) : int((at + rng.uniform(*BURST_SECONDS)) * rate)] = True
    frames = np.repeat(np.flatnonzero(inside), rng.poisson(BURST, int(inside.sum())))
    count = len(frames)
    return _Spots(frames, _anywhere(rng, count), _sizes(rng, count), rng.uniform(LEAST, HIGHEST, count))


def _anywhere(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.uniform((0, 0), (WIDTH, HEIGHT), (count, 2))


def _sizes(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.normal(12, 3, (count, 2)).clip(4)


def _lamps(rng: np.random.Generator, length: int, rate: int, weather: _Weather) -> _Spots:
    scene = np.random.default_rng(7)  # the lamps stand at the same places in all nights
    places = scene.uniform((20, GROUND + 8), (WIDTH - 20, HEIGHT - 8), (len(LAMPS), 2))
    places[-1] = MAST
    at = places + rng.normal(0, 0.3, (length, len(LAMPS), 2))
    is_on = _walks(rng, length, len(LAMPS), memory=20) > 0
    seen = is_on & (rng.random(is_on.shape) < 0.7)
    return _spots(at, np.array(LAMPS) + SPREAD * _walks(rng, length, len(LAMPS), memory=30), seen, 8, rng)


def _stuck_pixel(rng: np.random.Generator, length: int, rate: int, weather: _Weather) -> _Spots:
    at = np.array(STUCK) + rng.normal(0, 0.15, (length, 1, 2))
    is_there = np.full((length, 1), rng.random() < 0.5)
    scores = 0.3 + SPREAD / 2 * _walks(rng, length, 1, memory=rate * 10)
    return _spots(at, scores, is_there & (rng.random((length, 1)) < 0.8), 7, rng)


def _twigs(rng: np.random.Generator, length: int, rate: int, weather: _Weather) -> _Spots:
    scene = np.random.default_rng(8)
    places = scene.uniform((0, TREES - 5), (WIDTH, TREES + 5), (TWIGS, 2))
    seconds = np.arange(length)[:, None] / rate
    period, phase = scene.uniform(1.5, 3.0, TWIGS), rng.uniform(0, 2 * math.pi, TWIGS)
    reach = scene.uniform(2, 4, TWIGS) * (1.0 if weather.wind else 0.3)
    sway = reach * np.sin(2 * math.pi * seconds / period + phase)
    at = places + np.stack([sway, 0.2 * sway], axis=2) + rng.normal(0, 0.5, (length, TWIGS, 2))
    scores = (0.25 if weather.wind else 0.15) + SPREAD * _walks(rng, length, TWIGS, memory=20)
    return _spots(at, scores, rng.random(scores.shape) < (0.6 if weather.wind else 0.3), 10, rng)


def _clock(rng: np.random.Generator, length: int, rate: int, weather: _Weather) -> _Spots:
    at = np.stack([8 + 9.0 * np.arange(DIGITS), np.full(DIGITS, 7.0)], axis=1)
    seconds = np.arange(length) // rate
    shown = rng.random((seconds[-1] + 1, DIGITS)) < (0.02, 0.02, 0.03, 0.05, 0.15, 0.4)  # by the digit
    level = 0.35 + SPREAD * rng.normal(0, 1, shown.shape)  # each digit looks different
    scores = level[seconds] + 0.02 * rng.normal(0, 1, (length, DIGITS))
    return _spots(at + rng.normal(0, 0.3, (length, DIGITS, 2)), scores, shown[seconds], 9, rng)


def _clouds(rng: np.random.Generator, length: int, rate: int, weather: _Weather) -> _Spots:
    count = rng.poisson(CLOUDS * weather.clouds)
    begin, life = rng.uniform(0, length, count), rng.exponential(4 * rate, count)
    age = np.arange(length)[:, None] - begin
    start = rng.uniform((0, 0), (WIDTH, GROUND), (count, 2))
    wander = np.cumsum(0.1 * rng.normal(0, 1, (length, count, 2)), axis=0)  # edges change their shape
    at = start + age[..., None] * weather.drift / rate + wander + rng.normal(0, 0.7, (length, count, 2))
    level = rng.normal(0.25, SPREAD, count)
    scores = level + SPREAD / 2 * _walks(rng, length, count, memory=15)
    seen = (age >= 0) & (age < life) & (rng.random(scores.shape) < 0.6)
    return _spots(at, scores, seen, 12, rng)
