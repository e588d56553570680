"""Stage that joins the detections of successive frames to tracks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from pipeline.structures.protocols import Tracker
from pipeline.structures.results import FrameDetections, Result


def track(results: Iterable[FrameDetections], tracker: Tracker) -> Iterator[Result]:
    """Yields the results of each frame with the tracks of `tracker` added."""
    for item in results:
        started = time.perf_counter()
        tracks = tracker.update(item.detections, item.frame)
        timings = {**item.timings, "track": time.perf_counter() - started}
        yield Result(
            item.frame, item.detections, item.warmup, timings, item.segments, item.maps, tracks=tracks
        )
