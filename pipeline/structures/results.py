"""What is known about one frame: its detections, with segments and score maps, and then its tracks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from pipeline.structures.detections import Detections, ScoreMap, Segments
from pipeline.structures.events import Event
from pipeline.structures.frame import Frame
from pipeline.structures.tracks import Tracks, TrackState
from pipeline.system.packages import require_package

if TYPE_CHECKING:
    import supervision

STAGE = "segment {}"
"""Name, among the timings, of the stage of a segmenter that runs beside the detector."""


@dataclass(frozen=True, eq=False)
class FrameDetections:
    """The detections of one frame, before tracking. Raises ValueError for segments of another image size."""

    frame: Frame
    detections: Detections
    warmup: bool
    """True if the detector's temporal window held fewer real frames than its length."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds spent on this frame by each stage; a batch's time is shared equally among its frames."""
    segments: Mapping[str, Segments] = field(default_factory=dict)
    """Segments by the name of the segmenter, in the order in which the segmenters ran; read-only."""
    maps: Mapping[str, ScoreMap] = field(default_factory=dict)
    """Score maps by the names of `detectors.inference.score_maps`; empty unless they were requested."""

    def __post_init__(self) -> None:
        size = self.frame.image.shape[:2]
        for name, segments in self.segments.items():
            if segments.regions.shape != size:
                shape = segments.regions.shape
                raise ValueError(f"segments of '{name}' have shape {shape}, expected {size}")
        object.__setattr__(self, "segments", MappingProxyType(dict(self.segments)))


@dataclass(frozen=True, eq=False)
class Result(FrameDetections):
    """All that is known about one frame when it reaches the sinks."""

    tracks: Tracks = field(kw_only=True)
    events: tuple[Event, ...] = field(default=(), kw_only=True)
    """Messages about events that start, go on or have ended; empty without rules of events."""

    def to_supervision(self, *, tracks: bool = True) -> supervision.Detections:
        """Returns the confirmed and coasting tracks as `supervision.Detections` with `tracker_id`.

        Without `tracks`, returns the detections, with their masks if there are any. Raises MissingPackage if
        supervision is not installed.
        """
        require_package("supervision", "to_supervision")
        import supervision

        if not tracks:
            found = self.detections
            return supervision.Detections(
                found.boxes.copy(), found.masks, found.scores.copy(), found.labels.astype(int)
            )
        alive = self.tracks[self.tracks.state != TrackState.TENTATIVE]
        return supervision.Detections(
            alive.boxes.copy(),
            confidence=alive.scores.copy(),
            class_id=alive.labels.astype(int),
            tracker_id=alive.ids.astype(int),
        )
