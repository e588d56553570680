"""OC-SORT: Cao, Pang, Weng, Khirodkar and Kitani, "Observation-Centric SORT" (CVPR 2023).

SORT with three additions, each of which trusts observed boxes more than predicted ones:

- momentum (section 4.2): a detection in the direction in which the observations of a track went costs less;
- re-update (section 4.1): when a track is found again, its filter is set back to its last observation and
  follows a straight virtual path from there to the new one;
- recovery (section 4.3): detections and tracks that are left over are assigned by the last observed box.

Before the recovery, detections of low score are assigned as in ByteTrack, which the published program offers.
Differences from it: boxes are enlarged, and a confirmed track stays confirmed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.structures.boxes import from_centres, to_centres
from pipeline.structures.detections import Detections
from trackers.iou.base import Assignment, IouOptions, IouTracker, Links
from trackers.iou.filter import States, corrected, predicted

MIN_OVERLAP = 1e-9
"""Lower bound of the IoU of an assigned pair."""


@dataclass(frozen=True)
class OcsortOptions(IouOptions):
    """Options of `OcsortTracker`."""

    high_score: float = 0.45
    """Detections of this score or more are assigned first, and start tracks. Too low: clutter becomes tracks.
    Too high: faint targets get none."""
    low_score: float = 0.3
    """Detections from this score up to `high_score` are assigned to tracks that are left over. Too low: the
    track of a hidden target drifts along clutter. Too high: tracks of fading targets coast and end."""
    min_iou: float = 0.1
    """Minimum IoU of a detection and the predicted, or the last observed, box of its track. Too low: tracks
    jump to neighbours. Too high: targets that turn get a new id."""
    direction_weight: float = 0.2
    """Weight of the change of direction beside the IoU. Too small: targets that cross swap ids. Too large:
    jitter decides, since the direction of a target that hardly moves is noise."""
    direction_frames: int = 3
    """Number of frames over which a direction is measured. Too small: jitter decides. Too large: the
    direction is that of long ago."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("high_score", "min_iou", high=1)
        self._require("low_score", high=self.high_score)
        self._require("direction_weight", high=10)
        self._require("direction_frames", low=1, high=1000)


class OcsortTracker(IouTracker):
    """Tracks boxes by overlap and direction; memory per track grows with `direction_frames`."""

    options: OcsortOptions

    def __init__(self, options: OcsortOptions | None = None):
        super().__init__(options or OcsortOptions())

    def reset(self) -> None:
        """Removes all tracks: the next frame, of any index, starts a new sequence, with ids from 1."""
        super().reset()
        self._last = np.zeros((0, 4))  # (N, 4) last observed boxes, x1 y1 x2 y2
        # (N, F + 1, 2) observed centres, [:, k] those of k frames ago, NaN without a detection
        self._centres = np.zeros((0, self.options.direction_frames + 1, 2))
        self._directions = np.zeros((0, 2))  # unit vectors along the last observations; 0 for a single one
        self._observed = States.empty()  # states after the last observations

    def _predict(self, elapsed: float) -> None:
        super()._predict(elapsed)
        now = np.full_like(self._centres[:, :1], np.nan)
        self._centres = np.concatenate([now, self._centres[:, :-1]], axis=1)

    def _move(self, motion: np.ndarray) -> None:
        super()._move(motion)
        linear, shift = motion[:, :2], motion[:, 2]
        self._observed = self._observed.moved(motion)
        self._centres = self._centres @ linear.T + shift
        self._directions = _unit(self._directions @ linear.T)
        rows = to_centres(self._last)
        rows[:, :2] = rows[:, :2] @ linear.T + shift
        self._last = from_centres(rows)

    def _link(self, detections: Detections) -> Links:
        options, scores = self.options, detections.scores
        high = scores >= options.high_score
        low = (scores >= options.low_score) & ~high
        least = max(options.min_iou, MIN_OVERLAP)
        overlap = self._overlap(self._states.boxes(), detections)
        momentum = self._momentum(detections)
        assignment = Assignment(*overlap.shape)
        limit = options.direction_weight  # above all costs
        assignment.round(-overlap - momentum, overlap >= least, detections=high, limit=limit)
        assignment.round(-overlap, overlap >= least, detections=low)
        observed = self._overlap(self._last, detections)
        assignment.round(-observed, observed >= least, detections=high)
        return assignment.links(high)

    def _momentum(self, detections: Detections) -> np.ndarray:
        """Returns the bonus (N, M) of detections in the direction of a track; negative in the opposite one.

        It is a quarter turn minus the change of direction, as a share of a half turn, times the score of the
        detection and the weight (equation 6 and the published program).
        """
        targets = to_centres(detections.boxes)[:, :2]
        towards = _unit(targets[None] - self._origins()[:, None])  # (N, M, 2)
        cosines = np.einsum("nmk,nk->nm", towards, self._directions).clip(-1, 1)
        bonus = (math.pi / 2 - np.arccos(cosines)) / math.pi
        return self.options.direction_weight * bonus * detections.scores

    def _origins(self) -> np.ndarray:
        """Returns the centres (N, 2) from which directions to this frame are measured.

        They are of the earliest of the last frames with an observation, else of the last observation.
        """
        origins = to_centres(self._last)[:, :2]
        for frames_ago in range(1, self._centres.shape[1]):
            known = ~np.isnan(self._centres[:, frames_ago, 0])
            origins[known] = self._centres[known, frames_ago]
        return origins

    def _correct(self, tracks: np.ndarray, boxes: np.ndarray) -> None:
        states = self._states.take(tracks)
        for row in np.flatnonzero(self._records["coasted"][tracks] > 1):
            before = self._observed.take(tracks[row : row + 1])
            elapsed = float(self._records["coasted"][tracks[row]])
            path = _straight_path(self._last[tracks[row]], boxes[row], math.ceil(elapsed) - 1)
            for box in path:
                before = predicted(before, elapsed / (len(path) + 1), self._noise)
                before = corrected(before, box[None], self._noise)
            before = predicted(before, elapsed / (len(path) + 1), self._noise)
            states = states.replaced(np.array([row]), before)
        states = corrected(states, boxes, self._noise)
        self._states = self._states.replaced(tracks, states)
        self._observed = self._observed.replaced(tracks, states)
        centres = to_centres(boxes)[:, :2]
        self._directions[tracks] = _unit(centres - self._origins()[tracks])
        self._last[tracks] = boxes
        self._centres[tracks, 0] = centres

    def _add(self, boxes: np.ndarray) -> None:
        before = len(self._states)
        super()._add(boxes)
        centres = np.full((len(boxes), *self._centres.shape[1:]), np.nan)
        centres[:, 0] = to_centres(boxes)[:, :2]
        self._last = np.concatenate([self._last, boxes])
        self._centres = np.concatenate([self._centres, centres])
        self._directions = np.concatenate([self._directions, np.zeros((len(boxes), 2))])
        self._observed = self._observed.joined(self._states.take(np.arange(before, len(self._states))))

    def _keep(self, alive: np.ndarray) -> None:
        super()._keep(alive)
        self._last, self._centres = self._last[alive], self._centres[alive]
        self._directions, self._observed = self._directions[alive], self._observed.take(alive)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Returns vectors (…, 2) of length 1 in the same directions; 0 for a vector of length 0."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors, dtype=np.float64), where=length > 0)


def _straight_path(start: np.ndarray, end: np.ndarray, between: int) -> np.ndarray:
    """Returns `between` boxes (…, 4) at equal distances on the way from one box (4,) to another."""
    return np.linspace(start, end, between + 2)[1:-1]
