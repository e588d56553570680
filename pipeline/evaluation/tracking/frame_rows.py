"""Targets and tracks of each scored frame, as the track metrics need them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.evaluation.tracking.identities import target_identities
from pipeline.evaluation.tracking.track_rows import TrackRows, read_tracks
from pipeline.structures.annotations import VideoRecord


class TrackedVideo(NamedTuple):
    """Ground truth and tracks of one video, and the frames that were processed."""

    record: VideoRecord
    tracks: TrackRows | str | Path
    """Rows, or the path of a MOT file."""
    frames: Iterable[int] | None = None
    """Indices of the processed frames; None for all annotated frames."""


class FrameRows(NamedTuple):
    """Targets and tracks of one frame."""

    frame: int
    """Index from 0."""
    targets: np.ndarray
    """(N,) int64 identities."""
    target_boxes: np.ndarray
    """(N, 4) float32 x1 y1 x2 y2 in pixels."""
    tracks: np.ndarray
    """(M,) int64 ids, ascending."""
    track_boxes: np.ndarray
    """(M, 4) float32 x1 y1 x2 y2 in pixels."""
    scores: np.ndarray
    """(M,) float64 of the tracks in this frame."""


def scored_frames(video: TrackedVideo) -> Iterator[FrameRows]:
    """Yields the frames that are annotated and were processed, in order.

    Raises UsageError if the file of the tracks is malformed or the identities of targets are ambiguous.
    """
    record = video.record
    rows = video.tracks if isinstance(video.tracks, TrackRows) else read_tracks(video.tracks)
    scored = set(record.image_ids) if video.frames is None else set(record.image_ids) & set(video.frames)
    identities = target_identities(record)
    order = np.lexsort((rows.ids, rows.frames))
    sorted_frames = rows.frames[order]
    for frame in sorted(scored):
        first, end = (np.searchsorted(sorted_frames, frame, side=side) for side in ("left", "right"))
        present = order[first:end]
        yield FrameRows(
            frame,
            identities[frame],
            record.boxes[frame],
            rows.ids[present],
            rows.boxes[present],
            rows.scores[present],
        )
