"""The Kalman filter equals the textbook's on full matrices; its uncertainty is calibrated."""

from __future__ import annotations

import numpy as np
import pytest

from trackers.kalman import KalmanFilter, Noise, centres_and_sizes

NOISE = Noise(acceleration=0.7, growth=0.04, start_speed=1.3, position_floor=0.6, position_share=0.1)


def boxes_at(centres, size):
    half = np.broadcast_to(np.asarray(size, float) / 2, np.shape(centres))
    return np.concatenate([np.asarray(centres) - half, np.asarray(centres) + half], axis=1)


class TextbookFilter:
    """The filter of one track with 6×6 matrices and state x y vx vy w h."""

    def __init__(self, box):
        x1, y1, x2, y2 = box
        self.mean = np.array([(x1 + x2) / 2, (y1 + y2) / 2, 0, 0, x2 - x1, y2 - y1])
        detection = self.detection_covariance()
        speed = NOISE.start_speed**2 * self.mean[4] * self.mean[5]
        self.covariance = np.diag([*np.diag(detection)[:2], speed, speed, *np.diag(detection)[2:]])

    def detection_covariance(self):
        variance = NOISE.position_floor**2 + NOISE.position_share**2 * self.mean[4] * self.mean[5]
        return np.diag([variance, variance, 4 * variance, 4 * variance])

    def predict(self, dt):
        transition = np.eye(6)
        transition[0, 2] = transition[1, 3] = dt
        process = np.zeros((6, 6))
        for position, speed in ((0, 2), (1, 3)):
            process[position, position] = dt**3 / 3
            process[position, speed] = process[speed, position] = dt**2 / 2
            process[speed, speed] = dt
        process *= NOISE.acceleration**2
        process[4, 4] = process[5, 5] = dt * NOISE.growth**2 * self.mean[4] * self.mean[5]
        self.mean = transition @ self.mean
        self.covariance = transition @ self.covariance @ transition.T + process

    def update(self, box):
        x1, y1, x2, y2 = box
        seen = np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
        observation = np.zeros((4, 6))
        observation[[0, 1, 2, 3], [0, 1, 4, 5]] = 1
        innovation = observation @ self.covariance @ observation.T + self.detection_covariance()
        gain = self.covariance @ observation.T @ np.linalg.inv(innovation)
        self.mean = self.mean + gain @ (seen - observation @ self.mean)
        self.covariance = (np.eye(6) - gain @ observation) @ self.covariance


def full_covariance(row):
    position, cross, speed, size = row
    matrix = np.diag([position, position, speed, speed, size, size])
    matrix[0, 2] = matrix[2, 0] = matrix[1, 3] = matrix[3, 1] = cross
    return matrix


