"""Kalman filter of boxes for trackers by overlap.

The noise is that of the program of Zhang et al., "ByteTrack" (ECCV 2022): standard deviations are shares of
the size of the box, here of sqrt(w × h). Width and height have no velocity, which would be noise for a target
of a few pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from pipeline.structures.boxes import from_centres, to_centres

MIN_SIZE = 1.0
"""Pixels: lower bound of width and height."""
START_FACTOR = 10.0
"""Standard deviation of the velocity of a new track, in those of its change per frame."""


@dataclass(frozen=True)
class BoxNoise:
    """Standard deviations as shares of the size sqrt(w × h) of a box."""

    position: float
    """Of a measured centre, width and height, and of what each frame interval adds to them."""
    velocity: float
    """Of the change of the velocity in one frame interval."""


@dataclass(frozen=True, eq=False)
class States:
    """States of N boxes, one row each. The arrays are never changed in place."""

    mean: np.ndarray
    """(N, 6) float64: centre x y, velocity x y per frame interval, width and height, in pixels."""
    covariance: np.ndarray
    """(N, 4) float64: var(x) = var(y), cov(x, vx) = cov(y, vy), var(vx) = var(vy), var(w) = var(h); others
    are 0."""

    @classmethod
    def empty(cls) -> Self:
        """Returns no states."""
        return cls(np.zeros((0, 6)), np.zeros((0, 4)))

    def __len__(self) -> int:
        return len(self.mean)

    def take(self, rows: np.ndarray) -> States:
        """Returns the states of an index array or of a mask (N,) bool."""
        return States(self.mean[rows], self.covariance[rows])

    def joined(self, other: States) -> States:
        """Returns these states and then the others."""
        pairs = ((self.mean, other.mean), (self.covariance, other.covariance))
        return States(*(np.concatenate(pair) for pair in pairs))

    def replaced(self, rows: np.ndarray, new: States) -> States:
        """Returns the states with the index array `rows` (K,) replaced by those of `new`."""
        mean, covariance = self.mean.copy(), self.covariance.copy()
        mean[rows], covariance[rows] = new.mean, new.covariance
        return States(mean, covariance)

    def boxes(self) -> np.ndarray:
        """Returns the boxes (N, 4) float64 x1 y1 x2 y2."""
        return from_centres(self.mean[:, [0, 1, 4, 5]])

    def moved(self, motion: np.ndarray) -> States:
        """Returns the states after a motion (2, 3) of the camera, which maps pixel coordinates."""
        linear, shift = motion[:, :2], motion[:, 2]
        scale = np.sqrt(abs(np.linalg.det(linear)))
        centres = self.mean[:, :2] @ linear.T + shift
        velocities = self.mean[:, 2:4] @ linear.T
        mean = np.concatenate([centres, velocities, scale * self.mean[:, 4:]], axis=1)
        return States(mean, self.covariance * scale**2)


def started(boxes: np.ndarray, noise: BoxNoise) -> States:
    """Returns states of new tracks for `boxes` (K, 4) x1 y1 x2 y2, with velocity 0 of a large variance."""
    rows = to_centres(np.asarray(boxes, np.float64))
    rows[:, 2:] = np.maximum(rows[:, 2:], MIN_SIZE)
    mean = np.concatenate([rows[:, :2], np.zeros((len(rows), 2)), rows[:, 2:]], axis=1)
    square = rows[:, 2:].prod(axis=1)
    position, speed = noise.position**2 * square, (START_FACTOR * noise.velocity) ** 2 * square
    return States(mean, np.stack([position, 0 * position, speed, position], axis=1))


def predicted(states: States, elapsed: float, noise: BoxNoise) -> States:
    """Returns the states `elapsed` frame intervals later, 0 or more.

    The noise is added after each interval, as in the published filters, which know no other step than one; a
    rest of less than one interval adds this share of it.
    """
    mean = states.mean.copy()
    mean[:, :2] += elapsed * mean[:, 2:4]
    position, cross, speed, size = states.covariance.T
    square = mean[:, 4:].prod(axis=1)
    step_position, step_speed = noise.position**2 * square, noise.velocity**2 * square
    while elapsed > 0:
        step = min(1.0, elapsed)
        elapsed -= step
        position = position + step * (2 * cross + step * speed) + step * step_position
        cross = cross + step * speed
        speed = speed + step * step_speed
        size = size + step * step_position
    return States(mean, np.stack([position, cross, speed, size], axis=1))


def corrected(states: States, boxes: np.ndarray, noise: BoxNoise) -> States:
    """Returns the states after the detection of `boxes` (N, 4) x1 y1 x2 y2, one for each."""
    rows = to_centres(np.asarray(boxes, np.float64))
    mean = states.mean.copy()
    position, cross, speed, size = states.covariance.T
    variance = noise.position**2 * mean[:, 4:].prod(axis=1)
    gain, speed_gain = position / (position + variance), cross / (position + variance)
    size_gain = size / (size + variance)
    residual = rows[:, :2] - mean[:, :2]
    mean[:, :2] += gain[:, None] * residual
    mean[:, 2:4] += speed_gain[:, None] * residual
    mean[:, 4:] += size_gain[:, None] * (np.maximum(rows[:, 2:], MIN_SIZE) - mean[:, 4:])
    columns = [(1 - gain) * position, (1 - gain) * cross, speed - speed_gain * cross, (1 - size_gain) * size]
    return States(mean, np.stack(columns, axis=1))
