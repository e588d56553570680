"""The default tracker, made for targets of a few pixels: joins detections to tracks by their centres alone.

The life of a track: a detection of high score that fits no track starts one, TENTATIVE, unless it lies on a
target that has one: then it is a second box of the same. Hit in enough of its first frames a track is
CONFIRMED, else dropped. A confirmed track that finds no detection is COASTING along its
velocity until it is hit again, has gone unseen for too long, or has left the picture. Low scores may keep a
confirmed track going but neither start nor confirm one (two passes as in Zhang et al., "ByteTrack", ECCV
2022, section 3, with centre distances in place of overlaps). M-of-N birth is described by Blackman and
Popoli, "Design and Analysis of Modern Tracking Systems", 1999, chapter 6. Class labels play no part in
joining: on tiny targets they flicker.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.tracks import Tracks, TrackState
from pipeline.system.errors import UsageError
from trackers.association import assign, association_cost, gate_radius, squared_distances
from trackers.kalman import KalmanFilter, Noise, centres_and_sizes

MAX_LABEL_VOTE = 5.0
"""Bound of a label's standing, in hits of score 1: so many contrary hits, and one, change any label."""

MIN_POSITIVE = 1e-3
"""Least value of the options that something is divided by or that would switch everything off at zero."""

_RECORD = np.dtype(
    [
        ("id", np.int64),
        ("confirmed", np.bool_),
        ("hits", np.int64),  # frames in which it was detected
        ("looks", np.int64),  # frames in which it could have been, the first included
        ("age", np.float64),  # frame intervals since the first detection
        ("unseen", np.float64),  # frame intervals since the last one
        ("score", np.float64),
        ("label", np.int64),
        ("standing", np.float64),  # how firmly the label is held, see _vote
    ]
)


@dataclass(frozen=True)
class CentreOptions:
    """The knobs of `CentreTracker`, each with what is seen when it is set badly.

    The defaults were tuned on infrared clips of 320×256 pixels at 30 frames per second with targets of 8 to
    35 pixels. Whatever scales with the target or the frame is given as a share of it; only `acceleration` and
    `position_floor` are in pixels.
    """

    high_score: float = 0.45
    """Detections of this score or more start tracks and are joined first. Too small: clutter becomes tracks.
    Too big: faint targets never get a track although they are detected in every frame."""
    low_score: float = 0.3
    """Detections from here up to `high_score` keep confirmed tracks going; those below are not looked at. Too
    small: a track whose target is hidden wanders off along the clutter. Too big: tracks of fading targets
    coast and break."""
    birth_hits: int = 3
    """Hits that confirm a track. Too small: false alarms flash up as tracks. Too big: tracks appear late, and
    targets seen briefly never do."""
    birth_window: int = 5
    """Frames in which those hits must fall, the first one included; skipped frames are not counted. Too
    small: a target missed once has to start again. Too big: unrelated false alarms add up to a track."""
    coast: int = 30
    """Frame intervals that a confirmed track goes on unseen. Too small: the target comes back from behind a
    cloud with a new id. Too big: ghosts fly on after targets have gone, and may snatch another one."""
    gate: float = 4.5
    """Standard deviations that a detection may lie off the prediction; in pixels the gate so grows with the
    time since the last hit. Too small: a target that turns gets a new id. Too big: tracks jump to clutter."""
    max_gate: float = 0.1
    """No gate is wider than this share of the frame's diagonal. Too small: fast targets get no track, and
    none is found again after a gap. Too big: tracks long unseen take detections from anywhere."""
    acceleration: float = 0.5
    """Expected change of velocity from frame to frame in px/frame², camera shake included. Too small: tracks
    overshoot in turns and lose the target. Too big: boxes tremble with the detections and coast astray."""
    growth: float = 0.05
    """Expected change of width and height from frame to frame, as a share of the size. Too small: boxes lag
    behind targets that approach. Too big: boxes pump."""
    start_speed: float = 1.5
    """Expected speed of a target at first sight, in its own sizes per frame. Too small: fast targets are
    detected but never get a track. Too big: false alarms that are far apart are joined to tracks."""
    position_floor: float = 0.8
    """Expected error of a detected centre in pixels, for the smallest targets. Too small: jitter is taken for
    motion. Too big: tracks answer late to real motion."""
    position_share: float = 0.15
    """What the size of a target adds to that error, as a share of the size. Too small: large targets have
    trembling tracks. Too big: their tracks drag behind."""

    def __post_init__(self):
        bounds = {
            "high_score": (0, 1),
            "low_score": (0, self.high_score),
            "birth_hits": (1, math.inf),
            "birth_window": (self.birth_hits, math.inf),
            **dict.fromkeys(("gate", "max_gate", "position_floor"), (MIN_POSITIVE, math.inf)),
        }
        for name, value in vars(self).items():
            low, high = bounds.get(name, (0, math.inf))
            if not (low <= value <= high and math.isfinite(value)):
                allowed = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
                raise UsageError(f"tracker option {name} = {value}, expected {allowed}")


