"""Constant-velocity Kalman filter on centre, velocity and size, vectorised over boxes.

Motion is the continuous white-noise acceleration model of Bar-Shalom, Li and Kirubarajan, "Estimation with
Applications to Tracking and Navigation" (Wiley, 2001), section 6.2.2: predicting over two frame intervals
equals predicting twice over one, so that skipped frames need no special case. Width and height are random
walks.

The noise is assumed equal along x and y and independent between the axes. The 6×6 covariance of a track then
consists of two equal 2×2 blocks for (x, vx) and (y, vy) and two equal entries for w and h. Storing these four
values is exact, and cheaper than small matrix products; it also makes the gate around a prediction a circle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MIN_SIZE = 1.0
"""Pixels: lower bound of width and height, so that sizes are always positive."""


@dataclass(frozen=True)
class Noise:
    """Standard deviations of process and measurement; "size" is sqrt(w × h) of the track's box."""

    acceleration: float
    """Standard deviation of the change of velocity over one frame interval, in px/frame²."""
    growth: float
    """Standard deviation of the change of w and of h over one frame interval, as a fraction of the size."""
    start_speed: float
    """Standard deviation of the velocity after the first detection, in sizes per frame interval."""
    position_floor: float
    """Standard deviation of a detected centre for a target of size 0, in pixels."""
    position_share: float
    """Standard deviation that is added in quadrature for larger targets, as a fraction of the size."""


def centres_and_sizes(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns centres x y (N, 2) and sizes w h (N, 2) of `boxes` (N, 4) x1 y1 x2 y2, float64 in pixels.

    Sizes are `MIN_SIZE` or more.
    """
    corners = np.asarray(boxes, dtype=np.float64)
    low, high = corners[:, :2], corners[:, 2:]
    return (low + high) / 2, np.maximum(high - low, MIN_SIZE)


class KalmanFilter:
    """Filter states of N tracks, one row each; the tracker adds and removes rows.

    `mean` is (N, 6) float64: centre x y in source pixels, velocity x y in pixels per frame interval, w h in
    pixels. `covariance` is (N, 4) float64: var(x) = var(y), cov(x, vx) = cov(y, vy), var(vx) = var(vy) and
    var(w) = var(h); all other entries of the 6×6 matrix are zero.
    """

    def __init__(self, noise: Noise):
        self.noise = noise
        self.mean = np.zeros((0, 6))
        self.covariance = np.zeros((0, 4))

    def __len__(self) -> int:
        return len(self.mean)

    def add(self, boxes: np.ndarray) -> None:
        """Appends a row per box of (K, 4) x1 y1 x2 y2 in source pixels, with velocity 0 of large variance."""
        centres, sizes = centres_and_sizes(boxes)
        mean = np.concatenate([centres, np.zeros_like(centres), sizes], axis=1)
        variance = self._detection_variance(mean)
        speed_variance = self.noise.start_speed**2 * sizes.prod(axis=1)
        covariance = np.stack([variance, np.zeros_like(variance), speed_variance, 4 * variance], axis=1)
        self.mean = np.concatenate([self.mean, mean])
        self.covariance = np.concatenate([self.covariance, covariance])

    def keep(self, rows: np.ndarray) -> None:
        """Keeps only `rows`, an index array or a (N,) boolean mask."""
        self.mean = self.mean[rows]
        self.covariance = self.covariance[rows]

    def predict(self, dt: float) -> None:
        """Predicts all rows `dt` frame intervals ahead; the process noise is op. cit., eq. 6.2.2-4."""
        self.mean[:, :2] += dt * self.mean[:, 2:4]
        position, cross, speed, size = self.covariance.T  # views: assignments write through
        intensity = self.noise.acceleration**2
        position += dt * (2 * cross + dt * speed) + intensity * dt**3 / 3
        cross += dt * speed + intensity * dt**2 / 2
        speed += intensity * dt
        size += dt * self.noise.growth**2 * self.mean[:, 4:].prod(axis=1)

    def update(self, rows: np.ndarray, boxes: np.ndarray) -> None:
        """Updates `rows` (K,), all different, by detected `boxes` (K, 4), x1 y1 x2 y2 in source pixels.

        Op. cit., section 5.2.3.
        """
        centres, sizes = centres_and_sizes(boxes)
        mean, covariance = self.mean[rows], self.covariance[rows]
        position, cross, speed, size = covariance.T
        variance = self._detection_variance(mean)
        gain = position / (position + variance)
        speed_gain = cross / (position + variance)
        size_gain = size / (size + 4 * variance)
        residual = centres - mean[:, :2]
        mean[:, :2] += gain[:, None] * residual
        mean[:, 2:4] += speed_gain[:, None] * residual
        mean[:, 4:] += size_gain[:, None] * (sizes - mean[:, 4:])
        self.mean[rows] = mean
        self.covariance[rows] = np.stack(
            [(1 - gain) * position, (1 - gain) * cross, speed - speed_gain * cross, (1 - size_gain) * size],
            axis=1,
        )

    def innovation_variance(self) -> np.ndarray:
        """Returns the variance (N,), in px², of a detected centre around the predicted one, along each axis.

        |detected − predicted|² divided by it is the squared Mahalanobis distance, which is chi-square
        distributed with 2 degrees of freedom.
        """
        return self.covariance[:, 0] + self._detection_variance(self.mean)

    def boxes(self) -> np.ndarray:
        """Returns the boxes (N, 4) float64 x1 y1 x2 y2 in source pixels."""
        half = self.mean[:, 4:] / 2
        return np.concatenate([self.mean[:, :2] - half, self.mean[:, :2] + half], axis=1)

    def _detection_variance(self, mean: np.ndarray) -> np.ndarray:
        """Returns the variance (N,), in px², of a detected centre along one axis.

        That of a detected width is four times as large: if the errors of two edges are independent, the
        centre is half their sum and the width is their difference.
        """
        return self.noise.position_floor**2 + self.noise.position_share**2 * mean[:, 4:].prod(axis=1)
