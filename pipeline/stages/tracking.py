"""pipeline.stages.tracking."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from pipeline.structures.protocols import Tracker
from pipeline.structures.results import FrameDetections, Result


def track(found: Iterable[FrameDetections], tracker: Tracker) -> Iterator[Result]:
    """Join the detections of successive frames to tracks."""
    for frame, detections, warmup, timings, segments, maps in found:
        started = time.perf_counter()
        tracks = tracker.update(detections, frame)
        timings = {**timings, "track": time.perf_counter() - started}
        yield Result(frame, detections, tracks, warmup, timings, segments, maps)
