"""Kalman filters with interacting motion models on centre, velocity and size, vectorised over boxes.

Motion is the continuous white-noise acceleration model of Bar-Shalom, Li and Kirubarajan, "Estimation with
Applications to Tracking and Navigation" (Wiley, 2001), section 6.2.2. Width and height are random walks.

A target that flies straight is predicted best with little acceleration, one that turns or is shaken with
much. No single value serves both, so each track has one filter per value, and the probability of each follows
from how well it predicted the detections. This is the interacting multiple model algorithm of Blom and
Bar-Shalom, IEEE Transactions on Automatic Control 33(8), 1988; op. cit., 11.6.6: before each prediction
the states of the filters are mixed by the probabilities that a target has changed its model.

The noise is assumed equal along x and y and independent between the axes. The covariance of centre and
velocity then consists of two equal 2×2 blocks for (x, vx) and (y, vy), and that of the size of two equal
entries. Storing these four values is exact for one model, and cheaper than small matrix products; it also
makes the gate around a prediction a circle. Where models are mixed, the spread of their means is added to the
covariance as its mean over both axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MIN_SIZE = 1.0
"""Pixels: lower bound of width and height, so that sizes are always positive."""

MIN_PROBABILITY = 1e-6
"""Lower bound of a model's probability, so that none is lost by underflow."""


