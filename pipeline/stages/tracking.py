"""Stage that joins the detections of successive frames to tracks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from pipeline.structures.detections import Detections, Segments
from pipeline.structures.protocols import Tracker
from pipeline.structures.results import FrameDetections, Result


def track(results: Iterable[FrameDetections], tracker: Tracker) -> Iterator[Result]:
    """Yields the results of each frame with the tracks of `tracker` added.

    A frame that shows the closed shutter of the camera has no detections and no segments: those found are of
    the image before it.
    """
    for item in results:
        item = _without_shutter(item)
        started = time.perf_counter()
        tracks = tracker.update(item.detections, item.frame)
        timings = {**item.timings, "track": time.perf_counter() - started}
        yield Result(
            item.frame, item.detections, item.warmup, timings, item.segments, item.maps, tracks=tracks
        )


def _without_shutter(item: FrameDetections) -> FrameDetections:
    """Returns the result, emptied if its frame shows the closed shutter."""
    if not item.frame.shutter_closed:
        return item
    segments = {
        name: Segments(np.zeros_like(found.regions), Detections.empty())
        for name, found in item.segments.items()
    }
    maps = {name: replace(grid, values=np.zeros_like(grid.values)) for name, grid in item.maps.items()}
    return replace(item, detections=Detections.empty(), segments=segments, maps=maps)
