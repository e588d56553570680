"""The assignment equals brute force; costs and gates."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from trackers.association import assign, association_cost, gate_radius, squared_distances


def best_by_trying_all(cost, allowed):
    """The largest number of allowed pairs and, for that number, the lowest total cost."""
    if cost.shape[0] > cost.shape[1]:
        cost, allowed = cost.T, allowed.T
    rows = np.arange(cost.shape[0])
    best = (0, 0.0)
    for columns in permutations(range(cost.shape[1]), cost.shape[0]):
        used = allowed[rows, list(columns)]
        best = min(best, (-int(used.sum()), float(cost[rows, list(columns)][used].sum())))
    return -best[0], best[1]


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 3), (4, 2), (5, 5), (3, 6)])
def test_assignment_equals_brute_force(shape):
    rng = np.random.default_rng(shape)
    for _ in range(40):
        cost = rng.uniform(-20, 20, shape)
        allowed = rng.random(shape) < rng.uniform(0.2, 0.9)
        rows, columns = assign(cost, allowed)
        assert len(set(rows)) == len(rows)
        assert len(set(columns)) == len(columns)
        assert allowed[rows, columns].all()
        count, total = best_by_trying_all(cost, allowed)
        assert len(rows) == count
        assert cost[rows, columns].sum() == pytest.approx(total)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (2, 0), (2, 3)])
def test_nothing_allowed_gives_no_pairs(shape):
    rows, columns = assign(np.zeros(shape), np.zeros(shape, bool))
    assert len(rows) == len(columns) == 0


def test_two_expensive_pairs_are_preferred_to_one_cheap_pair():
    cost = np.array([[0.0, 50.0], [60.0, 0.0]])
    allowed = np.array([[True, True], [True, False]])
    rows, columns = assign(cost, allowed)
    assert list(zip(rows, columns, strict=True)) == [(0, 1), (1, 0)]


def test_the_cost_prefers_the_track_with_the_smaller_variance():
    """A track that coasted for long (variance 400) is nearer in deviations but less likely."""
    squared = squared_distances(np.array([[10.0, 10.0], [13.0, 14.0]]), np.array([[10.0, 14.0]]))
    np.testing.assert_array_equal(squared, [[16], [9]])
    cost = association_cost(squared, np.array([4.0, 400.0]))
    assert cost[0, 0] < cost[1, 0]


def test_the_gate_grows_with_uncertainty_up_to_the_cap():
    np.testing.assert_array_equal(gate_radius(np.array([1.0, 4, 100]), deviations=3, cap=20), [3, 6, 20])
