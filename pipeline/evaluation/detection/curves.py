"""What follows from scores and hits: average precision, F1, false alarms per frame."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

RECALLS = np.linspace(0, 1, 101)
"""Recall levels at which COCO reads the precision."""


@dataclass(frozen=True)
class OperatingPoint:
    """What a user gets who takes all detections of a score of `threshold` or more, and no others."""

    threshold: float
    precision: float | None
    """Hits over detections; None without detections."""
    recall: float | None
    """Hits over targets; None without targets."""
    f1: float | None
    """Harmonic mean of the two; None with neither detections nor targets."""
    false_alarms_per_frame: float
    """Detections that hit no target, over all frames, those without targets included."""
    hits: int
    false_alarms: int
    misses: int

    def as_dict(self) -> dict[str, float | None]:
        """Plain numbers, for JSON."""
        return asdict(self)


class Curve:
    """Detections of some frames by falling score, each a hit or a false alarm.

    `scores` (N,) and `hits` (N,) bool, in the order of the frames; `targets` and `frames` are how many there
    are, found or not.
    """

    def __init__(self, scores: np.ndarray, hits: np.ndarray, *, targets: int, frames: int):
        order = np.argsort(-scores, kind="stable")  # as pycocotools does, for the same order of equal scores
        self.targets, self.frames = targets, frames
        self._scores = scores[order]
        self._hits = np.cumsum(hits[order])
        # a threshold takes all detections of equal score together
        self._steps = np.flatnonzero(np.append(np.diff(self._scores) != 0, True)[: len(order)])

    @cached_property
    def precision(self) -> np.ndarray:
        """(101,) interpolated precision: the best that is reached at recall 0, 0.01 … 1 or beyond it.

        Zero at recalls that are not reached.
        """
        at_recalls = np.zeros(len(RECALLS))
        if self.targets and len(self._hits):
            precision = self._hits / np.arange(1, len(self._hits) + 1)
            best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
            places = np.searchsorted(self._hits / self.targets, RECALLS, side="left")
            reached = places < len(self._hits)
            at_recalls[reached] = best_from_here[places[reached]]
        return at_recalls

    @property
    def average_precision(self) -> float | None:
        """Mean of the 101 interpolated precisions, as COCO has it; None without targets."""
        return float(self.precision.mean()) if self.targets else None

    @property
    def highest_recall(self) -> float | None:
        """Share of targets that are hit at any score; None without targets."""
        if not self.targets:
            return None
        return float(self._hits[-1] / self.targets) if len(self._hits) else 0.0

    def best_f1(self) -> tuple[float, float]:
        """The highest F1 over all thresholds and the threshold that gives it; (0, 1) where nothing is hit."""
        if not self.targets or not self._hits[-1:].any():
            return 0.0, 1.0
        f1 = 2 * self._hits[self._steps] / (self._steps + 1 + self.targets)
        best = int(np.argmax(f1))
        return float(f1[best]), float(self._scores[self._steps[best]])

    def at(self, threshold: float) -> OperatingPoint:
        """What detections of this score or more are worth."""
        count = int(np.searchsorted(-self._scores, -threshold, side="right"))
        hits = int(self._hits[count - 1]) if count else 0
        return OperatingPoint(
            threshold=threshold,
            precision=hits / count if count else None,
            recall=hits / self.targets if self.targets else None,
            f1=2 * hits / (count + self.targets) if count + self.targets else None,
            false_alarms_per_frame=(count - hits) / max(self.frames, 1),
            hits=hits,
            false_alarms=count - hits,
            misses=self.targets - hits,
        )

    @cached_property
    def froc(self) -> tuple[np.ndarray, np.ndarray]:
        """False alarms per frame (S,) and recall (S,) at each threshold, from the strictest on; both rise."""
        hits = self._hits[self._steps]
        return (self._steps + 1 - hits) / max(self.frames, 1), hits / max(self.targets, 1)

    def false_alarms_at(self, recall: float) -> float | None:
        """Fewest false alarms per frame at which this recall is reached; None where it never is."""
        false_alarms, recalls = self.froc
        place = np.searchsorted(recalls, recall, side="left")
        return float(false_alarms[place]) if self.targets and place < len(recalls) else None

    def recall_at(self, false_alarms: float) -> float | None:
        """Highest recall with at most so many false alarms per frame; None without targets."""
        rates, recalls = self.froc
        place = int(np.searchsorted(rates, false_alarms, side="right"))
        if not self.targets:
            return None
        return float(recalls[place - 1]) if place else 0.0

    def threshold_at(self, false_alarms: float) -> float | None:
        """The lowest score with at most so many false alarms per frame; None where even the best has more."""
        place = int(np.searchsorted(self.froc[0], false_alarms, side="right"))
        return float(self._scores[self._steps[place - 1]]) if place else None
