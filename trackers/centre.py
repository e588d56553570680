"""The default tracker, for targets of a few pixels: associates detections with tracks by their centres.

Life cycle of a track: a high-score detection that is assigned to no track starts a TENTATIVE one, except if
it lies in the box of a tracked target, of which it is then a duplicate. A track with enough hits in its first
frames becomes CONFIRMED, otherwise it is removed. A confirmed track without a detection is COASTING: it is
predicted until it is hit again, has been coasting for too long, or has left the frame. Low-score detections
are assigned to confirmed tracks only, in a second pass (Zhang et al., "ByteTrack", ECCV 2022, section 3, with
centre distances in place of IoU). M-of-N confirmation is described by Blackman and Popoli, "Design and
Analysis of Modern Tracking Systems", 1999, chapter 6. Class labels are not used in the association, because
those of tiny targets are unstable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.config.ranges import require_range
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.tracks import Tracks, TrackState
from pipeline.system.errors import UsageError
from trackers.association import assign, association_cost, gate_radius, squared_distances
from trackers.kalman import KalmanFilter, Noise, centres_and_sizes

MAX_LABEL_VOTE = 5.0
"""Upper bound of a label's vote, in hits of score 1: one contrary hit more changes any label."""

MIN_POSITIVE = 1e-3
"""Lower bound of options that are divisors, or that would disable the tracker at 0."""

_RECORD = np.dtype(
    [
        ("id", np.int64),
        ("confirmed", np.bool_),
        ("hits", np.int64),  # number of frames with a detection
        ("frames", np.int64),  # number of processed frames since the first detection, including it
        ("age", np.float64),  # frame intervals since the first detection
        ("coasted", np.float64),  # frame intervals since the last detection
        ("score", np.float64),
        ("label", np.int64),
        ("vote", np.float64),  # support of the label, see _vote
    ]
)


@dataclass(frozen=True)
class CentreOptions:
    """Options of `CentreTracker`, each with the symptoms of a bad value.

    The defaults were tuned on infrared clips of 320×256 pixels at 30 frames per second with targets of 8 to
    35 pixels. Values that scale with the target or the frame are fractions of its size; only `acceleration`
    and `position_floor` are in pixels.
    """

    high_score: float = 0.45
    """Detections of this score or more start tracks and are assigned first. Too low: clutter becomes tracks.
    Too high: faint targets never get a track although they are detected in every frame."""
    low_score: float = 0.3
    """Detections from this score up to `high_score` are assigned to confirmed tracks; lower ones are ignored.
    Too low: the track of a hidden target drifts along clutter. Too high: tracks of fading targets coast and
    end."""
    birth_hits: int = 3
    """Number of hits that confirm a track. Too small: false alarms become short tracks. Too large: tracks
    appear late, and those of briefly visible targets never do."""
    birth_window: int = 5
    """Number of frames, including the first one, in which those hits must occur; skipped frames do not count.
    Too small: a target that is missed once starts again. Too large: unrelated false alarms form a track."""
    coast: int = 30
    """Maximum number of frame intervals that a confirmed track coasts. Too small: a target that reappears
    from behind a cloud gets a new id. Too large: tracks outlive their targets and may take over others."""
    gate: float = 4.5
    """Radius of the gate in standard deviations of the innovation; in pixels it grows with the time since the
    last hit. Too small: a target that turns gets a new id. Too large: tracks jump to clutter."""
    max_gate: float = 0.1
    """Maximum radius of a gate, as a fraction of the frame's diagonal. Too small: fast targets get no track,
    and none is recovered after a gap. Too large: coasting tracks take detections from anywhere."""
    acceleration: float = 0.5
    """Standard deviation of the change of velocity per frame in px/frame², including camera shake. Too small:
    tracks overshoot in turns and lose the target. Too large: boxes jitter and coast in wrong directions."""
    growth: float = 0.05
    """Standard deviation of the change of width and height per frame, as a fraction of the size. Too small:
    boxes lag behind targets that approach. Too large: the size of boxes jitters."""
    start_speed: float = 1.5
    """Standard deviation of the velocity after the first detection, in target sizes per frame. Too small:
    fast targets are detected but never get a track. Too large: distant false alarms form tracks."""
    position_floor: float = 0.8
    """Standard deviation of a detected centre in pixels, for the smallest targets. Too small: jitter is taken
    for motion. Too large: tracks respond late to motion."""
    position_share: float = 0.15
    """Standard deviation that is added in quadrature for larger targets, as a fraction of the size. Too
    small: tracks of large targets jitter. Too large: they lag behind."""

    def __post_init__(self):
        bounds = {
            "high_score": (0, 1),
            "low_score": (0, self.high_score),
            "birth_hits": (1, math.inf),
            "birth_window": (self.birth_hits, math.inf),
            **dict.fromkeys(("gate", "max_gate", "position_floor"), (MIN_POSITIVE, math.inf)),
        }
        for name in vars(self):
            low, high = bounds.get(name, (0, math.inf))
            require_range(self, name, low=low, high=high, prefix="tracker option ", error=UsageError)


