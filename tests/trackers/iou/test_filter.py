"""The filter of boxes equals a filter with full matrices."""

from __future__ import annotations

import numpy as np
import pytest

from trackers.iou.filter import START_FACTOR, BoxNoise, corrected, predicted, started

NOISE = BoxNoise(position=0.2, velocity=0.05)
BOXES = np.array([[10.0, 20, 16, 24], [100, 50, 108, 66]])


def full(covariance):
    """The 6×6 covariance in the order x, y, vx, vy, w, h."""
    position, cross, speed, size = covariance
    matrix = np.diag([position, position, speed, speed, size, size])
    matrix[[0, 2, 1, 3], [2, 0, 3, 1]] = cross
    return matrix


def textbook_prediction(mean, covariance):
    """One frame interval."""
    step = np.eye(6)
    step[[0, 1], [2, 3]] = 1
    square = mean[4] * mean[5]
    noise = square * np.array([0.2**2] * 2 + [0.05**2] * 2 + [0.2**2] * 2)
    return step @ mean, step @ covariance @ step.T + np.diag(noise)


def textbook_correction(mean, covariance, measured):
    observe = np.eye(6)[[0, 1, 4, 5]]
    noise = np.eye(4) * 0.2**2 * mean[4] * mean[5]
    gain = covariance @ observe.T @ np.linalg.inv(observe @ covariance @ observe.T + noise)
    return mean + gain @ (measured - observe @ mean), (np.eye(6) - gain @ observe) @ covariance


def test_prediction_and_correction_are_those_of_full_matrices():
    states = started(BOXES, NOISE)
    expected = [(states.mean[row], full(states.covariance[row])) for row in range(2)]
    rng = np.random.default_rng(0)
    for _ in range(6):
        states = predicted(states, 2, NOISE)
        boxes = BOXES + rng.normal(0, 1, (2, 4))
        states = corrected(states, boxes, NOISE)
        for row in range(2):
            mean, covariance = textbook_prediction(*textbook_prediction(*expected[row]))
            x1, y1, x2, y2 = boxes[row]
            measured = np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
            expected[row] = textbook_correction(mean, covariance, measured)
            np.testing.assert_allclose(states.mean[row], expected[row][0], rtol=1e-9)
            np.testing.assert_allclose(full(states.covariance[row]), expected[row][1], rtol=1e-9, atol=1e-12)


def test_the_velocity_of_a_new_track_is_open():
    states = started(BOXES, NOISE)
    assert states.mean[:, 2:4].tolist() == [[0, 0], [0, 0]]
    np.testing.assert_allclose(states.covariance[:, 2], (START_FACTOR * 0.05) ** 2 * np.array([24, 128]))


def test_a_part_of_an_interval_adds_its_share():
    states = started(BOXES, NOISE)
    whole, half = predicted(states, 1, NOISE), predicted(states, 0.5, NOISE)
    added = [one.covariance[:, 3] - states.covariance[:, 3] for one in (half, whole)]
    np.testing.assert_allclose(2 * added[0], added[1])
    assert predicted(states, 0, NOISE).covariance.tolist() == states.covariance.tolist()


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_boxes_move_with_the_camera(scale):
    turn = scale * np.array([[0.0, -1.0], [1.0, 0.0]])  # by a quarter
    states = predicted(started(BOXES, NOISE), 1, NOISE)
    mean = states.mean.copy()
    mean[:, 2:4] = [[1.0, 0.0], [0.0, 2.0]]
    moved = type(states)(mean, states.covariance).moved(np.column_stack([turn, [5.0, 7.0]]))
    centres = [(5 - scale * y, 7 + scale * x) for x, y in mean[:, :2]]
    np.testing.assert_allclose(moved.mean[:, :2], centres)
    np.testing.assert_allclose(moved.mean[:, 2:4], [[0, scale], [-2 * scale, 0]], atol=1e-12)
    np.testing.assert_allclose(moved.mean[:, 4:], scale * mean[:, 4:])
    np.testing.assert_allclose(moved.covariance, scale**2 * states.covariance)
