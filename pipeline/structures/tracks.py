"""pipeline.structures.tracks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from pipeline.structures.detections import _Rows


class TrackState(IntEnum):
    """Where a track is in its life."""

    TENTATIVE = 0
    """Seen, but not often enough to be believed."""
    CONFIRMED = 1
    """Believed, and seen in this frame."""
    COASTING = 2
    """Believed, but not seen in this frame: its box is a prediction."""


@dataclass(frozen=True, eq=False)
class Tracks(_Rows):
    """The tracks alive in one frame: a second output beside Detections, never a filter on them."""

    boxes: np.ndarray
    """(N, 4) float32: filtered x1 y1 x2 y2 in source pixels, right and bottom exclusive."""
    scores: np.ndarray
    """(N,) float32: score of the last detection that was joined to the track."""
    labels: np.ndarray
    """(N,) int64: class index from 0."""
    ids: np.ndarray
    """(N,) int64: from 1, never used twice within a sequence."""
    state: np.ndarray
    """(N,) int64 values of `TrackState`."""
    velocity: np.ndarray
    """(N, 2) float32: x and y, source pixels per frame interval."""
    age: np.ndarray
    """(N,) int64: frame intervals since the first detection of the track."""

    def __post_init__(self):
        self._coerce("boxes", np.float32, (4,))
        self._coerce("scores", np.float32, ())
        for name in ("labels", "ids", "state", "age"):
            self._coerce(name, np.int64, ())
        self._coerce("velocity", np.float32, (2,))
        self._check_boxes()
        if not np.isin(self.state, list(TrackState)).all():
            raise ValueError(f"unknown track states: {self.state.tolist()}")
        if not np.isfinite(self.velocity).all():
            raise ValueError("velocities hold NaN or infinite values")
        if len(np.unique(self.ids)) != len(self.ids):
            raise ValueError(f"track ids must differ: {self.ids.tolist()}")

    @classmethod
    def empty(cls) -> Tracks:
        """No tracks."""
        none = np.zeros(0)
        return cls(np.zeros((0, 4)), none, none, none, none, np.zeros((0, 2)), none)
