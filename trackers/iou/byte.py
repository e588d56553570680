"""ByteTrack: Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box" (ECCV 2022).

Detections of high score are assigned to the confirmed tracks first, coasting ones included; those of low
score then to tracks that were detected in the frame before; what is left of the high ones to tentative
tracks, of which those that get none end (section 3 and algorithm 1). Differences from the published program:
boxes are enlarged, the IoU is not multiplied by the score, and the first frame has no rule of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from trackers.iou.base import Assignment, IouOptions, IouTracker, Links


@dataclass(frozen=True)
class ByteOptions(IouOptions):
    """Options of `ByteTracker`."""

    high_score: float = 0.45
    """Detections of this score or more are assigned first. Too low: clutter takes the place of targets. Too
    high: tracks live on detections of low score alone, with which no track comes back."""
    low_score: float = 0.3
    """Detections from this score up to `high_score` are assigned to tracks that were just detected. Too low:
    the track of a hidden target drifts along clutter. Too high: tracks of fading targets coast and end."""
    start_score: float = 0.45
    """Detections of this score or more that no track takes start tracks. Too low: clutter becomes tracks. Too
    high: faint targets get none."""
    min_iou: float = 0.1
    """Minimum IoU of a detection of high score and the predicted box of its track. Too low: tracks jump to
    neighbours. Too high: targets that turn get a new id."""
    min_iou_low: float = 0.3
    """The same for detections of low score, which are clutter more often."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("high_score", "start_score", "min_iou", "min_iou_low", high=1)
        self._require("low_score", high=self.high_score)


class ByteTracker(IouTracker):
    """Tracks boxes by detections of high and then of low score."""

    options: ByteOptions
    patience = 0

    def __init__(self, options: ByteOptions | None = None):
        super().__init__(options or ByteOptions())

    def reset(self) -> None:
        """Removes all tracks: the next frame, of any index, starts a new sequence, with ids from 1."""
        super().reset()
        self._stride = 1

    def _advance(self, frame: Frame) -> None:
        super()._advance(frame)
        self._stride = frame.stride

    def _link(self, detections: Detections) -> Links:
        options, records, scores = self.options, self._records, detections.scores
        high = scores >= options.high_score
        low = (scores >= options.low_score) & ~high
        overlap = self._overlap(self._states.boxes(), detections)
        near = overlap >= max(options.min_iou, 1e-9)
        confirmed = records["confirmed"]
        recent = confirmed & (records["coasted"] <= self._stride)
        assignment = Assignment(*overlap.shape)
        assignment.round(-overlap, near, tracks=confirmed, detections=high)
        very_near = overlap >= max(options.min_iou_low, 1e-9)
        assignment.round(-overlap, very_near, tracks=recent, detections=low)
        assignment.round(-overlap, near, tracks=~confirmed, detections=high)
        return assignment.links(high & (scores >= options.start_score))
