"""Life cycle of tracks that are linked by the overlap of boxes, for SORT, ByteTrack and OC-SORT.

A detection that no track takes starts a TENTATIVE track. Hits in successive frames confirm it; a tentative
track that is missed ends at once or after a frame. A confirmed track without a detection is COASTING until it
is hit again, has coasted for too long, or has left the frame.

Boxes are enlarged about their centres before their overlap is computed: the IoU of two 4×4 boxes is 0.39
after a diagonal shift of one pixel and 0 after four, that of boxes enlarged three times 0.72 and 0.29.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.config.ranges import require_range
from pipeline.structures.boxes import from_centres, iou, to_centres
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.tracks import Tracks
from pipeline.system.errors import UsageError
from trackers.association import assign
from trackers.iou.filter import BoxNoise, States, corrected, predicted, started
from trackers.records import tracks_of

MIN_POSITIVE = 1e-3
"""Lower bound of options that would disable the tracker at 0."""

_RECORD = np.dtype(
    [
        ("id", np.int64),
        ("confirmed", np.bool_),
        ("hits", np.int64),  # number of successive frames with a detection
        ("age", np.float64),  # frame intervals since the first detection
        ("coasted", np.float64),  # frame intervals since the last detection
        ("score", np.float64),
        ("best", np.float64),  # highest score, that of the detection that gave the label
        ("label", np.int64),
    ]
)


@dataclass(frozen=True)
class IouOptions:
    """Options that the trackers by overlap share, each with the symptoms of a bad value."""

    enlarge: float = 3.0
    """Factor by which boxes are enlarged about their centres before their overlap is computed. Too small:
    small targets never overlap from one frame to the next and get no track. Too large: tracks jump to
    neighbours and clutter. 1: as published, for targets that are larger than their motion."""
    birth_hits: int = 3
    """Number of successive frames with a detection that confirm a track. Too small: false alarms become short
    tracks. Too large: targets that are missed now and then never get one."""
    coast: int = 30
    """Maximum number of frame intervals that a confirmed track coasts. Too small: a target that reappears
    gets a new id. Too large: tracks outlive their targets and take over others."""
    position_noise: float = 0.05
    """Standard deviation of a detected box, as a share of the size of the enlarged box. Too small: jitter is
    taken for motion. Too large: tracks lag behind."""
    velocity_noise: float = 0.00625
    """Standard deviation of the change of velocity per frame, as a share of the same size. Too small: tracks
    overshoot in turns. Too large: they coast in wrong directions."""

    def __post_init__(self) -> None:
        self._require("enlarge", low=1, high=100)
        self._require("birth_hits", low=1)
        self._require("coast", low=0)
        self._require("position_noise", "velocity_noise", low=MIN_POSITIVE, high=10)

    def _require(self, *names: str, low: float = 0, high: float = math.inf) -> None:
        """Raises UsageError for the first of the options that is out of range."""
        require_range(self, *names, low=low, high=high, prefix="tracker option ", error=UsageError)


class Links(NamedTuple):
    """What a tracker decides about the detections of a frame."""

    partners: np.ndarray
    """(N,) int64: the detection of each track, -1 for none."""
    seeds: np.ndarray
    """(K,) int64: the detections that start tracks."""


class IouTracker:
    """Tracks boxes by their overlap; a subclass says in `_link` which detection belongs to which track.

    Memory is proportional to the number of current tracks.
    """

    patience = 1
    """Number of successive frames without a detection that a tentative track survives."""
    options: IouOptions

    def __init__(self, options: IouOptions):
        self.options = options
        self._noise = BoxNoise(
            options.position_noise * options.enlarge, options.velocity_noise * options.enlarge
        )
        self.reset()

    def reset(self) -> None:
        """Removes all tracks: the next frame, of any index, starts a new sequence, with ids from 1."""
        self._states = States.empty()
        self._records = np.zeros(0, dtype=_RECORD)
        self._index: int | None = None
        self._time = 0.0
        self._next_id = 1

    def update(self, detections: Detections, frame: Frame) -> Tracks:
        """Returns all current tracks, sorted by id, after the detections in `frame`.

        Only the time, the size and the motion of the frame are used, not its pixels. If frames are missing,
        tracks are predicted over the elapsed number of frame intervals; if it is unknown, all tracks end.
        Raises ValueError if the index does not exceed that of the frame before.
        """
        if frame.gap is not None and not frame.gap.elapsed_known:
            self._keep(np.zeros(len(self._records), dtype=bool))
        self._advance(frame)
        links = self._link(detections)
        tracks = np.flatnonzero(links.partners >= 0)
        self._records["hits"][links.partners < 0] *= frame.shutter_closed  # a hidden frame breaks no series
        self._hit(tracks, detections, links.partners[tracks])
        self._remove_ended(frame)
        self._start(detections, links.seeds)
        return self._tracks()

    def _link(self, detections: Detections) -> Links:
        """Assigns detections to tracks and chooses those that start tracks."""
        raise NotImplementedError

    def _overlap(self, boxes: np.ndarray, detections: Detections) -> np.ndarray:
        """Returns the IoU (N, M) of `boxes` (N, 4) and the detections, all of them enlarged."""
        return iou(self._enlarged(boxes), self._enlarged(detections.boxes))

    def _enlarged(self, boxes: np.ndarray) -> np.ndarray:
        rows = to_centres(np.asarray(boxes, np.float64))
        rows[:, 2:] = np.maximum(rows[:, 2:], MIN_POSITIVE) * self.options.enlarge
        return from_centres(rows)

    def _advance(self, frame: Frame) -> None:
        """Predicts all tracks to the time of the frame, removes overdue ones, and follows the camera."""
        if self._index is not None and frame.index <= self._index:
            raise ValueError(
                f"frame index {frame.index} after {self._index}: call reset() before a new sequence"
            )
        time = frame.index if frame.time_in_frames is None else frame.time_in_frames
        elapsed = 0.0 if self._index is None else max(time - self._time, 0.0)
        self._index, self._time = frame.index, time
        records = self._records
        records["age"] += elapsed
        hidden = frame.shutter_closed  # no target can be detected in such a frame, so none is missed
        records["coasted"] += np.where(records["coasted"] == 0, elapsed, 0) if hidden else elapsed
        limit = np.where(records["confirmed"], self.options.coast, self.patience * frame.stride)
        self._keep(records["coasted"] - frame.stride <= limit)  # this frame is not missed yet
        if len(self._records):
            self._predict(elapsed)
            if frame.motion is not None:
                self._move(frame.motion)

    def _predict(self, elapsed: float) -> None:
        """Predicts all tracks `elapsed` frame intervals ahead."""
        self._states = predicted(self._states, elapsed, self._noise)

    def _move(self, motion: np.ndarray) -> None:
        """Moves all tracks with the camera."""
        self._states = self._states.moved(motion)

    def _hit(self, tracks: np.ndarray, detections: Detections, partners: np.ndarray) -> None:
        """Updates `tracks` (K,) by the detections assigned to them, rows `partners` (K,) of `detections`."""
        if not len(tracks):
            return
        self._correct(tracks, detections.boxes[partners].astype(np.float64))
        records, scores = self._records, detections.scores[partners].astype(np.float64)
        records["coasted"][tracks] = 0
        records["hits"][tracks] += 1
        records["confirmed"] |= records["hits"] >= self.options.birth_hits
        records["score"][tracks] = scores
        better = scores > records["best"][tracks]
        records["best"][tracks[better]] = scores[better]
        records["label"][tracks[better]] = detections.labels[partners[better]]

    def _correct(self, tracks: np.ndarray, boxes: np.ndarray) -> None:
        """Updates the states of `tracks` (K,) by `boxes` (K, 4)."""
        self._states = self._states.replaced(tracks, corrected(self._states.take(tracks), boxes, self._noise))

    def _remove_ended(self, frame: Frame) -> None:
        """Removes tracks that coasted for too long or have left the frame."""
        records = self._records
        limit = np.where(records["confirmed"], self.options.coast, self.patience * frame.stride)
        centres = self._states.mean[:, :2]
        outside = ((centres < 0) | (centres > (frame.width, frame.height))).any(axis=1)
        self._keep((records["coasted"] <= limit) & ~(outside & (records["coasted"] > 0)))

    def _start(self, detections: Detections, seeds: np.ndarray) -> None:
        """Starts a track with each of the rows `seeds` (K,) of `detections`."""
        count = len(seeds)
        if not count:
            return
        born = np.zeros(count, dtype=_RECORD)
        born["id"] = np.arange(self._next_id, self._next_id + count)
        born["hits"] = 1
        born["confirmed"] = self.options.birth_hits == 1
        born["score"] = born["best"] = detections.scores[seeds]
        born["label"] = detections.labels[seeds]
        self._next_id += count
        self._records = np.concatenate([self._records, born])
        self._add(detections.boxes[seeds].astype(np.float64))

    def _add(self, boxes: np.ndarray) -> None:
        """Appends the states of new tracks at `boxes` (K, 4)."""
        self._states = self._states.joined(started(boxes, self._noise))

    def _keep(self, alive: np.ndarray) -> None:
        """Removes the tracks that are not `alive` (N,) bool."""
        if not alive.all():
            self._records = self._records[alive]
            self._states = self._states.take(alive)

    def _tracks(self) -> Tracks:
        """Returns a copy of the current tracks."""
        return tracks_of(self._records, self._states.boxes(), self._states.mean[:, 2:4])


class Assignment:
    """Assigns detections to tracks in several rounds, each of them to what the rounds before left over."""

    def __init__(self, tracks: int, detections: int):
        self.partners = np.full(tracks, -1)
        """(N,) int64: the detection of each track, -1 for none."""
        self.taken = np.zeros(detections, dtype=bool)
        """(M,) bool: whether each detection is assigned."""

    def round(
        self,
        cost: np.ndarray,
        allowed: np.ndarray,
        *,
        tracks: np.ndarray | None = None,
        detections: np.ndarray | None = None,
        limit: float = 0.0,
    ) -> None:
        """Assigns at minimum `cost` (N, M) those that are `allowed` (N, M) bool, among some or all.

        `tracks` (N,) and `detections` (M,), both bool, say which take part; None for all. No pair costs more
        than `limit`.
        """
        free = (self.partners < 0)[:, None] & ~self.taken
        if tracks is not None:
            free &= tracks[:, None]
        if detections is not None:
            free &= detections
        rows, columns = np.nonzero(allowed & free)
        rows, columns = assign(rows, columns, cost[rows, columns], limit)
        self.partners[rows] = columns
        self.taken[columns] = True

    def links(self, seeds: np.ndarray) -> Links:
        """Returns the result; of `seeds` (M,) bool those that are assigned start no tracks."""
        return Links(self.partners, np.flatnonzero(seeds & ~self.taken))
