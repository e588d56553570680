"""Fixed-interval smoothing of the path and the size of one target.

The smoother is that of Rauch, Tung and Striebel, "Maximum likelihood estimates of linear dynamic systems"
(AIAA Journal 3, 1965): a Kalman filter forwards, then a pass backwards that corrects each state by the next.
Motion is the white-noise acceleration of Bar-Shalom, Li and Kirubarajan, "Estimation with Applications to
Tracking and Navigation" (2001), section 6.2.2, equal and independent along x and y; sizes are random walks.

Covariances are a few numbers, so that they are kept as such: arrays of numpy would be several times slower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Pair = tuple[float, float]


class Path(NamedTuple):
    """A smoothed path."""

    positions: np.ndarray
    """(T, 2) float64, x and y in pixels."""
    acceleration: float
    """The chosen standard deviation of the change of velocity."""
    log_likelihood: float
    """Of the measurements after the first one, given the model, up to a constant."""


class _Step(NamedTuple):
    """Means and covariance, equal for both axes, of one time: predicted, then with its measurement."""

    elapsed: float
    predicted: tuple[float, float, float, float]  # x, y, and their velocities
    predicted_covariance: tuple[float, float, float]  # var(x), cov(x, vx), var(vx)
    mean: tuple[float, float, float, float]
    covariance: tuple[float, float, float]


def smooth_path(
    times: Sequence[float],
    measured: Sequence[Pair | None],
    *,
    deviation: float,
    accelerations: Sequence[float],
    start_speed: float,
) -> Path:
    """Returns the smoothed path of a target under the most likely of several accelerations.

    The likelihood is that of the innovations (Schweppe, "Evaluation of likelihood functions for Gaussian
    signals", IEEE Transactions on Information Theory 11, 1965).

    Args:
        times: T times in frame intervals, increasing.
        measured: x and y in pixels at each time, None without a measurement; the first and the last have one.
        deviation: standard deviation of a measurement along each axis, in pixels.
        accelerations: standard deviations of the change of velocity in a frame interval, in px/frame².
        start_speed: standard deviation of the velocity at the start, in px/frame.
    """
    steps, likelihood, chosen = max(
        (
            (*_filter(times, measured, deviation**2, acceleration**2, start_speed**2), acceleration)
            for acceleration in accelerations
        ),
        key=lambda found: found[1],
    )
    positions = np.empty((len(steps), 2))
    mean = steps[-1].mean
    positions[-1] = mean[:2]
    for row in range(len(steps) - 2, -1, -1):
        mean = _corrected_by_next(steps[row], steps[row + 1], mean)
        positions[row] = mean[:2]
    return Path(positions, chosen, likelihood)


def _filter(
    times: Sequence[float], measured: Sequence[Pair | None], noise: float, intensity: float, speed: float
) -> tuple[list[_Step], float]:
    """Returns the steps of the Kalman filter and the log-likelihood; arguments are variances."""
    assert measured[0] is not None
    x, y = measured[0]
    mean, covariance = (x, y, 0.0, 0.0), (noise, 0.0, speed)
    steps = [_Step(0.0, mean, covariance, mean, covariance)]
    likelihood = 0.0
    for before, time, found in zip(times, times[1:], measured[1:], strict=False):
        dt = time - before
        x, y, vx, vy = mean
        predicted = (x + dt * vx, y + dt * vy, vx, vy)
        p, c, v = covariance
        p += dt * (2 * c + dt * v) + intensity * dt**3 / 3
        c += dt * v + intensity * dt**2 / 2
        v += intensity * dt
        if found is None:
            mean, covariance = predicted, (p, c, v)
        else:
            innovation = p + noise
            gain, speed_gain = p / innovation, c / innovation
            dx, dy = found[0] - predicted[0], found[1] - predicted[1]
            mean = (
                predicted[0] + gain * dx,
                predicted[1] + gain * dy,
                vx + speed_gain * dx,
                vy + speed_gain * dy,
            )
            covariance = ((1 - gain) * p, (1 - gain) * c, v - speed_gain * c)
            likelihood -= math.log(innovation) + (dx * dx + dy * dy) / (2 * innovation)
        steps.append(_Step(dt, predicted, (p, c, v), mean, covariance))
    return steps, likelihood


def _corrected_by_next(
    step: _Step, following: _Step, smoothed: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    """Returns the smoothed mean of a step, given the next step and its smoothed mean."""
    p, c, v = step.covariance
    dt = following.elapsed
    # covariance of this state with the predicted next one, then the gain: its product with the inverse
    px, pv, cx, cv = p + dt * c, c, c + dt * v, v
    a, b, d = following.predicted_covariance
    determinant = a * d - b * b
    gxx, gxv = (px * d - pv * b) / determinant, (pv * a - px * b) / determinant
    gvx, gvv = (cx * d - cv * b) / determinant, (cv * a - cx * b) / determinant
    dx, dy, dvx, dvy = (after - before for after, before in zip(smoothed, following.predicted, strict=True))
    x, y, vx, vy = step.mean
    return (
        x + gxx * dx + gxv * dvx,
        y + gxx * dy + gxv * dvy,
        vx + gvx * dx + gvv * dvx,
        vy + gvx * dy + gvv * dvy,
    )


def smooth_sizes(
    times: Sequence[float], measured: Sequence[Pair | None], *, deviation: float, growth: float
) -> np.ndarray:
    """Returns the smoothed widths and heights (T, 2) of a target.

    Args:
        times: T times in frame intervals, increasing.
        measured: width and height in pixels at each time, None without a measurement; the first has one.
        deviation: standard deviation of a measurement in pixels.
        growth: standard deviation of their change in a frame interval, in pixels.
    """
    assert measured[0] is not None
    noise, intensity = deviation**2, growth**2
    width, height = measured[0]
    variance = noise
    sizes, variances, predicted = [(width, height)], [variance], [variance]
    for before, time, found in zip(times, times[1:], measured[1:], strict=False):
        variance += intensity * (time - before)
        predicted.append(variance)
        if found is not None:
            gain = variance / (variance + noise)
            width, height = width + gain * (found[0] - width), height + gain * (found[1] - height)
            variance *= 1 - gain
        sizes.append((width, height))
        variances.append(variance)
    smoothed = np.array(sizes)
    for row in range(len(sizes) - 2, -1, -1):
        smoothed[row] += variances[row] / predicted[row + 1] * (smoothed[row + 1] - smoothed[row])
    return smoothed
