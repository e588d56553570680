"""Detections of invented targets, as a detector of tiny targets would give them, for trackers.

Each of `SCENARIOS` has one difficulty. Scenes last 240 frames at 30 per second and show 320x256 pixels. They
depend on the seed only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from pipeline.structures.annotations import VideoRecord
from pipeline.structures.detections import Detections

WIDTH, HEIGHT, FRAMES, RATE = 320, 256, 240, 30
MERGE = 3.0
"""Targets with centres closer than this many pixels give one detection."""
MOTION_NOISE = 0.2
"""Standard deviation of the errors of the camera's motion in pixels."""
WANDER = 0.03
"""Standard deviation of the change of a target's velocity in px/frame²."""
TIMES = np.arange(FRAMES)[:, None]

Paths = Callable[[np.random.Generator, np.ndarray], np.ndarray]
"""Generator, camera (FRAMES, 2) → centres in the scene (FRAMES, N, 2)."""


class TrackScene(NamedTuple):
    """A sequence for a tracker: what it is given, and the truth."""

    record: VideoRecord
    detections: tuple[Detections, ...]
    """One per frame."""
    motion: tuple[np.ndarray | None, ...]
    """Per frame the motion of the camera since the frame before, as `Frame.motion`; None if it stands."""
    counts_false: bool = True
    """False if things without labels fly in it: its false tracks are not counted."""


@dataclass(frozen=True)
class Scenario:
    """How a scene is made: targets, camera, detector and clutter."""

    name: str
    paths: Paths
    camera: Callable[[np.random.Generator], np.ndarray] | None = None
    """Generator → displacement of the picture's content (FRAMES, 2) in pixels; None for a still camera."""
    size: float = 5.0
    """Width and height of targets in pixels."""
    detected: float = 0.95
    """Probability that a visible target is detected."""
    dim: float = 0.0
    """Share of the targets with scores of 0.1 to 0.4; the others have 0.7 with a deviation of 0.12."""
    false: float = 1.0
    """Mean number of false alarms a frame."""
    strong: bool = False
    """Whether scores of false alarms are uniform up to 0.8; else they fall off quickly from 0.05."""
    bursts: bool = False
    """Whether there are 20 strong false alarms a frame for half a second every two seconds."""
    spots: int = 0
    """Number of flickering spots that stand still in the scene."""
    blinks: bool = False
    """Whether each target is hidden twice for a second."""


def _straight(count: int, speed: float) -> Paths:
    """Almost straight paths through random points of the picture."""

    def paths(rng: np.random.Generator, camera: np.ndarray) -> np.ndarray:
        when = rng.integers(0, FRAMES, count)
        point = rng.uniform((30, 30), (WIDTH - 30, HEIGHT - 30), (count, 2)) - camera[when]
        return point + _velocities(rng, count, speed) * (TIMES - when)[..., None] + _wander(rng, when)

    return paths


def _wander(rng: np.random.Generator, when: np.ndarray) -> np.ndarray:
    """Displacements (FRAMES, N, 2) by random changes of velocity, none at the frames `when` (N,)."""
    way = np.cumsum(np.cumsum(rng.normal(0, WANDER, (FRAMES, len(when), 2)), axis=0), axis=0)
    velocity = np.diff(way, axis=0, append=way[-1:])
    each = np.arange(len(when))
    return way - way[when, each] - velocity[when, each] * (TIMES - when)[..., None]


def _velocities(rng: np.random.Generator, count: int, speed: float) -> np.ndarray:
    angle = rng.uniform(0, 2 * math.pi, count)
    length = speed * rng.uniform(0.7, 1.3, count)
    return np.stack([length * np.cos(angle), length * np.sin(angle)], axis=1)


def _crossings(pairs: int) -> Paths:
    """Pairs of straight paths that cross at an angle of 20 to 60 degrees at almost the same time."""

    def paths(rng: np.random.Generator, camera: np.ndarray) -> np.ndarray:
        when = rng.integers(70, FRAMES - 70, pairs)
        point = rng.uniform((80, 80), (WIDTH - 80, HEIGHT - 80), (pairs, 2)) - camera[when]
        first = _velocities(rng, pairs, 1.0)
        angle = np.radians(rng.uniform(20, 60, pairs))
        cosine, sine = np.cos(angle), np.sin(angle)
        second = np.stack(
            [cosine * first[:, 0] - sine * first[:, 1], sine * first[:, 0] + cosine * first[:, 1]], axis=1
        )
        aside = rng.normal(0, 1, (pairs, 2))
        since = (TIMES - when)[..., None]
        ways = _wander(rng, np.tile(when, 2))
        return np.concatenate([point + first * since, point + aside + second * since], axis=1) + ways

    return paths


