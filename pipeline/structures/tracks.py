"""Tracks alive in one frame, as read-only arrays checked on construction."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from pipeline.structures.detections import BoxRows


class TrackState(IntEnum):
    """The state of a track in its life cycle."""

    TENTATIVE = 0
    """Detected, but not yet often enough to be confirmed."""
    CONFIRMED = 1
    """Confirmed and detected in this frame."""
    COASTING = 2
    """Confirmed but not detected in this frame: its box is a prediction."""


_FIRST_STATE, _LAST_STATE = int(min(TrackState)), int(max(TrackState))  # all between them are states


@dataclass(frozen=True, eq=False, repr=False)
class Tracks(BoxRows):
    """The tracks alive in one frame: an output beside the detections, which it does not filter.

    Boxes are filtered by the tracker; a score is that of the last detection assigned to the track. Raises
    ValueError for arrays of other shapes, unknown states, velocities that are not finite and repeated ids.
    """

    ids: np.ndarray
    """(N,) int64, never reused within a sequence. A tracker returns any from 1; in a result they are 1, 2, 3
    in the order in which tracks were confirmed, and negative for tentative ones."""
    state: np.ndarray
    """(N,) int64 values of `TrackState`."""
    velocity: np.ndarray
    """(N, 2) float32: x and y in source pixels per frame interval."""
    age: np.ndarray
    """(N,) int64: frame intervals since the first detection of the track."""
    provisional: np.ndarray | None = None
    """(N,) int64: in the frame of its confirmation, the id that a track had while it was tentative; else 0. A
    tracker leaves it None."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("ids", "state", "age"):
            self._coerce(name, np.int64, ())
        if self.provisional is not None:
            self._coerce("provisional", np.int64, ())
        self._coerce("velocity", np.float32, (2,))
        if ((self.state < _FIRST_STATE) | (self.state > _LAST_STATE)).any():
            raise ValueError(f"unknown track states: {self.state.tolist()}")
        if not np.isfinite(self.velocity).all():
            raise ValueError("velocities hold NaN or infinite values")
        if len(set(self.ids.tolist())) != len(self.ids):  # quicker than np.unique on few tracks
            raise ValueError(f"track ids must differ: {self.ids.tolist()}")

    @classmethod
    def empty(cls) -> Tracks:
        """Returns no tracks."""
        none = np.zeros(0)
        return cls(np.zeros((0, 4)), none, none, none, none, np.zeros((0, 2)), none)
