"""pipeline.structures.results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from pipeline.structures.detections import Detections, ScoreMap, Segments
from pipeline.structures.frame import Frame
from pipeline.structures.tracks import Tracks

STAGE = "segment {}"
"""Name of the stage of a segmenter that runs beside the detector, among the timings."""


@dataclass(frozen=True, eq=False)
class Result:
    """All that is known about one frame when it reaches the sinks."""

    frame: Frame
    detections: Detections
    tracks: Tracks
    warmup: bool
    """True while fewer real frames stood behind this one than the detector's window holds."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds spent on this frame by each stage; a batch's time is shared equally among its frames."""
    segments: Mapping[str, Segments] = field(default_factory=dict)
    """What was marked in this frame, by the name of the segmenter, in the order in which they ran."""
    maps: Mapping[str, ScoreMap] = field(default_factory=dict)
    """Where they are asked for, the maps behind it, by the names of `detectors.inference.score_maps`."""

    def __post_init__(self):
        size = self.frame.image.shape[:2]
        for name, segments in self.segments.items():
            if segments.regions.shape != size:
                shape = segments.regions.shape
                raise ValueError(f"segments of '{name}' have shape {shape}, expected {size}")
        object.__setattr__(self, "segments", MappingProxyType(dict(self.segments)))


class FrameDetections(NamedTuple):
    """One frame with its detections."""

    frame: Frame
    detections: Detections
    warmup: bool
    timings: Mapping[str, float]
    segments: Mapping[str, Segments] = MappingProxyType({})
    """What segmenters marked, by their names."""
    maps: Mapping[str, ScoreMap] = MappingProxyType({})
    """Where they are asked for, the maps behind it, by the names of `detectors.inference.score_maps`."""