def _together(offsets: np.ndarray, groups: int, speed: float) -> Paths:
    """Groups that fly with one velocity each, at `offsets` (N, 2) px, swaying by a pixel."""

    def paths(rng: np.random.Generator, camera: np.ndarray) -> np.ndarray:
        centres = _straight(groups, speed)(rng, camera)
        phase = rng.uniform(0, 2 * math.pi, (groups, len(offsets), 2))
        sway = np.sin(2 * math.pi * TIMES[..., None, None] / 90 + phase)
        return (centres[:, :, None] + offsets + sway).reshape(FRAMES, -1, 2)

    return paths


def _weaving(count: int) -> Paths:
    """Slow paths with a weave of 12 px to both sides in 18 to 30 frames: up to 1.5 px/frame² of change."""

    def paths(rng: np.random.Generator, camera: np.ndarray) -> np.ndarray:
        base = _straight(count, 0.4)(rng, camera)
        angle, phase = rng.uniform(0, 2 * math.pi, (2, count))
        aside = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return base + 12 * np.sin(2 * math.pi * TIMES / rng.uniform(18, 30, count) + phase)[..., None] * aside

    return paths


def _mixed(rng: np.random.Generator, camera: np.ndarray) -> np.ndarray:
    """Straight, crossing and weaving targets."""
    parts = (_straight(4, 1.0), _crossings(2), _weaving(2))
    return np.concatenate([part(rng, camera) for part in parts], axis=1)


def _hand_held(rng: np.random.Generator) -> np.ndarray:
    """A sway of 8 px to each side at 0.4 to 2 Hz."""
    periods, phases = rng.uniform(15, 75, (3, 2)), rng.uniform(0, 2 * math.pi, (3, 2))
    waves = np.sin(2 * math.pi * TIMES[..., None] / periods + phases)
    return 8 / 3 * waves.sum(axis=1)


def _pan(rng: np.random.Generator) -> np.ndarray:
    """3 px a frame."""
    return TIMES * np.array([-3.0, 0.0])


def _stop_and_go(rng: np.random.Generator) -> np.ndarray:
    """6 px a frame for a second, then none for a second."""
    moving = (TIMES // RATE) % 2 == 1
    return np.cumsum(moving * np.array([-6.0, 0.0]), axis=0)


def _vibration(rng: np.random.Generator) -> np.ndarray:
    """An independent displacement in each frame, of a deviation of 2 px."""
    return rng.normal(0, 2, (FRAMES, 2))


def _grid(columns: int, rows: int, spacing: float) -> np.ndarray:
    cells = np.indices((columns, rows)).reshape(2, -1).T
    return (cells - cells.mean(axis=0)) * spacing


_EASY = Scenario("easy", _straight(6, 1.0))
_DIM = replace(_EASY, name="dim", dim=1.0, false=0.0)

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        _EASY,
        replace(_EASY, name="crossings", paths=_crossings(4)),
        replace(_EASY, name="formation", paths=_together(_grid(3, 2, 14.0), 1, 0.7)),
        replace(_EASY, name="pairs", paths=_together(_grid(2, 1, 6.0), 3, 0.7)),
        replace(_EASY, name="bursts", bursts=True),
        replace(_EASY, name="detected-0.7", detected=0.7),
        replace(_EASY, name="detected-0.5", detected=0.5),
        replace(_EASY, name="detected-0.3", detected=0.3),
        replace(_EASY, name="false-0", false=0.0),
        replace(_EASY, name="false-5", false=5.0),
        replace(_EASY, name="false-20", false=20.0),
        replace(_EASY, name="false-20-strong", false=20.0, strong=True),
        replace(_EASY, name="hand-held", camera=_hand_held),
        replace(_EASY, name="pan", paths=_straight(16, 1.0), camera=_pan),
        replace(_EASY, name="stop-and-go", paths=_straight(16, 1.0), camera=_stop_and_go),
        replace(_EASY, name="vibration", camera=_vibration),
        replace(_EASY, name="blink", blinks=True),
        replace(_EASY, name="fast", paths=_straight(12, 8.0), size=4.0),
        replace(_EASY, name="manoeuvre", paths=_weaving(6)),
        _DIM,
        replace(_DIM, name="dim-detected-0.6", detected=0.6),
        replace(_DIM, name="dim-false-5", false=5.0),
        replace(_EASY, name="hot-spots", spots=6),
        replace(_DIM, name="hot-spots-dim", false=1.0, spots=6),
        Scenario(
            "everything", _mixed, camera=_hand_held, detected=0.8, dim=0.4, false=5.0, spots=3, blinks=True
        ),
    )
}


