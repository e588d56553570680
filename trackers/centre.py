"""The default tracker, for targets of a few pixels: associates detections with tracks by their centres.

Life cycle of a track: a high-score detection that is assigned to no track starts a TENTATIVE one, except if
it lies in the box of a tracked target, of which it is then a duplicate. A track with enough hits in its first
frames becomes CONFIRMED, otherwise it is removed. A confirmed track without a detection is COASTING: it is
predicted until it is hit again, has been coasting for too long, or has left the frame. Low-score detections
are assigned to confirmed tracks only, in a second pass (Zhang et al., "ByteTrack", ECCV 2022, section 3, with
centre distances in place of IoU). M-of-N confirmation is described by Blackman and Popoli, "Design and
Analysis of Modern Tracking Systems", 1999, chapter 6; `trackers.evidence_tracker` has another one. Class
labels are not used in the association, because those of tiny targets are unstable.

Two targets that are too close to be told apart have one detection between them: both tracks keep it.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.tracks import Tracks
from trackers.association import assign, gate_radius, mixture_cost, near_pairs, nearest
from trackers.centre_options import CentreOptions
from trackers.kalman import KalmanFilter, Noise, centres_and_sizes
from trackers.records import tracks_of

SHORT_COAST = 30.0
"""Frame intervals for which any confirmed track may coast, and for which two tracks may share detections."""

ESTABLISHED = 8
"""Number of hits of a track that may share the detection of another one."""

MAX_LABEL_VOTE = 5.0
"""Upper bound of a label's vote, in hits of score 1: one contrary hit more changes any label."""

_RECORD = np.dtype(
    [
        ("id", np.int64),
        ("confirmed", np.bool_),
        ("hits", np.int64),  # number of frames with a detection
        ("frames", np.int64),  # number of processed frames since the first detection, including it
        ("age", np.float64),  # frame intervals since the first detection
        ("coasted", np.float64),  # frame intervals since the last detection
        ("shared", np.float64),  # frame intervals since the last detection that no other track shared
        ("score", np.float64),
        ("label", np.int64),
        ("vote", np.float64),  # support of the label, see _vote
    ]
)


