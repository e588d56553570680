"""Results with given tracks, and engines that watch them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from pipeline.config.parsing import build
from pipeline.config.schema import EventsConfig
from pipeline.events.engine import EventEngine
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame, Gap, SourceInfo
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks, TrackState

RATE = 10
"""Frames per second."""
WIDTH, HEIGHT = 100, 80
SIDE = 4
"""Side of the boxes in pixels."""
STATES = {"t": TrackState.TENTATIVE, "c": TrackState.CONFIRMED, "-": TrackState.COASTING}
IMAGE = np.zeros((HEIGHT, WIDTH), np.uint8)


def camera(live: bool = False) -> SourceInfo:
    """A source of 100x80 pixels and 10 frames per second."""
    return SourceInfo("clip.mp4", WIDTH, HEIGHT, Fraction(RATE), None, 8, 1, live)


def seen(track: int, x: float, y: float = 40, *, state="c", speed=(0.0, 0.0), score=0.9, label=0, **other):
    """One track in one frame: its id, centre, state, speed in pixels per frame, score and label."""
    return {
        "id": track,
        "x": x,
        "y": y,
        "state": state,
        "speed": speed,
        "score": score,
        "label": label,
        **other,
    }


def result(index: int, *rows: dict, pts: float | None = None, gap: Gap | None = None, **frame) -> Result:
    """The result of a frame with these tracks."""
    seconds = Fraction(index, RATE) if pts is None else Fraction(pts)
    side = [row.get("side", SIDE) / 2 for row in rows]
    boxes = [[r["x"] - s, r["y"] - s, r["x"] + s, r["y"] + s] for r, s in zip(rows, side, strict=True)]
    tracks = Tracks(
        np.reshape(boxes, (-1, 4)),
        [row["score"] for row in rows],
        [row["label"] for row in rows],
        [row["id"] for row in rows],
        [STATES[row["state"]] for row in rows],
        np.reshape([row["speed"] for row in rows], (-1, 2)),
        [row.get("age", index) for row in rows],
        np.array([row.get("before", 0) for row in rows]),
    )
    picture = Frame(IMAGE, index, seconds, "clip.mp4", gap=gap, **frame)
    return Result(picture, Detections.empty(), warmup=False, tracks=tracks)


def flight(
    track: int, states: str, *, start=(10.0, 40.0), step=(1.0, 0.0), first=0, **other
) -> dict[int, dict]:
    """Rows by frame of a track that moves straight, with a state for each frame and a space for none."""
    rows = {}
    for place, state in enumerate(states):
        if state != " ":
            x, y = start[0] + place * step[0], start[1] + place * step[1]
            rows[first + place] = seen(track, x, y, state=state, speed=step, age=place, **other)
    return rows


def results(*flights: dict[int, dict], frames: int | None = None, gaps: dict[int, Gap] | None = None):
    """The results of all frames of these flights."""
    count = frames or 1 + max(max(rows) for rows in flights)
    for index in range(count):
        rows = [rows[index] for rows in flights if index in rows]
        yield result(index, *rows, gap=(gaps or {}).get(index))


def engine(
    rules: list[dict] | dict, *, classes=("target",), name="clip", info=None, **section
) -> EventEngine:
    """An engine with these rules; a single one is named r."""
    rows = [{"name": "r", "min_duration": 0, **rules}] if isinstance(rules, dict) else rules
    config = build(EventsConfig, {"rules": rows, **section}, "events.")
    return EventEngine(config, info or camera(), name, classes, run="0123456789ab")


def messages(engine: EventEngine, stream) -> list[tuple[int, str, int]]:
    """Frame in which it was told, phase and track of each message; those of the end have the frame None."""
    told = [(r.frame.index, e.phase, e.track) for r in stream for e in engine.update(r)]
    return told + [(None, event.phase, event.track) for event in engine.finish()]