class CentreTracker:
    """Tracks targets by their centres; the module describes the life cycle, `CentreOptions` the options.

    Memory is proportional to the number of current tracks: no history is kept. A track gets its id at the
    first detection, so that its rows from before the confirmation can be identified later. The ids of
    confirmed tracks therefore have gaps.
    """

    _filter: KalmanFilter
    _records: np.ndarray
    """(N,) structured array of dtype `_RECORD`, in the order of the filter's rows."""
    _index: int | None
    """Index of the last frame."""
    _time: float
    """Time of the last frame, in frame intervals."""
    _next_id: int

    def __init__(self, options: CentreOptions | None = None):
        self.options = options or CentreOptions()
        self.reset()

    def reset(self) -> None:
        """Removes all tracks: the next frame, of any index, starts a new sequence, with ids from 1."""
        options = self.options
        self._filter = KalmanFilter(
            Noise(
                acceleration=options.acceleration,
                growth=options.growth,
                start_speed=options.start_speed,
                position_floor=options.position_floor,
                position_share=options.position_share,
            )
        )
        self._records = np.zeros(0, dtype=_RECORD)
        self._index = None
        self._time = 0.0
        self._next_id = 1

    def update(self, detections: Detections, frame: Frame) -> Tracks:
        """Returns all current tracks, sorted by id, after the detections in `frame`.

        Only the time and the size of the frame are used, not its pixels. If frames are missing, tracks are
        predicted over the elapsed number of frame intervals, which may be fractional; if it is unknown, all
        tracks end. The result includes tentative tracks; tracks without a detection in this frame have their
        predicted box. Raises ValueError if the index does not exceed that of the frame before.
        """
        if frame.gap is not None and not frame.gap.elapsed_known:
            self._keep(np.zeros(len(self._records), dtype=bool))
        time = frame.index if frame.time_in_frames is None else frame.time_in_frames
        self._advance(frame, time)
        centres, _ = centres_and_sizes(detections.boxes)
        partners, taken = self._associate(centres, detections.scores, math.hypot(frame.width, frame.height))
        tracks = np.flatnonzero(partners >= 0)
        self._correct(tracks, detections, partners[tracks])
        self._remove_ended(frame)
        self._start(detections, self._seeds(detections, taken))
        return self._tracks()

    def _advance(self, frame: Frame, time: float) -> None:
        """Predicts all tracks to the frame at `time`, in frame intervals; removes overdue ones.

        In a frame that shows the closed shutter no target can be detected, so none is missed.
        """
        index, hidden = frame.index, frame.shutter_closed
        if self._index is not None and index <= self._index:
            raise ValueError(f"frame index {index} after {self._index}: call reset() before a new sequence")
        elapsed = 0.0 if self._index is None else time - self._time
        self._index, self._time = index, time
        records = self._records
        records["age"] += elapsed
        records["coasted"] += np.where(records["coasted"] == 0, elapsed, 0) if hidden else elapsed
        records["frames"] += not hidden
        # this frame is not missed yet; birth windows count frames, so tentative tracks need a limit in time
        options = self.options
        limit = np.where(records["confirmed"], options.coast, options.birth_window * frame.stride)
        self._keep(records["coasted"] - frame.stride <= limit)
        self._filter.predict(elapsed)

    def _associate(
        self, centres: np.ndarray, scores: np.ndarray, diagonal: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Assigns detections to tracks.

        `centres` (M, 2) in pixels and `scores` (M,) are those of the detections, `diagonal` that of the frame
        in pixels. Returns the index of each track's detection or -1, (N,) int64, and whether each detection
        is assigned, (M,) bool.
        """
        options = self.options
        confirmed = self._records["confirmed"]
        partners = np.full(len(confirmed), -1)
        taken = np.zeros(len(scores), dtype=bool)
        if not len(partners) or not len(taken):
            return partners, taken
        variance = self._filter.innovation_variance()
        squared = squared_distances(self._filter.mean[:, :2], centres)
        radius = gate_radius(variance, deviations=options.gate, cap=options.max_gate * diagonal)
        near = squared <= radius[:, None] ** 2
        cost = association_cost(squared, variance)
        high = scores >= options.high_score
        low = (scores >= options.low_score) & ~high
        # confirmed tracks come first, so that tentative ones cannot take their detections
        for chosen, candidates in ((confirmed, high), (confirmed, low), (~confirmed, high)):
            allowed = near & (chosen & (partners < 0))[:, None] & (candidates & ~taken)
            rows, columns = assign(cost, allowed)
            partners[rows] = columns
            taken[columns] = True
        return partners, taken

    def _correct(self, tracks: np.ndarray, detections: Detections, partners: np.ndarray) -> None:
        """Updates `tracks` (K,) by the detections assigned to them, rows `partners` (K,) of `detections`."""
        if not len(tracks):
            return
        self._filter.update(tracks, detections.boxes[partners])
        records = self._records
        records["coasted"][tracks] = 0
        records["hits"][tracks] += 1
        records["confirmed"] |= records["hits"] >= self.options.birth_hits
        scores = detections.scores[partners].astype(np.float64)
        records["score"][tracks] = scores
        records["label"][tracks], records["vote"][tracks] = _vote(
            records["label"][tracks], records["vote"][tracks], detections.labels[partners], scores
        )

    def _remove_ended(self, frame: Frame) -> None:
        """Removes tracks that coasted for too long, can no longer be confirmed, or have left the frame."""
        records, options = self._records, self.options
        if not len(records):
            return
        overdue = records["confirmed"] & (records["coasted"] > options.coast)
        possible_hits = records["hits"] + options.birth_window - records["frames"]
        hopeless = ~records["confirmed"] & (possible_hits < options.birth_hits)
        centres = self._filter.mean[:, :2]
        outside = ((centres < 0) | (centres > (frame.width, frame.height))).any(axis=1)
        self._keep(~(overdue | hopeless | (outside & (records["coasted"] > 0))))

    def _seeds(self, detections: Detections, taken: np.ndarray) -> np.ndarray:
        """Returns the rows (K,), ascending, of detections that start tracks; `taken` (M,) bool are assigned.

        A detection whose centre lies in the box of an assigned one, or of one of higher score that starts a
        track, is a duplicate that non-maximum suppression has left: it starts none.
        """
        high = np.flatnonzero((detections.scores >= self.options.high_score) & ~taken)
        claimed, seeds = detections.boxes[taken], []
        for row in high[np.argsort(-detections.scores[high], kind="stable")]:
            left, top, right, bottom = detections.boxes[row]
            x, y = (left + right) / 2, (top + bottom) / 2
            inside = (claimed[:, 0] <= x) & (x < claimed[:, 2]) & (claimed[:, 1] <= y) & (y < claimed[:, 3])
            if not inside.any():
                claimed = np.concatenate([claimed, detections.boxes[row : row + 1]])
                seeds.append(row)
        return np.sort(np.array(seeds, dtype=np.int64))

    def _start(self, detections: Detections, seeds: np.ndarray) -> None:
        """Starts a track with each of the rows `seeds` (K,) of `detections`."""
        count = len(seeds)
        if not count:
            return
        born = np.zeros(count, dtype=_RECORD)
        born["id"] = np.arange(self._next_id, self._next_id + count)
        born["hits"] = born["frames"] = 1
        born["confirmed"] = self.options.birth_hits == 1
        born["score"] = born["vote"] = detections.scores[seeds]
        born["label"] = detections.labels[seeds]
        self._next_id += count
        self._records = np.concatenate([self._records, born])
        self._filter.add(detections.boxes[seeds])

    def _keep(self, alive: np.ndarray) -> None:
        """Removes the tracks that are not `alive` (N,) bool."""
        if not alive.all():
            self._records = self._records[alive]
            self._filter.keep(alive)

    def _tracks(self) -> Tracks:
        """Returns a copy of the current tracks."""
        records = self._records
        if not len(records):
            return Tracks.empty()
        state_if_confirmed = np.where(records["coasted"] == 0, TrackState.CONFIRMED, TrackState.COASTING)
        return Tracks(
            boxes=self._filter.boxes(),
            scores=records["score"],
            labels=records["label"],
            ids=records["id"],
            state=np.where(records["confirmed"], state_if_confirmed, TrackState.TENTATIVE),
            velocity=self._filter.mean[:, 2:4],
            age=np.rint(records["age"]),
        )


def _vote(
    labels: np.ndarray, votes: np.ndarray, detected: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns `labels` and their `votes` (K,) after a hit each, of label `detected` and score `scores` (K,).

    The running majority vote of Boyer and Moore, which needs no count per class: a hit of the same label adds
    its score to the vote, another one subtracts it and takes over if the vote becomes negative.
    """
    votes = votes + np.where(detected == labels, scores, -scores)
    return np.where(votes < 0, detected, labels), np.minimum(np.abs(votes), MAX_LABEL_VOTE)
