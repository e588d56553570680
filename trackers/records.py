"""Tracks of a frame from the records of a tracker."""

from __future__ import annotations

import numpy as np

from pipeline.structures.tracks import Tracks, TrackState


def tracks_of(records: np.ndarray, boxes: np.ndarray, velocity: np.ndarray) -> Tracks:
    """Returns the tracks of a frame.

    Args:
        records: (N,) structured array with the fields score, label, id, confirmed, coasted and age.
        boxes: (N, 4) x1 y1 x2 y2 in source pixels.
        velocity: (N, 2) x and y in pixels per frame interval.
    """
    if not len(records):
        return Tracks.empty()
    state_if_confirmed = np.where(records["coasted"] == 0, TrackState.CONFIRMED, TrackState.COASTING)
    return Tracks(
        boxes=boxes,
        scores=records["score"],
        labels=records["label"],
        ids=records["id"],
        state=np.where(records["confirmed"], state_if_confirmed, TrackState.TENTATIVE),
        velocity=velocity,
        age=np.rint(records["age"]),
    )