@dataclass
class _Frame:
    """Detections of one frame while they are collected."""

    boxes: list[np.ndarray] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def add(self, centre: np.ndarray, size: np.ndarray, score: float) -> None:
        """Adds a detection that is partly inside the picture."""
        box = np.concatenate([centre - size / 2, centre + size / 2])
        box = box.clip(0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
        if (box[2:] - box[:2] > 1).all():
            self.boxes.append(box)
            self.scores.append(score)

    def detections(self) -> Detections:
        boxes = np.array(self.boxes, np.float32).reshape(-1, 4)
        return Detections(boxes, np.array(self.scores, np.float32), np.zeros(len(boxes), np.int64))


def make_scene(name: str, seed: int) -> TrackScene:
    """Returns the scene of a scenario of `SCENARIOS`, the same for the same seed."""
    scenario = SCENARIOS[name]
    rng = np.random.default_rng([seed, list(SCENARIOS).index(name)])
    camera = scenario.camera(rng) if scenario.camera else np.zeros((FRAMES, 2))
    centres = scenario.paths(rng, camera) + camera[:, None]
    half = scenario.size / 2
    inside = ((centres >= half) & (centres <= np.array([WIDTH, HEIGHT]) - half)).all(axis=2)
    visible = inside & ~_hidden(scenario, rng, centres.shape[1])
    frames = [_Frame() for _ in range(FRAMES)]
    _add_targets(frames, scenario, rng, centres, visible)
    _add_false_alarms(frames, scenario, rng)
    _add_spots(frames, scenario, rng, camera)
    shifts = np.diff(camera, axis=0) + rng.normal(0, MOTION_NOISE, (FRAMES - 1, 2))
    motion = [None, *(np.column_stack([np.eye(2), shift]) for shift in shifts)]
    return TrackScene(
        record=_record(f"{name}-{seed}", centres, visible, half),
        detections=tuple(frame.detections() for frame in frames),
        motion=tuple(motion) if scenario.camera else (None,) * FRAMES,
    )


def _hidden(scenario: Scenario, rng: np.random.Generator, count: int) -> np.ndarray:
    """Whether each target is hidden in each frame, (FRAMES, count): twice for a second if it blinks."""
    if not scenario.blinks:
        return np.zeros((FRAMES, count), bool)
    first = rng.integers(30, 70, count)
    second = first + rng.integers(90, 110, count)
    return ((first <= TIMES) & (first + RATE > TIMES)) | ((second <= TIMES) & (second + RATE > TIMES))


def _add_targets(
    frames: list[_Frame],
    scenario: Scenario,
    rng: np.random.Generator,
    centres: np.ndarray,
    visible: np.ndarray,
) -> None:
    dim = rng.permutation(centres.shape[1]) < round(scenario.dim * centres.shape[1])
    for frame, at, seen in zip(frames, centres, visible, strict=True):
        left = np.flatnonzero(seen & (rng.random(len(seen)) < scenario.detected))
        while len(left):
            near = np.hypot(*(at[left] - at[left[0]]).T) < MERGE
            merged, left = left[near], left[~near]
            bright = float(np.clip(rng.normal(0.7, 0.12), 0.3, 0.98))
            score = float(rng.uniform(0.1, 0.4)) if dim[merged].all() else bright
            size = scenario.size + rng.normal(0, 0.4, 2)
            frame.add(at[merged].mean(axis=0) + rng.normal(0, 0.4, 2), size, score)


def _add_false_alarms(frames: list[_Frame], scenario: Scenario, rng: np.random.Generator) -> None:
    for number, frame in enumerate(frames):
        burst = scenario.bursts and number % 60 >= 45
        for _ in range(rng.poisson(20.0 if burst else scenario.false)):
            strong = rng.uniform(0.05, 0.8)
            weak = min(0.05 + rng.exponential(0.07), 0.8)
            score = float(strong if burst or scenario.strong else weak)
            frame.add(rng.uniform((0, 0), (WIDTH, HEIGHT)), 5 + rng.normal(0, 0.6, 2), score)


def _add_spots(
    frames: list[_Frame], scenario: Scenario, rng: np.random.Generator, camera: np.ndarray
) -> None:
    """Adds spots that are on and off for about 20 frames in turn."""
    places = rng.uniform((20, 20), (WIDTH - 20, HEIGHT - 20), (scenario.spots, 2))
    is_on = rng.random(scenario.spots) < 0.5
    for frame, shift in zip(frames, camera, strict=True):
        is_on ^= rng.random(scenario.spots) < 1 / 20
        for place in places[is_on & (rng.random(scenario.spots) < 0.7)]:
            score = float(np.clip(rng.normal(0.33, 0.08), 0.1, 0.6))
            frame.add(place + shift + rng.normal(0, 0.3, 2), 4 + rng.normal(0, 0.4, 2), score)


def _record(name: str, centres: np.ndarray, visible: np.ndarray, half: float) -> VideoRecord:
    boxes = np.concatenate([centres - half, centres + half], axis=2).astype(np.float32)
    return VideoRecord(
        name=name,
        file_name="",
        width=WIDTH,
        height=HEIGHT,
        image_ids={frame: frame + 1 for frame in range(FRAMES)},
        boxes=tuple(row[seen] for row, seen in zip(boxes, visible, strict=True)),
        labels=tuple(np.zeros(int(seen.sum()), np.int64) for seen in visible),
        instances=tuple(np.flatnonzero(seen) for seen in visible),
        fps=float(RATE),
    )
