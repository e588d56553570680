"""Precision-recall and FROC curves of detections that are already marked as hits or false alarms.

Average precision is that of COCO: the mean of the interpolated precision at 101 recall levels. FROC
(free-response receiver operating characteristic) plots recall over false alarms per frame.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

COCO_RECALLS = np.linspace(0, 1, 101)
"""(101,) recall levels at which COCO samples the interpolated precision."""


@dataclass(frozen=True)
class OperatingPoint:
    """Metrics of the detections with a score of at least `threshold`."""

    threshold: float
    precision: float | None
    """Hits over detections; None without detections."""
    recall: float | None
    """Hits over targets; None without targets."""
    f1: float | None
    """Harmonic mean of precision and recall; None with neither detections nor targets."""
    false_alarms_per_frame: float
    """Detections that hit no target over all frames, including frames without targets."""
    hits: int
    false_alarms: int
    misses: int

    def as_dict(self) -> dict[str, float | None]:
        """Returns plain values for JSON."""
        return asdict(self)


class PrecisionRecallCurve:
    """Precision, recall and false alarms of a set of detections as the score threshold falls.

    Args:
        scores: (N,) float scores.
        hits: (N,) bool, True for a hit and False for a false alarm.
        targets: number of targets, whether hit or missed.
        frames: number of frames, with or without detections.

    Among equal scores the order of the arguments is kept.
    """

    def __init__(self, scores: np.ndarray, hits: np.ndarray, *, targets: int, frames: int):
        order = np.argsort(
            -scores, kind="stable"
        )  # pycocotools also sorts stably, so ties have the same order
        self.targets, self.frames = targets, frames
        self._scores = scores[order]
        self._hits = np.cumsum(hits[order])
        # last index of each run of equal scores: a threshold accepts all of them or none
        self._steps = np.flatnonzero(np.append(np.diff(self._scores) != 0, True)[: len(order)])

    @cached_property
    def interpolated_precision(self) -> np.ndarray:
        """(101,) highest precision at or above each recall of `COCO_RECALLS`; 0 if it is not reached."""
        at_recalls = np.zeros(len(COCO_RECALLS))
        if self.targets and len(self._hits):
            precision = self._hits / np.arange(1, len(self._hits) + 1)
            best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
            indices = np.searchsorted(self._hits / self.targets, COCO_RECALLS, side="left")
            reached = indices < len(self._hits)
            at_recalls[reached] = best_from_here[indices[reached]]
        return at_recalls

    @property
    def average_precision(self) -> float | None:
        """Mean of the 101 interpolated precisions, as defined by COCO; None without targets."""
        return float(self.interpolated_precision.mean()) if self.targets else None

    @property
    def max_recall(self) -> float | None:
        """Recall at the lowest threshold; None without targets."""
        if not self.targets:
            return None
        return float(self._hits[-1] / self.targets) if len(self._hits) else 0.0

    def best_f1(self) -> tuple[float, float]:
        """Returns the highest F1 over all thresholds and its threshold; (0, 1) without hits."""
        if not self.targets or not self._hits[-1:].any():
            return 0.0, 1.0
        f1 = 2 * self._hits[self._steps] / (self._steps + 1 + self.targets)
        best = int(np.argmax(f1))
        return float(f1[best]), float(self._scores[self._steps[best]])

    def operating_point(self, threshold: float) -> OperatingPoint:
        """Returns the metrics of the detections with a score of at least `threshold`."""
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
        """False alarms per frame (S,) and recall (S,) at each distinct score, highest first; both ascend."""
        hits = self._hits[self._steps]
        return (self._steps + 1 - hits) / max(self.frames, 1), hits / max(self.targets, 1)

    def false_alarms_at_recall(self, recall: float) -> float | None:
        """Returns the fewest false alarms per frame at which `recall` is reached; None if it never is."""
        false_alarms, recalls = self.froc
        index = np.searchsorted(recalls, recall, side="left")
        return float(false_alarms[index]) if self.targets and index < len(recalls) else None

    def recall_at_false_alarms(self, rate: float) -> float | None:
        """Returns the highest recall with at most `rate` false alarms per frame; None without targets."""
        rates, recalls = self.froc
        index = int(np.searchsorted(rates, rate, side="right"))
        if not self.targets:
            return None
        return float(recalls[index - 1]) if index else 0.0

    def threshold_at_false_alarms(self, rate: float) -> float | None:
        """Returns the lowest score with at most `rate` false alarms per frame; None if there is none."""
        index = int(np.searchsorted(self.froc[0], rate, side="right"))
        return float(self._scores[self._steps[index - 1]]) if index else None