@dataclass(frozen=True)
class Noise:
    """Standard deviations of process and measurement; "size" is sqrt(w × h) of the track's box."""

    accelerations: tuple[float, ...]
    """Standard deviation of the change of velocity over one frame interval in each of the M models, in
    px/frame²."""
    shares: tuple[float, ...]
    """Probability of each model for a target of which nothing is known; they add up to 1."""
    persistence: float
    """Probability that a target follows its model for one frame interval without change. After a change the
    new model is drawn from `shares`, so that transitions over two intervals are those over one, twice."""
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
    """Filter states of N tracks in M models, one row each; the tracker adds and removes rows.

    `means` is (N, M, 4) float64: centre x y in source pixels, velocity x y in pixels per frame interval.
    `covariances` is (N, M, 3) float64: var(x) = var(y), cov(x, vx) = cov(y, vy) and var(vx) = var(vy).
    `sizes` is (N, 2) float64, w h in pixels, and `size_variance` (N,) float64 that of both: the models differ
    in motion only. All other entries of the covariance matrix are zero. `probability` is (N, M) float64, that
    of each model; a row adds up to 1.
    """

    def __init__(self, noise: Noise):
        self.noise = noise
        self._intensity = np.square(noise.accelerations)
        self._shares = np.array(noise.shares, dtype=np.float64)
        count = len(self._shares)
        self.means = np.zeros((0, count, 4))
        self.covariances = np.zeros((0, count, 3))
        self.sizes = np.zeros((0, 2))
        self.size_variance = np.zeros(0)
        self.probability = np.zeros((0, count))

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def mean(self) -> np.ndarray:
        """The mean of the mixture of the models, (N, 4): centre x y and velocity x y."""
        return np.einsum("nm,nmk->nk", self.probability, self.means)

    def add(self, boxes: np.ndarray) -> None:
        """Appends a row per box of (K, 4) x1 y1 x2 y2 in source pixels, with velocity 0 of large variance."""
        centres, sizes = centres_and_sizes(boxes)
        variance = self._detection_variance(sizes)
        speed_variance = self.noise.start_speed**2 * sizes.prod(axis=1)
        state = np.concatenate([centres, np.zeros_like(centres)], axis=1)
        covariance = np.stack([variance, np.zeros_like(variance), speed_variance], axis=1)
        count = len(self._shares)
        self.means = np.concatenate([self.means, np.repeat(state[:, None], count, axis=1)])
        self.covariances = np.concatenate([self.covariances, np.repeat(covariance[:, None], count, axis=1)])
        self.sizes = np.concatenate([self.sizes, sizes])
        self.size_variance = np.concatenate([self.size_variance, 4 * variance])
        self.probability = np.concatenate([self.probability, np.tile(self._shares, (len(boxes), 1))])

    def keep(self, rows: np.ndarray) -> None:
        """Keeps only `rows`, an index array or a (N,) boolean mask."""
        for name in ("means", "covariances", "sizes", "size_variance", "probability"):
            setattr(self, name, getattr(self, name)[rows])

    def predict(self, dt: float) -> None:
        """Predicts all rows `dt` frame intervals ahead; the process noise is op. cit., eq. 6.2.2-4."""
        if len(self._shares) > 1 and dt > 0:
            self._mix(self.noise.persistence**dt)
        self.means[..., :2] += dt * self.means[..., 2:]
        position, cross, speed = np.moveaxis(self.covariances, -1, 0)  # views: assignments write through
        position += dt * (2 * cross + dt * speed) + self._intensity * (dt**3 / 3)
        cross += dt * speed + self._intensity * (dt**2 / 2)
        speed += self._intensity * dt
        self.size_variance += dt * self.noise.growth**2 * self.sizes.prod(axis=1)

    def move(self, motion: np.ndarray) -> None:
        """Moves all rows with the camera: `motion` (2, 3) maps the pixel coordinates they have to new ones.

        Positions are mapped, velocities turned and scaled, sizes scaled. Variances are multiplied by the mean
        scale of areas, which is exact for shifts, turns and zooms.
        """
        linear, shift = motion[:, :2], motion[:, 2]
        scale = abs(np.linalg.det(linear))  # of areas
        self.means[..., :2] = self.means[..., :2] @ linear.T + shift
        self.means[..., 2:] = self.means[..., 2:] @ linear.T
        self.sizes *= np.sqrt(scale)
        self.covariances *= scale
        self.size_variance *= scale

    def update(self, rows: np.ndarray, boxes: np.ndarray) -> None:
        """Updates `rows` (K,), all different, by detected `boxes` (K, 4), x1 y1 x2 y2 in source pixels.

        Op. cit., section 5.2.3 for the states and 11.6.6 for the probabilities of the models.
        """
        centres, sizes = centres_and_sizes(boxes)
        means, (position, cross, speed) = self.means[rows], np.moveaxis(self.covariances[rows], -1, 0)
        variance = self._detection_variance(self.sizes[rows])[:, None]
        innovation = position + variance
        gain, speed_gain = position / innovation, cross / innovation
        residual = centres[:, None] - means[..., :2]
        means[..., :2] += gain[..., None] * residual
        means[..., 2:] += speed_gain[..., None] * residual
        self.means[rows] = means
        corrected = (1 - gain) * position, (1 - gain) * cross, speed - speed_gain * cross
        self.covariances[rows] = np.stack(corrected, axis=-1)
        self._weigh(rows, (residual**2).sum(axis=-1), innovation)
        size_gain = self.size_variance[rows] / (self.size_variance[rows] + 4 * variance[:, 0])
        self.sizes[rows] += size_gain[:, None] * (sizes - self.sizes[rows])
        self.size_variance[rows] *= 1 - size_gain

    def innovation_variances(self) -> np.ndarray:
        """Returns the variance (N, M), in px², of a detected centre around each prediction, along each axis.

        |detected − predicted|² divided by it is the squared Mahalanobis distance, which is chi-square
        distributed with 2 degrees of freedom.
        """
        return self.covariances[..., 0] + self._detection_variance(self.sizes)[:, None]

    def detection_variances(self) -> np.ndarray:
        """Returns the variance (N,), in px², of a detected centre around the true one, along each axis."""
        return self._detection_variance(self.sizes)

    def boxes(self) -> np.ndarray:
        """Returns the boxes (N, 4) float64 x1 y1 x2 y2 in source pixels."""
        centres, half = self.mean[:, :2], self.sizes / 2
        return np.concatenate([centres - half, centres + half], axis=1)

    def _detection_variance(self, sizes: np.ndarray) -> np.ndarray:
        """Returns the variance (N,), in px², of a detected centre along one axis; `sizes` is (N, 2).

        That of a detected width is four times as large: if the errors of two edges are independent, the
        centre is half their sum and the width is their difference.
        """
        return self.noise.position_floor**2 + self.noise.position_share**2 * sizes.prod(axis=1)

    def _mix(self, persistence: float) -> None:
        """Mixes the states by the probabilities that a target came from each model; op. cit., 11.6.6."""
        transition = persistence * np.eye(len(self._shares)) + (1 - persistence) * self._shares  # from, to
        predicted = self.probability @ transition
        # (N, from, to): the probability that a target which now follows "to" followed "from" before
        origin = self.probability[:, :, None] * transition / predicted[:, None]
        mixed = np.einsum("nft,nfk->ntk", origin, self.means)
        spread = self.means[:, :, None] - mixed[:, None]  # (N, from, to, 4)
        squares, cross = spread**2, spread[..., :2] * spread[..., 2:]
        added = np.stack([squares[..., :2].sum(-1), cross.sum(-1), squares[..., 2:].sum(-1)], axis=-1) / 2
        self.covariances = np.einsum("nft,nftk->ntk", origin, self.covariances[:, :, None] + added)
        self.means, self.probability = mixed, predicted

    def _weigh(self, rows: np.ndarray, squared: np.ndarray, variance: np.ndarray) -> None:
        """Updates the probabilities of the models of `rows` (K,) by the likelihoods of the detections.

        `squared` (K, M) are the squared distances to the predictions and `variance` (K, M) their variances.
        """
        exponent = -squared / (2 * variance)
        weights = self.probability[rows] / variance * np.exp(exponent - exponent.max(axis=1, keepdims=True))
        weights = np.maximum(weights / weights.sum(axis=1, keepdims=True), MIN_PROBABILITY)
        self.probability[rows] = weights / weights.sum(axis=1, keepdims=True)
