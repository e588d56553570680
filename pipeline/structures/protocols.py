"""Protocols of the networks and trackers that the pipeline runs."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Protocol

from pipeline.structures.detections import Detections, ScoreMap, Segments
from pipeline.structures.frame import Frame
from pipeline.structures.results import FrameDetections
from pipeline.structures.tracks import Tracks


class Detector(Protocol):
    """A detector of any kind: multi-frame network, segmenter or adapter."""

    window: int
    """Length of the temporal window in frames; 1 for single-frame detectors."""

    def detect(self, groups: Iterable[tuple[Frame, ...]]) -> Generator[FrameDetections]:
        """Yields the detections of each frame of a sequence; the frames come in order, in batches."""


class SegmentStage(Protocol):
    """A single-frame segmenter that runs beside a detector."""

    name: str
    """Key of its segments and score maps in the results."""

    def __call__(self, frames: Sequence[Frame]) -> list[tuple[Segments, ScoreMap | None]]:
        """Returns the segments of each frame, and its probability map if maps are kept."""


class Tracker(Protocol):
    """A tracker of any kind."""

    def update(self, detections: Detections, frame: Frame) -> Tracks:
        """Returns the tracks alive in `frame`, given its detections; frames come in order of their index.

        `frame.time_in_frames` is the time that has passed, and `frame.gap` says whether it is known.
        """

    def reset(self) -> None:
        """Starts a new sequence: all tracks end, and ids count from 1 again."""
