"""Which detection belongs to which track of a frame."""

from __future__ import annotations

import numpy as np

from pipeline.structures.detections import Detections
from pipeline.structures.tracks import Tracks, TrackState


def track_ids(detections: Detections, tracks: Tracks) -> np.ndarray:
    """Returns the id of the track that each of N detections is assigned to, (N,) int64; 0 for none.

    A track has exactly the score of its last detection. It is assigned the nearest of the detections with
    this score whose centre is no farther than the sum of the diagonals of both boxes.
    """
    ids = np.zeros(len(detections), np.int64)
    tracks = tracks[tracks.state != TrackState.COASTING]
    found_centres, found_diagonals = _centres_and_diagonals(detections.boxes)
    centres, diagonals = _centres_and_diagonals(tracks.boxes)
    distances = np.linalg.norm(centres[:, None] - found_centres, axis=-1)  # (tracks, N)
    is_near = distances <= diagonals[:, None] + found_diagonals
    possible = (tracks.scores[:, None] == detections.scores) & is_near
    for row, track_id in enumerate(tracks.ids):
        candidates = np.flatnonzero(possible[row] & (ids == 0))
        if candidates.size:
            ids[candidates[np.argmin(distances[row, candidates])]] = track_id
    return ids


def _centres_and_diagonals(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the centres, (N, 2), and diagonals, (N,), of boxes, (N, 4) x1 y1 x2 y2."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return (low + high) / 2, np.linalg.norm(high - low, axis=1)
