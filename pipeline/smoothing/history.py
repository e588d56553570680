"""Collects the detections of each track during a run, and returns its smoothed boxes at the end.

A track begins with its first detection, also if it was tentative then, and ends with its last one; gaps
between that are short for its number of detections are interpolated. If the camera moves, a track is smoothed
in the coordinates of its first frame. The noise of motion is that of `ACCELERATIONS` under which the track is
most likely, so that a calm target is smoothed more than one that turns.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pipeline.smoothing.rts import Pair, smooth_path, smooth_sizes
from pipeline.stages.assignment import track_ids
from pipeline.structures.boxes import from_centres, to_centres
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks, TrackState

ACCELERATIONS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
"""Standard deviations of the change of velocity in a frame interval, in px/frame²."""
START_SPEED = 1.5
"""Standard deviation of the velocity at the start, in target sizes per frame interval."""
POSITION_FLOOR, POSITION_SHARE = 0.5, 0.1
"""Standard deviation of a detected centre: pixels, and a share of the size that is added in quadrature."""
GROWTH = 0.03
"""Standard deviation of the change of width and height in a frame interval, as a share of the size."""
GAP_SHARE = 0.25
"""Longest gap in frames that is filled, as a share of the number of detections of the track. Tracks of
clutter have few detections and long gaps: filling those costs more than the gaps of targets bring."""
MIN_SIZE = 0.01
"""Pixels: lower bound of width and height."""
FORGOTTEN = 300
"""Number of frames after its last detection after which a track that was never confirmed is forgotten."""

_COLUMNS = 6  # of a hit: number of the frame in the history, x1, y1, x2, y2, score


class SmoothedBox(NamedTuple):
    """One row of a smoothed track."""

    frame: int
    """Index of the frame in the source."""
    track: int
    """Id of the track."""
    box: tuple[float, float, float, float]
    """x1 y1 x2 y2 in source pixels."""
    score: float
    """Score of the detection; without one, the lower score of those before and after."""


class TrackHistory:
    """The detections of all tracks of a run so far: 48 bytes for each, and 16 for each frame."""

    def __init__(self) -> None:
        self._frames, self._times = array("q"), array("d")
        self._motions: dict[int, np.ndarray] = {}  # number of the frame in the history → motion of the camera
        self._hits: dict[int, array] = {}  # id → `_COLUMNS` numbers for each detection

    def add(self, result: Result) -> None:
        """Adds the tracks of the next frame."""
        number, frame = len(self._frames), result.frame
        self._frames.append(frame.index)
        self._times.append(frame.index if frame.time_in_frames is None else frame.time_in_frames)
        if frame.motion is not None:
            self._motions[number] = frame.motion
        self._rename(result.tracks)
        assigned = track_ids(result.detections, result.tracks)
        found = result.detections
        for row in np.flatnonzero(assigned):
            self._add_hit(int(assigned[row]), number, found.boxes[row], found.scores[row])
        # trackers of others may return other scores than those of the detections
        tracks = result.tracks[result.tracks.state == TrackState.CONFIRMED]
        for row in np.flatnonzero(~np.isin(tracks.ids, assigned)):
            self._add_hit(int(tracks.ids[row]), number, tracks.boxes[row], tracks.scores[row])
        if number % FORGOTTEN == 0:
            self._forget(number)

    def _rename(self, tracks: Tracks) -> None:
        """Gives the detections of tracks that are confirmed now to their new ids."""
        if tracks.provisional is None:
            return
        for row in np.flatnonzero(tracks.provisional):
            before = self._hits.pop(int(tracks.provisional[row]), None)
            if before is not None:
                self._hits[int(tracks.ids[row])] = before

    def _add_hit(self, track: int, number: int, box: np.ndarray, score: float) -> None:
        self._hits.setdefault(track, array("d")).extend((number, *box.tolist(), score))

    def _forget(self, number: int) -> None:
        """Forgets tentative tracks that have ended."""
        old = number - FORGOTTEN
        ended = [track for track, hits in self._hits.items() if track < 0 and hits[-_COLUMNS] < old]
        for track in ended:
            del self._hits[track]

    def smoothed(self) -> Iterator[SmoothedBox]:
        """Yields the boxes of all confirmed tracks, by frame and then by id."""
        tracks = [rows for track in sorted(self._hits) if track > 0 for rows in self._smoothed_track(track)]
        tracks.sort(key=lambda row: row[:2])
        yield from tracks

    def _smoothed_track(self, track: int) -> Iterator[SmoothedBox]:
        hits = np.array(self._hits[track]).reshape(-1, _COLUMNS)
        numbers = hits[:, 0].astype(int)
        first, last = int(numbers[0]), int(numbers[-1])
        times = self._times[first : last + 1].tolist()
        there, back = self._stabilisation(first, last)
        rows = to_centres(hits[:, 1:5])
        centres = np.einsum("nij,nj->ni", there[numbers - first, :, :2], rows[:, :2])
        centres += there[numbers - first, :, 2]
        size = float(np.median(np.sqrt(np.maximum(rows[:, 2:], MIN_SIZE).prod(axis=1))))
        deviation = float(np.hypot(POSITION_FLOOR, POSITION_SHARE * size))
        path = smooth_path(
            times,
            _by_frame(centres, numbers - first),
            deviation=deviation,
            accelerations=ACCELERATIONS,
            start_speed=START_SPEED * size,
        )
        sizes = smooth_sizes(
            times, _by_frame(rows[:, 2:], numbers - first), deviation=2 * deviation, growth=GROWTH * size
        )
        positions = np.einsum("nij,nj->ni", back[:, :, :2], path.positions) + back[:, :, 2]
        boxes = from_centres(np.concatenate([positions, np.maximum(sizes, MIN_SIZE)], axis=1))
        scores, gaps = _scores_and_gaps(hits[:, 5], numbers - first)
        for number in first + np.flatnonzero(gaps <= GAP_SHARE * len(hits)):
            box, score = boxes[number - first].tolist(), float(scores[number - first])
            yield SmoothedBox(self._frames[number], track, tuple(box), score)

    def _stabilisation(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns maps between the pixel coordinates of frames of the history and of the `first` of them.

        Both are (last − first + 1, 2, 3): from each frame to the first one, and back.
        """
        forwards = np.broadcast_to(np.eye(3), (last - first + 1, 3, 3)).copy()
        for number in range(first + 1, last + 1):
            motion = self._motions.get(number)
            forwards[number - first] = forwards[number - first - 1]
            if motion is not None:
                forwards[number - first, :2] = motion @ forwards[number - first - 1]
        return np.linalg.inv(forwards)[:, :2], forwards[:, :2]


def _by_frame(values: np.ndarray, places: np.ndarray) -> list[Pair | None]:
    """Returns a list with the rows of `values` (N, 2) at `places` (N,), ascending, and None elsewhere."""
    rows: list[Pair | None] = [None] * (int(places[-1]) + 1)
    for place, (first, second) in zip(places.tolist(), values.tolist(), strict=True):
        rows[place] = (first, second)
    return rows


def _scores_and_gaps(scores: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the score of each frame, that of the detection or the lower one of those around, and its gap.

    `scores` (N,) are those of the detections at `places` (N,), ascending. The gap is the number of successive
    frames without a detection to which a frame belongs, 0 for one with a detection.
    """
    frames = np.arange(int(places[-1]) + 1)
    after = np.searchsorted(places, frames)
    before = np.searchsorted(places, frames, side="right") - 1
    gaps = np.where(after == before, 0, places[after] - places[before] - 1)
    return np.minimum(scores[before], scores[after]), gaps
