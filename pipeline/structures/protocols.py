"""pipeline.structures.protocols."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Protocol

from pipeline.structures.detections import Detections, ScoreMap, Segments
from pipeline.structures.frame import Frame
from pipeline.structures.results import FrameDetections
from pipeline.structures.tracks import Tracks


class Detector(Protocol):
    """What finds the targets, whatever network is behind it."""

    window: int
    """Frames that it looks at together."""

    def reset(self) -> None:
        """Start a new sequence."""

    def detect(self, groups: Iterable[tuple[Frame, ...]]) -> Generator[FrameDetections]:
        """The frames of a sequence, in order and in groups, with what is in each."""


class SegmentStage(Protocol):
    """A single-frame segmenter that runs beside a detector."""

    name: str
    """Key of its segments and score maps in the results."""

    def __call__(self, frames: Sequence[Frame]) -> list[tuple[Segments, ScoreMap | None]]:
        """Returns the segments of each frame, and its probability map if maps are kept."""


class Tracker(Protocol):
    """What the pipeline asks of a tracker."""

    def update(self, detections: Detections, frame: Frame) -> Tracks:
        """The tracks alive in `frame`, given what was detected in it; frames come in order of their index.

        `frame.time_in_frames` tells how much time went by, and `frame.gap` whether that is known.
        """

    def reset(self) -> None:
        """Forget everything: the next frame starts a new sequence, with ids from 1 again."""