def test_the_filter_equals_the_textbook_on_full_matrices():
    rng = np.random.default_rng(3)
    boxes = boxes_at(rng.uniform(0, 300, (6, 2)), rng.uniform(2, 30, (6, 2)))
    states = KalmanFilter(NOISE)
    states.add(boxes)
    textbook = [TextbookFilter(box) for box in boxes]
    for _ in range(60):
        dt = int(rng.integers(1, 4))
        rows = np.flatnonzero(rng.random(6) < 0.7)
        strayed = states.mean[rows, :2] + rng.normal(0, 3, (len(rows), 2))
        seen = boxes_at(strayed, rng.uniform(2, 30, (len(rows), 2)))
        states.predict(dt)
        states.update(rows, seen)
        for track in textbook:
            track.predict(dt)
        for row, box in zip(rows, seen, strict=True):
            textbook[row].update(box)
        np.testing.assert_allclose(states.mean, [track.mean for track in textbook], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(
            [full_covariance(row) for row in states.covariance],
            [track.covariance for track in textbook],
            rtol=1e-9,
            atol=1e-9,
        )


def test_one_prediction_over_five_intervals_equals_five_over_one():
    one, five = KalmanFilter(NOISE), KalmanFilter(NOISE)
    for states in (one, five):
        states.add(boxes_at([[50, 60], [10, 200]], 8))
        states.predict(1)
        states.update(np.array([0, 1]), boxes_at([[54, 61], [12, 190]], 9))
    one.predict(5)
    for _ in range(5):
        five.predict(1)
    np.testing.assert_allclose(one.mean, five.mean, rtol=1e-12)
    np.testing.assert_allclose(one.covariance, five.covariance, rtol=1e-12)


def test_the_velocity_of_a_steady_target_is_estimated():
    states = KalmanFilter(NOISE)
    states.add(boxes_at([[20, 30]], 6))
    for step in range(1, 40):
        states.predict(1)
        states.update(np.array([0]), boxes_at([[20 + 3 * step, 30 - 0.5 * step]], 6))
    np.testing.assert_allclose(states.mean[0, 2:4], [3, -0.5], atol=1e-3)
    states.predict(10)
    np.testing.assert_allclose(states.mean[0, :2], [20 + 3 * 49, 30 - 0.5 * 49], atol=0.02)


def test_the_variance_grows_in_predictions_and_shrinks_in_updates():
    states = KalmanFilter(NOISE)
    states.add(boxes_at([[20, 30]], 6))
    variances = []
    for _ in range(5):
        states.predict(1)
        variances.append(states.innovation_variance()[0])
    assert np.all(np.diff(variances) > 0)
    states.update(np.array([0]), boxes_at([[20, 30]], 6))
    assert states.innovation_variance()[0] < variances[0]


def test_the_predicted_uncertainty_is_calibrated():
    """For targets and detections of the model, the mean squared Mahalanobis distance is 2."""
    rng = np.random.default_rng(11)
    count, size = 400, 10.0
    noise = Noise(acceleration=0.5, growth=1e-6, start_speed=0.5, position_floor=0.5, position_share=0.1)
    spread = np.hypot(0.5, 0.1 * size)
    centre, velocity = np.full((count, 2), 500.0), rng.normal(0, 0.5 * size, (count, 2))
    states = KalmanFilter(noise)
    states.add(boxes_at(centre + rng.normal(0, spread, (count, 2)), size))
    exact = np.linalg.cholesky(0.5**2 * np.array([[1 / 3, 1 / 2], [1 / 2, 1]]))
    distances = []
    for _ in range(20):
        push = rng.normal(size=(count, 2, 2)) @ exact.T  # (track, axis, position and velocity)
        centre = centre + velocity + push[..., 0]
        velocity = velocity + push[..., 1]
        seen = centre + rng.normal(0, spread, (count, 2))
        states.predict(1)
        residual = ((seen - states.mean[:, :2]) ** 2).sum(axis=1)
        distances.append(residual / states.innovation_variance())
        states.update(np.arange(count), boxes_at(seen, size))
    assert np.mean(distances) == pytest.approx(2, abs=0.1)
    # 9.21 is the 99 % point of chi-square with 2 degrees of freedom
    assert np.mean(np.array(distances) < 9.21) == pytest.approx(0.99, abs=0.005)


def test_boxes_without_area_count_as_one_pixel():
    centres, sizes = centres_and_sizes(np.array([[4, 5, 4, 5], [1, 2, 1.5, 9]], np.float32))
    np.testing.assert_array_equal(centres, [[4, 5], [1.25, 5.5]])
    np.testing.assert_array_equal(sizes, [[1, 1], [1, 7]])


def test_boxes_are_those_that_were_added():
    boxes = np.array([[3, 4, 10, 6], [100, 50, 101, 51]], np.float32)
    states = KalmanFilter(NOISE)
    states.add(boxes)
    np.testing.assert_allclose(states.boxes(), boxes)
    states.keep(np.array([False, True]))
    np.testing.assert_allclose(states.boxes(), boxes[1:])
    assert len(states) == 1
