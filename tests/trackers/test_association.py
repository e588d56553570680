"""The assignment equals brute force and that of the whole matrix; costs and gates."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from trackers import association, build
from trackers.association import assign, gate_radius, mixture_cost, near_pairs


def total_of(rows, columns, matrix, limit):
    return float((matrix[rows, columns] - limit).sum())


def best_by_trying_all(matrix, limit):
    """The lowest sum of cost − limit over all one-to-one assignments of allowed (finite) pairs."""
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    gain = np.minimum(np.where(np.isfinite(matrix), matrix - limit, 0), 0)
    rows = np.arange(matrix.shape[0])
    return min(gain[rows, list(columns)].sum() for columns in permutations(range(matrix.shape[1]), len(rows)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 3), (4, 2), (5, 5), (3, 6)])
def test_assignment_equals_brute_force(shape):
    rng = np.random.default_rng(shape)
    for _ in range(40):
        matrix = np.where(rng.random(shape) < rng.uniform(0.2, 0.9), rng.uniform(-20, 20, shape), np.inf)
        pairs = np.nonzero(np.isfinite(matrix))
        rows, columns = assign(*pairs, matrix[pairs], 12.0)
        assert len(set(rows)) == len(rows)
        assert len(set(columns)) == len(columns)
        assert (matrix[rows, columns] < 12).all()
        assert rows.tolist() == sorted(rows)
        assert total_of(rows, columns, matrix, 12.0) == pytest.approx(best_by_trying_all(matrix, 12.0))


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 90), spread=st.floats(5, 300))
def test_the_sparse_assignment_equals_that_of_the_whole_matrix(seed, count, spread):
    rng = np.random.default_rng(seed)
    predicted, detected = rng.uniform(0, spread, (count, 2)), rng.uniform(0, spread, (count + 7, 2))
    radius = rng.uniform(1, 15, count)
    distance = np.linalg.norm(predicted[:, None] - detected, axis=2)
    whole = np.where(distance <= radius[:, None], distance, np.inf)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(association, "DENSE_PAIRS", 0)  # trees and sparse matrices at any size
        pairs = near_pairs(predicted, radius, detected)
        rows, columns = assign(*pairs, distance[pairs], 10.0)
    gain = np.minimum(np.where(np.isfinite(whole), whole - 10, 0), 0)
    assert np.array_equal(np.column_stack(pairs), np.argwhere(np.isfinite(whole)))
    assert len(set(rows)) == len(rows)
    assert len(set(columns)) == len(columns)
    assert total_of(rows, columns, whole, 10.0) == pytest.approx(gain[linear_sum_assignment(gain)].sum())


def test_a_crowd_gives_the_same_tracks_with_sparse_matrices_as_with_whole_ones(monkeypatch):
    rng, both = np.random.default_rng(4), []
    places, speeds = rng.uniform(0, 256, (120, 2)), rng.normal(0, 1.5, (120, 2))
    scenes = [places + speeds * t + rng.normal(0, 0.5, places.shape) for t in range(12)]
    for limit in (0, 10**9):
        monkeypatch.setattr(association, "DENSE_PAIRS", limit)
        tracker, rows = build("centre"), []
        for index, centres in enumerate(scenes):
            boxes = np.concatenate([centres - 2, centres + 2], axis=1)[index % 7 :]
            count = len(boxes)
            frame = Frame(np.zeros((256, 256), np.uint8), index, Fraction(index, 30), "crowd")
            tracks = tracker.update(Detections(boxes, [0.8] * count, [0] * count), frame)
            rows.append((tracks.ids, tracks.boxes))
        both.append(rows)
    for (ids, boxes), (also, others) in zip(*both, strict=True):
        assert np.array_equal(ids, also)
        assert np.allclose(boxes, others)
    assert len(ids) > 100


def test_nothing_near_gives_no_pairs():
    none = np.zeros((0, 2))
    for predicted, detected in ((none, none), (none, np.ones((3, 2))), (np.ones((2, 2)), none)):
        rows, columns = near_pairs(predicted, np.ones(len(predicted)), detected)
        assert len(rows) == len(columns) == 0
        assert len(assign(rows, columns, np.zeros(0), 5.0)[0]) == 0


def test_a_pair_that_costs_more_than_the_limit_is_not_chosen():
    rows, columns = assign(np.array([0, 1]), np.array([0, 1]), np.array([3.0, 7.0]), 5.0)
    assert (rows.tolist(), columns.tolist()) == ([0], [0])


def test_a_track_keeps_its_detection_if_another_gains_less_from_it():
    """Row 1 has no other detection; row 0 has a bad one that is hardly worth having."""
    rows, columns = assign(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([1.0, 9.5, 8.0]), 10.0)
    assert list(zip(rows, columns, strict=True)) == [(0, 0)]


def test_the_cost_prefers_the_track_with_the_smaller_variance():
    """A track that coasted for long (variance 400) is nearer in deviations but less likely."""
    cost = mixture_cost(np.array([[16.0], [9.0]]), np.array([[4.0], [400.0]]), np.ones((2, 1)))
    np.testing.assert_allclose(cost, [16 / 4 + 2 * np.log(4), 9 / 400 + 2 * np.log(400)])
    assert cost[0] < cost[1]


def test_a_far_detection_costs_less_if_the_target_may_be_agile():
    squared, variance = np.array([[100.0, 100.0]] * 2), np.array([[1.0, 30.0]] * 2)
    cost = mixture_cost(squared, variance, np.array([[0.999, 0.001], [0.5, 0.5]]))
    assert cost[1] < cost[0] - 10


def test_no_detection_beyond_the_gate_costs_less_than_the_limit():
    rng = np.random.default_rng(8)
    variance = rng.uniform(0.5, 500, (200, 2))
    probability = rng.dirichlet((1, 1), 200)
    radius = gate_radius(variance, probability, 15.0).max(axis=1)
    beyond = np.repeat(radius[:, None] ** 2, 2, axis=1) * 1.0001
    assert (mixture_cost(beyond, variance, probability) >= 15).all()
    assert (radius > 0).any()