class CentreTracker:
    """Tracks targets by their centres; the module describes the life cycle, `CentreOptions` the options.

    Memory is proportional to the number of current tracks: no history is kept. A track gets its id at the
    first detection, so that its rows from before the confirmation can be identified later. The ids of
    confirmed tracks therefore have gaps.
    """

    _motion: KalmanFilter
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

    @property
    def _start_score(self) -> float:
        """Lowest score of a detection that starts a track."""
        return self.options.high_score

    @property
    def _patience(self) -> int:
        """Number of frames without a detection after which a tentative track ends at the latest."""
        return self.options.birth_window

    def reset(self) -> None:
        """Removes all tracks: the next frame, of any index, starts a new sequence, with ids from 1."""
        self._motion = _motion_models(self.options)
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
        partners, taken = self._associate(detections, frame)
        sharing, shared = self._share(partners, detections)
        tracks = np.flatnonzero(partners >= 0)
        self._correct(tracks, detections, partners[tracks])
        self._motion.update(sharing, detections.boxes[shared] + self._shift[sharing])
        self._records["coasted"][sharing] = 0
        self._confirm()
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
        records["shared"] += elapsed
        records["frames"] += not hidden
        # this frame is not missed yet; birth windows count frames, so tentative tracks need a limit in time
        limit = np.where(records["confirmed"], self._longest_coast(), self._patience * frame.stride)
        self._keep(records["coasted"] - frame.stride <= limit)
        self._motion.predict(elapsed)
        if frame.motion is not None:
            self._motion.move(frame.motion)

    def _longest_coast(self) -> np.ndarray:
        """Returns how long each track may coast, (N,) frame intervals: the longer, the better it is known."""
        return np.minimum(self.options.coast, np.maximum(self._records["hits"], SHORT_COAST))

    def _associate(self, detections: Detections, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """Assigns detections to tracks.

        Returns the index of each track's detection or -1, (N,) int64, and whether each detection is assigned,
        (M,) bool.
        """
        options, confirmed, scores = self.options, self._records["confirmed"], detections.scores
        partners = np.full(len(confirmed), -1)
        taken = np.zeros(len(scores), dtype=bool)
        if not len(partners) or not len(taken):
            return partners, taken
        rows, columns, cost, limit = self._pairs(detections, frame)
        high = scores >= options.high_score
        low = (scores >= options.low_score) & ~high
        recent = self._records["coasted"] - frame.stride <= (options.low_coast or math.inf)
        # confirmed tracks come first, so that tentative ones cannot take their detections
        for chosen, candidates in ((confirmed, high), (confirmed & recent, low), (~confirmed, high)):
            free = chosen & (partners < 0)
            pairs = free[rows] & (candidates & ~taken)[columns]
            some, others = assign(rows[pairs], columns[pairs], cost[pairs], limit)
            partners[some] = others
            taken[others] = True
        return partners, taken

    def _pairs(
        self, detections: Detections, frame: Frame
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Returns the tracks and detections that may belong together: rows, columns and costs, all (P,).

        The last value is the cost above which a detection is more likely unrelated than that of the track.
        """
        options = self.options
        centres, _ = centres_and_sizes(detections.boxes)
        area = frame.width * frame.height
        limit = -2 * math.log(2 * math.pi * options.unrelated / area)
        expected, variance = self._motion.means[..., :2], self._motion.innovation_variances()
        variance = np.minimum(variance, area / (2 * math.pi))  # the target is somewhere in the frame
        probability, mean = self._motion.probability, self._motion.mean[:, :2]
        offset = np.hypot(*np.moveaxis(expected - mean[:, None], -1, 0))
        radius = (gate_radius(variance, probability, limit) + offset).max(axis=1)
        cap = options.max_gate * math.hypot(frame.width, frame.height) * frame.stride
        rows, columns = near_pairs(mean, np.minimum(radius, cap), centres)
        squared = ((centres[columns, None] - expected[rows]) ** 2).sum(axis=2)
        return rows, columns, mixture_cost(squared, variance[rows], probability[rows]), limit

    def _share(self, partners: np.ndarray, detections: Detections) -> tuple[np.ndarray, np.ndarray]:
        """Finds tracks without a detection whose targets are too close to others to be detected apart.

        `partners` (N,) are the detections of the tracks or -1. Returns these tracks (K,) and the detections
        that they share (K,). Such a detection shows the middle of both targets: sets `_shift` (N, 4) to the
        way from there to where the box of each target is expected.
        """
        records = self._records
        self._shift = np.zeros((len(records), 4))
        confirmed, known = records["confirmed"], records["hits"] >= ESTABLISHED
        owners = np.flatnonzero(confirmed & (partners >= 0))
        centres, sizes = centres_and_sizes(detections.boxes[partners[owners]])
        lone = np.flatnonzero(
            confirmed & known & (partners < 0) & (records["shared"] <= min(SHORT_COAST, self.options.coast))
        )
        mean = self._motion.mean[:, :2]
        some, found = nearest(mean[lone], centres, np.sqrt(sizes.prod(axis=1)))
        sharing, with_whom = lone[some], owners[found]
        records["shared"][np.setdiff1d(owners, with_whom)] = 0
        apart = np.tile((mean[sharing] - mean[with_whom]) / 2, 2)
        self._shift[sharing], self._shift[with_whom] = apart, -apart
        return sharing, partners[with_whom]

    def _correct(self, tracks: np.ndarray, detections: Detections, partners: np.ndarray) -> None:
        """Updates `tracks` (K,) by the detections assigned to them, rows `partners` (K,) of `detections`."""
        if not len(tracks):
            return
        self._motion.update(tracks, detections.boxes[partners] + self._shift[tracks])
        records = self._records
        records["coasted"][tracks] = 0
        records["hits"][tracks] += 1
        scores = detections.scores[partners].astype(np.float64)
        records["score"][tracks] = scores
        records["label"][tracks], records["vote"][tracks] = _vote(
            records["label"][tracks], records["vote"][tracks], detections.labels[partners], scores
        )

    def _confirm(self) -> None:
        """Confirms the tentative tracks with enough hits."""
        self._records["confirmed"] |= self._records["hits"] >= self.options.birth_hits

    def _remove_ended(self, frame: Frame) -> None:
        """Removes tracks that coasted for too long, can no longer be confirmed, or have left the frame."""
        records, options = self._records, self.options
        if not len(records):
            return
        overdue = records["confirmed"] & (records["coasted"] > self._longest_coast())
        possible_hits = records["hits"] + options.birth_window - records["frames"]
        hopeless = ~records["confirmed"] & (possible_hits < options.birth_hits)
        centres = self._motion.mean[:, :2]
        outside = ((centres < 0) | (centres > (frame.width, frame.height))).any(axis=1)
        self._keep(~(overdue | hopeless | (outside & (records["coasted"] > 0))))

    def _seeds(self, detections: Detections, taken: np.ndarray) -> np.ndarray:
        """Returns the rows (K,), ascending, of detections that start tracks; `taken` (M,) bool are assigned.

        A detection whose centre lies in the box of an assigned one, or of one of higher score that starts a
        track, is a duplicate that non-maximum suppression has left: it starts none.
        """
        high = np.flatnonzero((detections.scores >= self._start_score) & ~taken)
        if not len(high):
            return high
        high = high[np.argsort(-detections.scores[high], kind="stable")]
        claimed = np.concatenate([np.flatnonzero(taken), high])  # by order of their right to a track
        boxes = detections.boxes[claimed].astype(np.float64)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        reach = np.hypot(*(boxes[:, 2:] - boxes[:, :2]).T) / 2
        owners, others = near_pairs(centres, reach, centres[len(claimed) - len(high) :])
        others = others + len(claimed) - len(high)
        at, box = centres[others], boxes[owners]
        inside = ((box[:, :2] <= at) & (at < box[:, 2:])).all(axis=1) & (owners < others)
        starts = np.ones(len(claimed), dtype=bool)
        # an owner that starts no track claims nothing, so the order matters
        order = np.lexsort((owners[inside], others[inside]))
        for owner, other in zip(owners[inside][order], others[inside][order], strict=True):
            starts[other] &= not starts[owner]
        return np.sort(high[starts[len(claimed) - len(high) :]])

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
        self._motion.add(detections.boxes[seeds])

    def _keep(self, alive: np.ndarray) -> None:
        """Removes the tracks that are not `alive` (N,) bool."""
        if not alive.all():
            self._records = self._records[alive]
            self._motion.keep(alive)

    def _tracks(self) -> Tracks:
        """Returns a copy of the current tracks."""
        return tracks_of(self._records, self._motion.boxes(), self._motion.mean[:, 2:4])


def _vote(
    labels: np.ndarray, votes: np.ndarray, detected: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns `labels` and their `votes` (K,) after a hit each, of label `detected` and score `scores` (K,).

    The running majority vote of Boyer and Moore, which needs no count per class: a hit of the same label adds
    its score to the vote, another one subtracts it and takes over if the vote becomes negative.
    """
    votes = votes + np.where(detected == labels, scores, -scores)
    return np.where(votes < 0, detected, labels), np.minimum(np.abs(votes), MAX_LABEL_VOTE)


def _motion_models(options: CentreOptions) -> KalmanFilter:
    """Returns the filter with the models of calm and of agile targets, without tracks."""
    share = options.agile_share
    noise = Noise(
        accelerations=(options.calm_acceleration, options.agile_acceleration),
        shares=(1 - share, share),
        persistence=options.persistence,
        growth=options.growth,
        start_speed=options.start_speed,
        position_floor=options.position_floor,
        position_share=options.position_share,
    )
    return KalmanFilter(noise)
