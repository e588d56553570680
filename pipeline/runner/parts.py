"""The networks and trackers that a run is built from.

The pipeline knows protocols, but no network and no tracker: the program that starts a run passes the
functions that make them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pipeline.config.schema import DetectorConfig, RunConfig, SegmentationConfig
from pipeline.stages.classes import class_labels
from pipeline.structures.detector_info import DetectorInfo, SegmenterInfo
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.structures.protocols import Detector, SegmentStage, Tracker
from pipeline.structures.results import FrameDetections
from pipeline.system.errors import UsageError

Tag = TypeVar("Tag")


class MultiStreamDetector(Protocol):
    """A detector that several streams share; each stream has a state of its own."""

    window: int
    """Number of frames in the temporal window."""

    def detect(
        self, rounds: Iterable[tuple[Iterable[tuple[int, Frame]], Tag]]
    ) -> Generator[tuple[list[tuple[int, FrameDetections]], Tag]]:
        """Yields the detections of each round of frames, with the number of their stream, and its tag."""

    def end(self, number: int) -> None:
        """Resets the state of a stream that has ended."""


class LoadDetector(Protocol):
    """Loads the detector of a configuration."""

    def __call__(self, config: DetectorConfig, *, maps: bool = False) -> tuple[Detector, DetectorInfo]:
        """Returns the detector and its description; `maps` asks it for score maps. Raises MoteError."""


class LoadSegmenters(Protocol):
    """Loads the segmenters that run beside a detector."""

    def __call__(
        self, config: SegmentationConfig, detector: DetectorConfig, *, maps: bool = False
    ) -> tuple[list[SegmentStage], list[SegmenterInfo]]:
        """Returns the segmenters and their descriptions in configured order. Raises MoteError."""


def as_configured(config: DetectorConfig, sources: Sequence[SourceInfo]) -> DetectorConfig:
    """Returns the configuration of a detector unchanged."""
    return config


@dataclass(frozen=True)
class Parts:
    """Functions that make the networks and trackers of a run."""

    load_detector: LoadDetector
    load_segmenters: LoadSegmenters
    build_tracker: Callable[[str, Mapping[str, Any]], Tracker]
    """Builds a tracker from its name and options."""
    share: Callable[[Detector, int], MultiStreamDetector]
    """Shares a detector among a number of streams."""
    fit: Callable[[DetectorConfig, Sequence[SourceInfo]], DetectorConfig] = as_configured
    """Returns the configuration of the detector that fits its sources and the machine. Raises MoteError."""


@dataclass(frozen=True)
class Networks:
    """The loaded networks of a run and their descriptions."""

    detector: Detector
    info: DetectorInfo
    segmenters: list[SegmentStage]
    segmenter_infos: list[SegmenterInfo]
    kept_labels: tuple[int, ...] | None = None
    """Labels of the detections that are kept; None for all."""

    @property
    def segmenter_names(self) -> list[str]:
        """Names of the segmenters beside the detector, in their order."""
        return [segmenter.name for segmenter in self.segmenters]

    @property
    def mask_names(self) -> list[str]:
        """Names of all networks that mark pixels: the detector, if it is a segmenter, and those beside it."""
        return [*([self.info.name] if self.info.segmenter else []), *self.segmenter_names]


def load_networks(config: RunConfig, parts: Parts, sources: Sequence[SourceInfo]) -> Networks:
    """Loads the detector and the segmenters of a configuration, for these sources. Raises MoteError."""
    maps = config.output.zarr
    detector, info = parts.load_detector(parts.fit(config.detector, sources), maps=maps)
    kept = class_labels(config.detector.classes, info.classes) if config.detector.classes else None
    if kept and 0 not in kept and config.segmentation.fuse == "union":
        raise UsageError(
            f"--fuse union adds detections of class 0 ({info.classes[0]}), which --classes leaves out"
        )
    segmenters, infos = parts.load_segmenters(config.segmentation, config.detector, maps=maps)
    return Networks(detector, info, segmenters, infos, kept)
