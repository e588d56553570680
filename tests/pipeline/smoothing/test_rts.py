"""The smoother finds the most likely path, and filters as the textbook does."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.smoothing.rts import smooth_path, smooth_sizes

NOISE, ACCELERATION, START_SPEED = 0.7, 0.3, 4.0


def random_case(seed):
    """Times with uneven steps, and measured points of which some are missing."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.choice([1.0, 1.0, 2.0, 0.5], 40))
    measured = [tuple(point) for point in np.cumsum(rng.normal(0.5, 1, (40, 2)), axis=0)]
    for row in rng.choice(np.arange(1, 39), 12, replace=False):
        measured[row] = None
    return times.tolist(), measured


def matrices(elapsed):
    step = np.array([[1, elapsed], [0, 1]])
    noise = ACCELERATION**2 * np.array([[elapsed**3 / 3, elapsed**2 / 2], [elapsed**2 / 2, elapsed]])
    return step, noise


def textbook(times, measured):
    """Filter and smoother with full matrices for one axis; returns positions and the log-likelihood."""
    observe, variance = np.array([[1.0, 0.0]]), NOISE**2
    mean, covariance = np.array([measured[0], 0.0]), np.diag([variance, START_SPEED**2])
    filtered, likelihood = [(mean, covariance, mean, covariance, None)], 0.0
    for before, time, found in zip(times, times[1:], measured[1:], strict=False):
        step, noise = matrices(time - before)
        expected, spread = step @ mean, step @ covariance @ step.T + noise
        mean, covariance = expected, spread
        if found is not None:
            innovation = (observe @ spread @ observe.T).item() + variance
            gain = spread @ observe.T / innovation
            residual = found - (observe @ expected).item()
            mean = expected + gain[:, 0] * residual
            covariance = spread - gain @ observe @ spread
            likelihood -= (np.log(innovation) + residual**2 / innovation) / 2
        filtered.append((mean, covariance, expected, spread, step))
    smoothed = [filtered[-1][0]]
    for (mean, covariance, *_), following in zip(filtered[-2::-1], filtered[:0:-1], strict=True):
        _, _, expected, spread, step = following
        gain = covariance @ step.T @ np.linalg.inv(spread)
        smoothed.append(mean + gain @ (smoothed[-1] - expected))
    return np.array(smoothed[::-1])[:, 0], likelihood


def most_likely(times, measured):
    """Solves for the most likely positions of one axis at once, from all terms of the likelihood."""
    count = len(times)
    information, right = np.zeros((2 * count, 2 * count)), np.zeros(2 * count)
    information[1, 1] += START_SPEED**-2
    for row, found in enumerate(measured):
        if found is not None:
            information[2 * row, 2 * row] += NOISE**-2
            right[2 * row] += found * NOISE**-2
    for row in range(count - 1):
        step, noise = matrices(times[row + 1] - times[row])
        residual = np.hstack([-step, np.eye(2)])
        place = slice(2 * row, 2 * row + 4)
        information[place, place] += residual.T @ np.linalg.inv(noise) @ residual
    return np.linalg.solve(information, right)[::2]


def smooth(times, measured):
    return smooth_path(
        times, measured, deviation=NOISE, accelerations=[ACCELERATION], start_speed=START_SPEED
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_path_is_that_of_filter_and_smoother_with_full_matrices(seed):
    times, measured = random_case(seed)
    path = smooth(times, measured)
    likelihood = 0.0
    for axis in range(2):
        values = [None if found is None else found[axis] for found in measured]
        positions, part = textbook(times, values)
        np.testing.assert_allclose(path.positions[:, axis], positions, rtol=1e-9, atol=1e-9)
        likelihood += part
    assert path.log_likelihood == pytest.approx(likelihood, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_path_is_the_most_likely_one(seed):
    times, measured = random_case(seed)
    for axis in range(2):
        values = [None if found is None else found[axis] for found in measured]
        expected = most_likely(times, values)
        np.testing.assert_allclose(smooth(times, measured).positions[:, axis], expected, atol=1e-6)


def test_sizes_are_smoothed_as_a_path_without_velocity():
    times, measured = random_case(7)
    sizes = smooth_sizes(times, measured, deviation=NOISE, growth=ACCELERATION)
    count = len(times)
    information, right = np.zeros((count, count)), np.zeros((count, 2))
    for row, found in enumerate(measured):
        if found is not None:
            information[row, row] += NOISE**-2
            right[row] += np.array(found) * NOISE**-2
    for row in range(count - 1):
        weight = 1 / (ACCELERATION**2 * (times[row + 1] - times[row]))
        information[row : row + 2, row : row + 2] += weight * np.array([[1, -1], [-1, 1]])
    np.testing.assert_allclose(sizes, np.linalg.solve(information, right), atol=1e-9)


def test_a_single_measurement_is_its_own_path():
    assert smooth([3.0], [(4.0, 5.0)]).positions.tolist() == [[4.0, 5.0]]
    assert smooth_sizes([3.0], [(4.0, 5.0)], deviation=1, growth=1).tolist() == [[4.0, 5.0]]


@pytest.mark.parametrize("acceleration", [0.05, 1.0])
def test_the_acceleration_of_the_target_is_recognised(acceleration):
    rng = np.random.default_rng(8)
    velocities = np.cumsum(rng.normal(0, acceleration, (300, 2)), axis=0)
    measured = np.cumsum(velocities, axis=0) + rng.normal(0, NOISE, (300, 2))
    choices = [0.05, 1.0, 5.0]
    path = smooth_path(
        range(300), [*map(tuple, measured)], deviation=NOISE, accelerations=choices, start_speed=START_SPEED
    )
    assert path.acceleration == acceleration
    alone = [
        smooth_path(
            range(300), [*map(tuple, measured)], deviation=NOISE, accelerations=[one], start_speed=START_SPEED
        ).log_likelihood
        for one in choices
    ]
    assert path.log_likelihood == max(alone)
