"""Stage that joins the detections of successive frames to tracks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from pipeline.structures.detections import Detections, Segments
from pipeline.structures.frame import Frame
from pipeline.structures.protocols import Tracker
from pipeline.structures.results import FrameDetections, Result
from pipeline.structures.tracks import Tracks, TrackState

REMEMBERED = 10_000
"""Number of frames for which the number of a track is kept although the tracker does not return it: those of
mmdet do not return tracks without a detection."""


class NumberedTracker:
    """Gives the confirmed tracks of another tracker the ids 1, 2, 3 in the order of their confirmation.

    Tracks confirmed in the same frame are numbered in the order of their ids. A tentative track has the
    negative of its own id, and the row of its confirmation names this as `Tracks.provisional`, so that all
    rows of a track can be found. A track that was confirmed once keeps its number. Memory is proportional to
    the number of tracks of the last `REMEMBERED` frames.

    Args:
        tracker: any tracker; its ids are positive and never used twice.
    """

    def __init__(self, tracker: Tracker):
        self._tracker = tracker
        self._forget()

    def reset(self) -> None:
        """Starts a new sequence: all tracks end, and ids count from 1 again."""
        self._tracker.reset()
        self._forget()

    def _forget(self) -> None:
        self._numbers: dict[int, int] = {}  # id of the tracker → number, 0 while it is tentative
        self._seen: dict[int, int] = {}  # id of the tracker → number of the frame it was last returned in
        self._confirmed = self._frames = 0

    def update(self, detections: Detections, frame: Frame) -> Tracks:
        """Returns the tracks of the tracker with their numbers: by confirmation, then tentative ones."""
        tracks = self._tracker.update(detections, frame)
        self._frames += 1
        if not self._frames % REMEMBERED:
            self._remove_old()
        if not len(tracks):
            return tracks
        own = tracks.ids
        tentative = tracks.state == TrackState.TENTATIVE
        ids, provisional = np.empty_like(own), np.zeros_like(own)
        for row in np.argsort(own, kind="stable"):
            ids[row], provisional[row] = self._number(int(own[row]), tentative=bool(tentative[row]))
        order = np.lexsort((np.abs(ids), ids < 0))
        return replace(tracks, ids=ids, provisional=provisional)[order]

    def _number(self, own: int, *, tentative: bool) -> tuple[int, int]:
        """Returns the number of the track with the id `own` of the tracker, and its provisional id or 0."""
        self._seen[own] = self._frames
        known = self._numbers.get(own)
        if known:
            return known, 0
        if tentative:
            self._numbers[own] = 0
            return -own, 0
        self._confirmed += 1
        self._numbers[own] = self._confirmed
        return self._confirmed, 0 if known is None else -own

    def _remove_old(self) -> None:
        """Forgets the tracks that were not returned for long."""
        self._seen = {own: seen for own, seen in self._seen.items() if self._frames - seen < REMEMBERED}
        self._numbers = {own: number for own, number in self._numbers.items() if own in self._seen}


def track(results: Iterable[FrameDetections], tracker: Tracker) -> Iterator[Result]:
    """Yields the results of each frame with the tracks of `tracker` added, numbered by their confirmation.

    A frame that shows the closed shutter of the camera has no detections and no segments: those found are of
    the image before it.
    """
    numbered = tracker if isinstance(tracker, NumberedTracker) else NumberedTracker(tracker)
    for item in results:
        item = _without_shutter(item)
        started = time.perf_counter()
        tracks = numbered.update(item.detections, item.frame)
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
