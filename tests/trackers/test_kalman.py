"""The filter equals the textbook's on full matrices; its uncertainty is calibrated, its models fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trackers.kalman import KalmanFilter, Noise, centres_and_sizes

NOISE = Noise(
    accelerations=(0.7,),
    shares=(1.0,),
    persistence=0.95,
    growth=0.04,
    start_speed=1.3,
    position_floor=0.6,
    position_share=0.1,
)
TWO_MODELS = replace(NOISE, accelerations=(0.2, 3.0), shares=(0.9, 0.1))


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
        process *= NOISE.accelerations[0] ** 2
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
        strayed = states.means[rows, 0, :2] + rng.normal(0, 3, (len(rows), 2))
        seen = boxes_at(strayed, rng.uniform(2, 30, (len(rows), 2)))
        states.predict(dt)
        states.update(rows, seen)
        for track in textbook:
            track.predict(dt)
        for row, box in zip(rows, seen, strict=True):
            textbook[row].update(box)
        mean = np.concatenate([states.mean, states.sizes], axis=1)
        np.testing.assert_allclose(mean, [track.mean for track in textbook], rtol=1e-9, atol=1e-9)
        covariance = np.column_stack([states.covariances[:, 0], states.size_variance])
        np.testing.assert_allclose(
            [full_covariance(row) for row in covariance],
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
    np.testing.assert_allclose(one.means, five.means, rtol=1e-12)
    np.testing.assert_allclose(one.covariances, five.covariances, rtol=1e-12)
    np.testing.assert_allclose(one.size_variance, five.size_variance, rtol=1e-12)


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
        variances.append(states.innovation_variances()[0, 0])
    assert np.all(np.diff(variances) > 0)
    states.update(np.array([0]), boxes_at([[20, 30]], 6))
    assert states.innovation_variances()[0, 0] < variances[0]


def test_the_predicted_uncertainty_is_calibrated():
    """For targets and detections of the model, the mean squared Mahalanobis distance is 2."""
    rng = np.random.default_rng(11)
    count, size = 400, 10.0
    noise = replace(NOISE, accelerations=(0.5,), growth=1e-6, start_speed=0.5, position_floor=0.5)
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
        distances.append(residual / states.innovation_variances()[:, 0])
        states.update(np.arange(count), boxes_at(seen, size))
    assert np.mean(distances) == pytest.approx(2, abs=0.1)
    # 9.21 is the 99 % point of chi-square with 2 degrees of freedom
    assert np.mean(np.array(distances) < 9.21) == pytest.approx(0.99, abs=0.005)


class TextbookModels:
    """Two models of one target on a line through the origin at 45 degrees, with 2×2 matrices per model.

    x and y are alike, so each axis has the same state, and the likelihoods of both are multiplied.
    """

    def __init__(self, at, size):
        self.detection = NOISE.position_floor**2 + NOISE.position_share**2 * size**2
        start = np.diag([self.detection, (NOISE.start_speed * size) ** 2])
        self.means, self.covariances = [np.array([at, 0.0])] * 2, [start] * 2
        self.weights = np.array(TWO_MODELS.shares)

    def step(self, at):
        """Predicts one frame interval ahead and corrects by a detection."""
        stay = TWO_MODELS.persistence
        chances = [
            [stay * (here == there) + (1 - stay) * share for there, share in enumerate(TWO_MODELS.shares)]
            for here in range(2)
        ]
        means, covariances, weights = [], [], []
        for there in range(2):
            origin = np.array([self.weights[here] * chances[here][there] for here in range(2)])
            total = origin.sum()
            mean = sum(w * m for w, m in zip(origin / total, self.means, strict=True))
            covariance = sum(
                w * (p + np.outer(m - mean, m - mean))
                for w, m, p in zip(origin / total, self.means, self.covariances, strict=True)
            )
            transition = np.array([[1, 1], [0, 1]])
            process = TWO_MODELS.accelerations[there] ** 2 * np.array([[1 / 3, 1 / 2], [1 / 2, 1]])
            mean, covariance = transition @ mean, transition @ covariance @ transition.T + process
            innovation, residual = covariance[0, 0] + self.detection, at - mean[0]
            gain = covariance[:, 0] / innovation
            means.append(mean + gain * residual)
            covariances.append(covariance - np.outer(gain, covariance[0]))
            weights.append(total * np.exp(-(residual**2) / innovation) / innovation)
        self.means, self.covariances = means, covariances
        self.weights = np.array(weights) / sum(weights)


def test_two_models_equal_the_textbook():
    rng = np.random.default_rng(4)
    size = 5
    states, textbook = KalmanFilter(replace(TWO_MODELS, growth=0.0)), TextbookModels(50.0, size)
    states.add(boxes_at([[50, 50]], size))
    at = 50.0
    for step in range(40):
        at += 1.0 + (step > 20) * rng.normal(0, 2)
        textbook.step(at)
        states.predict(1)
        states.update(np.array([0]), boxes_at([[at, at]], size))
        np.testing.assert_allclose(states.probability[0], textbook.weights, rtol=1e-9, atol=1e-6)
        for model in range(2):
            np.testing.assert_allclose(states.means[0, model, ::2], textbook.means[model], rtol=1e-6)
            matrix = textbook.covariances[model]
            compact = [matrix[0, 0], matrix[0, 1], matrix[1, 1]]
            np.testing.assert_allclose(states.covariances[0, model], compact, rtol=1e-5, atol=1e-9)


def test_a_straight_flight_is_calm_and_a_sharp_turn_agile():
    states = KalmanFilter(TWO_MODELS)
    states.add(boxes_at([[50, 50]], 5))
    x, y, calm = 50.0, 50.0, []
    for step in range(40):
        x, y = x + 2 * (step < 30), y + 4 * (step >= 30)
        states.predict(1)
        states.update(np.array([0]), boxes_at([[x, y]], 5))
        calm.append(states.probability[0, 0])
    assert min(calm[10:30]) > 0.9
    assert min(calm[30:33]) < 0.1
    np.testing.assert_allclose(states.mean[0], [110, 90, 0, 4], atol=0.5)


def test_without_detections_the_models_return_to_their_shares():
    states = KalmanFilter(TWO_MODELS)
    states.add(boxes_at([[50, 50]], 5))
    states.probability[:] = [0.0, 1.0]
    states.predict(200)
    np.testing.assert_allclose(states.probability, [TWO_MODELS.shares], atol=1e-3)


@pytest.mark.parametrize(
    "motion",
    [[[1, 0, 7.5], [0, 1, -3]], [[0, -1, 256], [1, 0, 0]], [[1.5, 0, -80], [0, 1.5, -64]]],
    ids=["shift", "turn", "zoom"],
)
def test_a_moving_camera_changes_nothing_but_the_coordinates(motion):
    """The states in a picture that moves after each frame are the moved states of one that stands still."""
    motion, rng = np.array(motion, float), np.random.default_rng(6)
    # noise in proportion to the size, since a zoom changes the size
    noise = replace(TWO_MODELS, position_floor=0.0, position_share=0.3, accelerations=(0.0, 0.0))
    still, moved = KalmanFilter(noise), KalmanFilter(noise)
    boxes = boxes_at([[100.0, 120.0]], 8)
    still.add(boxes)
    moved.add(boxes)
    total = np.eye(3)
    for _ in range(4):
        total = np.vstack([motion, [0, 0, 1]]) @ total
        boxes = boxes + 2.0 + rng.normal(0, 0.3)
        corners = boxes.reshape(2, 2) @ total[:2, :2].T + total[:2, 2]
        for states, seen in ((still, boxes), (moved, [[*corners.min(axis=0), *corners.max(axis=0)]])):
            states.predict(1)
            if states is moved:
                states.move(motion)
            states.update(np.array([0]), np.array(seen))
    np.testing.assert_allclose(moved.mean[0, :2], total[:2, :2] @ still.mean[0, :2] + total[:2, 2])
    np.testing.assert_allclose(moved.mean[0, 2:], total[:2, :2] @ still.mean[0, 2:], atol=1e-9)
    np.testing.assert_allclose(moved.probability, still.probability, atol=1e-9)
    scale = np.linalg.det(total[:2, :2])
    np.testing.assert_allclose(moved.covariances, still.covariances * scale)


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
