"""SORT: Bewley, Ge, Ott, Ramos and Upcroft, "Simple Online and Realtime Tracking" (ICIP 2016).

One round of optimal assignment of detections to predicted boxes by their IoU. Differences from the paper:
boxes are enlarged, tracks coast (the paper ends them after one missed frame), and a confirmed track stays
confirmed.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.structures.detections import Detections
from trackers.iou.base import Assignment, IouOptions, IouTracker, Links


@dataclass(frozen=True)
class SortOptions(IouOptions):
    """Options of `SortTracker`."""

    score: float = 0.4
    """Detections of this score or more are assigned and start tracks; lower ones are ignored. Too low:
    clutter becomes tracks. Too high: faint targets get none."""
    min_iou: float = 0.1
    """Minimum IoU of a detection and the predicted box of its track. Too low: tracks jump to neighbours. Too
    high: targets that turn get a new id."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("score", "min_iou", high=1)


class SortTracker(IouTracker):
    """Tracks boxes by one assignment a frame."""

    options: SortOptions

    def __init__(self, options: SortOptions | None = None):
        super().__init__(options or SortOptions())

    def _link(self, detections: Detections) -> Links:
        candidates = detections.scores >= self.options.score
        overlap = self._overlap(self._states.boxes(), detections)
        assignment = Assignment(*overlap.shape)
        assignment.round(-overlap, overlap >= max(self.options.min_iou, 1e-9), detections=candidates)
        return assignment.links(candidates)