class CentreTracker:
    """Follows targets by their centres: a track's life is told above, the knobs are in `CentreOptions`.

    Memory is bounded by the tracks alive: no history is kept. An id is given at the first detection and stays
    with the track for life, so that its rows from before it was confirmed can be found again and trails have
    no seam; the price is that the ids of confirmed tracks have gaps where tentative ones died.
    """

    def __init__(self, options: CentreOptions | None = None):
        self.options = options or CentreOptions()
        self.reset()

    def reset(self) -> None:
        """Forget all tracks: the next frame, of whatever index, starts a new sequence, with ids from 1."""
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
        self._index: int | None = None
        self._at = 0.0  # time of that frame, in frame intervals
        self._next_id = 1

    def update(self, detections: Detections, frame: Frame) -> Tracks:
        """All tracks alive in `frame`, in the order of their ids, given what was detected in it.

        Only the frame's place in time and its size are looked at. Frames may be missing: everything is
        predicted over the frame intervals that went by, which need not be whole ones. Where nobody knows how
        many did, what was followed is lost, and all tracks end. Tentative tracks are among the output with
        their state, and a track not hit in this frame has its predicted box. Raises ValueError where the
        index does not exceed the one before.
        """
        if frame.gap is not None and not frame.gap.elapsed_known:
            self._keep(np.zeros(len(self._records), dtype=bool))
        self._advance(frame.index, frame.index if frame.time_in_frames is None else frame.time_in_frames)
        centres, _ = centres_and_sizes(detections.boxes)
        joined, taken = self._associate(centres, detections.scores, math.hypot(frame.width, frame.height))
        tracks = np.flatnonzero(joined >= 0)
        self._hit(tracks, detections, joined[tracks])
        self._bury(frame)
        self._start(detections, self._seeds(detections, taken))
        return self._tracks()

    def _advance(self, index: int, at: float) -> None:
        """Predict all tracks to the frame of this `index`, dropping those whose time ran out on the way.

        `time_in_frames` is its time in frame intervals.
        """
        if self._index is not None and index <= self._index:
            raise ValueError(f"frame index {index} after {self._index}: call reset() before a new sequence")
        elapsed = 0.0 if self._index is None else at - self._at
        self._index, self._at = index, at
        records = self._records
        records["age"] += elapsed
        records["unseen"] += elapsed
        records["looks"] += 1
        # this frame is not missed yet; birth windows count looks, so tentative tracks need a limit in time
        patience = np.where(records["confirmed"], self.options.coast, self.options.birth_window)
        self._keep(records["unseen"] - 1 <= patience)
        self._filter.predict(elapsed)

    def _associate(
        self, centres: np.ndarray, scores: np.ndarray, diagonal: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Per track (N,) the index of its detection or -1; per detection (M,) bool whether it has a track."""
        options = self.options
        confirmed = self._records["confirmed"]
        joined = np.full(len(confirmed), -1)
        taken = np.zeros(len(scores), dtype=bool)
        if not len(joined) or not len(taken):
            return joined, taken
        variance = self._filter.innovation_variance()
        squared = squared_distances(self._filter.mean[:, :2], centres)
        reach = gate_radius(variance, deviations=options.gate, cap=options.max_gate * diagonal)
        near = squared <= reach[:, None] ** 2
        cost = association_cost(squared, variance)
        high = scores >= options.high_score
        low = (scores >= options.low_score) & ~high
        # confirmed tracks choose first: what is known must not be torn apart by what is only suspected
        for chosen, candidates in ((confirmed, high), (confirmed, low), (~confirmed, high)):
            allowed = near & (chosen & (joined < 0))[:, None] & (candidates & ~taken)
            rows, columns = assign(cost, allowed)
            joined[rows] = columns
            taken[columns] = True
        return joined, taken

    def _hit(self, tracks: np.ndarray, detections: Detections, partners: np.ndarray) -> None:
        """Correct `tracks` (K,) by the detections joined to them: rows `partners` (K,) of `detections`."""
        if not len(tracks):
            return
        self._filter.update(tracks, detections.boxes[partners])
        records = self._records
        records["unseen"][tracks] = 0
        records["hits"][tracks] += 1
        records["confirmed"] |= records["hits"] >= self.options.birth_hits
        scores = detections.scores[partners].astype(np.float64)
        records["score"][tracks] = scores
        records["label"][tracks], records["standing"][tracks] = _vote(
            records["label"][tracks], records["standing"][tracks], detections.labels[partners], scores
        )

    def _bury(self, frame: Frame) -> None:
        """Drop tracks that went unseen for too long, cannot be confirmed any more, or left the picture."""
        records, options = self._records, self.options
        if not len(records):
            return
        overdue = records["confirmed"] & (records["unseen"] > options.coast)
        hits_in_reach = records["hits"] + options.birth_window - records["looks"]
        hopeless = ~records["confirmed"] & (hits_in_reach < options.birth_hits)
        centres = self._filter.mean[:, :2]
        outside = ((centres < 0) | (centres > (frame.width, frame.height))).any(axis=1)
        self._keep(~(overdue | hopeless | (outside & (records["unseen"] > 0))))

    def _seeds(self, detections: Detections, taken: np.ndarray) -> np.ndarray:
        """The rows, ascending, of detections that start tracks; `taken` (M,) bool are those joined to one.

        A box whose centre lies in one that was joined, or in one of higher score that starts a track itself,
        is what suppression has left of the same target: it starts none.
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
        """Begin a track with each of the rows `seeds` (K,) of `detections`."""
        count = len(seeds)
        if not count:
            return
        born = np.zeros(count, dtype=_RECORD)
        born["id"] = np.arange(self._next_id, self._next_id + count)
        born["hits"] = born["looks"] = 1
        born["confirmed"] = self.options.birth_hits == 1
        born["score"] = born["standing"] = detections.scores[seeds]
        born["label"] = detections.labels[seeds]
        self._next_id += count
        self._records = np.concatenate([self._records, born])
        self._filter.add(detections.boxes[seeds])

    def _keep(self, alive: np.ndarray) -> None:
        """Drop the tracks that are not `alive` (N,) bool."""
        if not alive.all():
            self._records = self._records[alive]
            self._filter.keep(alive)

    def _tracks(self) -> Tracks:
        """What is known now, as a copy."""
        records = self._records
        if not len(records):
            return Tracks.empty()
        believed = np.where(records["unseen"] == 0, TrackState.CONFIRMED, TrackState.COASTING)
        return Tracks(
            boxes=self._filter.boxes(),
            scores=records["score"],
            labels=records["label"],
            ids=records["id"],
            state=np.where(records["confirmed"], believed, TrackState.TENTATIVE),
            velocity=self._filter.mean[:, 2:4],
            age=np.rint(records["age"]),
        )


def _vote(
    held: np.ndarray, standing: np.ndarray, seen: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Labels `held` and their `standing` (K,) after a hit each, of label `seen` and score `scores` (K,).

    A running majority vote: agreement raises the standing by the score of the hit, contradiction lowers it,
    and the label that brings it below zero takes over (Boyer and Moore), with no count per class to be kept.
    """
    standing = standing + np.where(seen == held, scores, -scores)
    return np.where(standing < 0, seen, held), np.minimum(np.abs(standing), MAX_LABEL_VOTE)
