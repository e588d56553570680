"""The default tracker with birth and death of tracks by evidence in place of counted hits.

Every detection of at least `CentreOptions.faintest` that is assigned to no track starts a tentative one, so
that dim targets are followed, too; `trackers.evidence` decides which tracks are confirmed and which end.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.tracks import Tracks
from trackers.association import assign
from trackers.centre import CentreTracker
from trackers.centre_options import CentreOptions
from trackers.evidence import MAX_MISSES, Evidence, Hits
from trackers.kalman import centres_and_sizes


class EvidenceTracker(CentreTracker):
    """Tracks targets by their centres, and judges tracks by the evidence for a target."""

    def __init__(self, options: CentreOptions | None = None):
        self._evidence = Evidence()
        super().__init__(options)

    @property
    def _start_score(self) -> float:
        return self.options.faintest

    @property
    def _patience(self) -> int:
        return MAX_MISSES

    def reset(self) -> None:
        """Removes all tracks and forgets all clutter: the next frame starts a sequence, with ids from 1."""
        super().reset()
        self._evidence.clear()

    def update(self, detections: Detections, frame: Frame) -> Tracks:
        """Returns all current tracks, see `CentreTracker.update`."""
        if frame.gap is not None and not frame.gap.elapsed_known:
            self._evidence.leave_scene()
        self._owner = np.zeros(len(detections), dtype=np.int64)  # id of the track of each detection
        tracks = super().update(detections, frame)
        confirmed = self._records["id"][self._records["confirmed"]]
        loose = (self._owner > 0) & ~np.isin(self._owner, confirmed)
        self._evidence.remember(self._centres[loose], self._owner[loose], confirmed)
        return tracks

    def _advance(self, frame: Frame, time: float) -> None:
        elapsed = 0.0 if self._index is None else time - self._time
        super()._advance(frame, time)
        self._evidence.advance(elapsed, frame)

    def _associate(self, detections: Detections, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        options, confirmed = self.options, self._records["confirmed"]
        scores = detections.scores.astype(np.float64)
        self._centres = centres_and_sizes(detections.boxes)[0]
        self._hidden = frame.shutter_closed
        partners = np.full(len(confirmed), -1)
        self._likelihood = np.zeros(len(confirmed))
        taken = np.zeros(len(scores), dtype=bool)
        if not len(partners) or not len(taken):
            self._evidence.observe(self._centres, scores)
            return partners, taken
        rows, columns, cost, limit = self._pairs(detections, frame)
        likelihood = np.exp(-cost / 2) / (2 * math.pi)
        cost = cost + self._evidence.score_costs(scores)[columns]
        high = scores[columns] >= options.high_score
        least = np.clip(self._evidence.lowest_scores(), options.faintest, options.low_score)
        low = scores[columns] >= least[rows]
        loose = scores[columns] >= options.faintest
        for chosen, usable in ((confirmed, high), (confirmed, low), (~confirmed, high), (~confirmed, loose)):
            free = chosen & (partners < 0)
            pairs = np.flatnonzero(free[rows] & usable & ~taken[columns])
            some, others = assign(rows[pairs], columns[pairs], cost[pairs], limit)
            partners[some] = others
            taken[others] = True
            if usable is low:
                self._evidence.observe(self._centres[~taken], scores[~taken])
        tracks = np.flatnonzero(partners >= 0)
        at = np.searchsorted(rows * len(scores) + columns, tracks * len(scores) + partners[tracks])
        self._likelihood[tracks] = likelihood[at]
        return partners, taken

    def _share(self, partners: np.ndarray, detections: Detections) -> tuple[np.ndarray, np.ndarray]:
        self._sharing, shared = super()._share(partners, detections)
        return self._sharing, shared

    def _correct(self, tracks: np.ndarray, detections: Detections, partners: np.ndarray) -> None:
        hits = Hits(
            self._centres[partners],
            detections.scores[partners].astype(np.float64),
            self._likelihood[tracks],
            self._motion._detection_variance(self._motion.sizes[tracks]),
        )
        self._evidence.hit(tracks, hits)
        if not self._hidden:
            missed = np.ones(len(self._records), dtype=bool)
            missed[tracks] = False
            missed[self._sharing] = False  # their targets may well be there
            self._evidence.miss(np.flatnonzero(missed))
        self._owner[partners] = self._records["id"][tracks]
        super()._correct(tracks, detections, partners)

    def _confirm(self) -> None:
        hit = self._records["coasted"] == 0
        self._records["confirmed"] |= self._evidence.confirms() & hit

    def _remove_ended(self, frame: Frame) -> None:
        records = self._records
        if not len(records):
            return
        overdue = records["confirmed"] & (records["coasted"] > self._longest_coast())
        centres = self._motion.mean[:, :2]
        outside = ((centres < 0) | (centres > (frame.width, frame.height))).any(axis=1)
        ended = self._evidence.ends(records["confirmed"])
        self._keep(~(overdue | ended | (outside & (records["coasted"] > 0))))

    def _start(self, detections: Detections, seeds: np.ndarray) -> None:
        before = len(self._records)
        super()._start(detections, seeds)
        if len(seeds):
            self._owner[seeds] = self._records["id"][before:]
            variance = self._motion._detection_variance(self._motion.sizes[before:])
            self._records["confirmed"][before:] = False
            self._evidence.add(self._centres[seeds], detections.scores[seeds].astype(np.float64), variance)

    def _keep(self, alive: np.ndarray) -> None:
        if not alive.all():
            self._evidence.keep(alive)
        super()._keep(alive)
