"""Paths of tracks: where they were detected, in the pixels of any later frame although the camera moves."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pipeline.structures.results import Result
from pipeline.structures.tracks import TrackState

MAX_POINTS = 4096
"""Maximum number of points of a path; every second one is dropped when there are more."""
_MAX_ZOOM = 1e4
"""Change of scale since the first frame beyond which paths begin anew, since numbers become imprecise."""


class Sight(NamedTuple):
    """A detection of a track, with the frame that shows it."""

    result: Result
    row: int
    """Row of the track among those of the result."""
    score: float
    to_frame: np.ndarray
    """(3, 3): maps the points of paths to the pixels of this frame."""


class Paths:
    """Keeps the centres of all confirmed tracks of one source.

    Points are stored in the pixels of the first frame, to which `Frame.motion` leads back, so that no point
    is touched again when the camera moves.
    """

    def __init__(self) -> None:
        self._to_frame: np.ndarray = np.eye(3)
        self._from_frame: np.ndarray = np.eye(3)
        self._points: dict[int, list[tuple[float, float]]] = {}

    def add(self, result: Result, kept: set[int]) -> dict[int, Sight]:
        """Adds the detections of a frame; returns those of the tracks in `kept`, by id.

        Tracks that are gone are forgotten unless they are in `kept`.
        """
        if result.frame.motion is not None:
            self._move(result.frame.motion)
        tracks = result.tracks
        alive = set(tracks.ids.tolist()) | kept
        self._points = {track: points for track, points in self._points.items() if track in alive}
        sights = {}
        rows = np.flatnonzero(tracks.state == TrackState.CONFIRMED)
        centres = (tracks.boxes[rows, :2] + tracks.boxes[rows, 2:]) / 2
        placed = centres @ self._from_frame[:2, :2].T + self._from_frame[:2, 2]
        for row, track, point in zip(rows.tolist(), tracks.ids[rows].tolist(), placed.tolist(), strict=True):
            points = self._points.setdefault(track, [])
            points.append(tuple(point))
            if len(points) > MAX_POINTS:
                del points[1::2]
            if track in kept:
                sights[track] = self.sight(result, row)
        return sights

    def sight(self, result: Result, row: int) -> Sight:
        """Returns a row of the latest frame as a detection of its track."""
        return Sight(result, row, float(result.tracks.scores[row]), self._to_frame)

    def points(self, track: int) -> np.ndarray:
        """Returns the points of a track, (N, 2), which `Sight.to_frame` maps to pixels."""
        return np.array(self._points.get(track, [])).reshape(-1, 2)

    def _move(self, motion: np.ndarray) -> None:
        self._to_frame = np.vstack([motion, (0, 0, 1)]) @ self._to_frame
        scale = math.sqrt(abs(np.linalg.det(self._to_frame)))
        if not self._points or not 1 / _MAX_ZOOM < scale < _MAX_ZOOM:
            self._to_frame = np.eye(3)
            self._points.clear()
        self._from_frame = np.linalg.inv(self._to_frame)


def on_frame(points: np.ndarray, sight: Sight) -> np.ndarray:
    """Maps the points of a path, (N, 2), to the pixels of a frame."""
    return points @ sight.to_frame[:2, :2].T + sight.to_frame[:2, 2]
