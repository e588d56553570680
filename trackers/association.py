"""Which detection belongs to which track: costs, gates and the best one-to-one assignment.

Everything here is by the distance between centres. Overlap says nothing about targets of a few pixels: a 3×3
box shifted by one pixel diagonally is down to an IoU of 0.29, shifted by three to none.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment


def squared_distances(predicted: np.ndarray, detected: np.ndarray) -> np.ndarray:
    """(N, M) squared distances between `predicted` (N, 2) and `detected` (M, 2) centres, in squared units."""
    difference = predicted[:, None] - detected[None]  # (N, M, 2)
    return np.einsum("nmk,nmk->nm", difference, difference)


def association_cost(squared: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """(N, M) cost of joining detections to tracks: −2 log likelihood, up to a constant.

    `squared` (N, M) holds squared centre distances in px², `variance` (N,) the innovation variance of each
    track along one axis in px². The cost is the squared Mahalanobis distance plus the logarithm of the
    determinant of the innovation covariance (Blackman and Popoli, "Design and Analysis of Modern Tracking
    Systems", 1999, chapter 6). Without the second term a track unseen for long, to which everything is
    near, would take the detections of its well-known neighbours.
    """
    return squared / variance[:, None] + 2 * np.log(variance)[:, None]


def gate_radius(variance: np.ndarray, *, deviations: float, cap: float) -> np.ndarray:
    """(N,) px: how far from its prediction a track accepts a detection.

    `deviations` standard deviations of the innovation, whose `variance` (N,) in px² grows with the time since
    the last hit, and never more than `cap` pixels.
    """
    return np.minimum(deviations * np.sqrt(variance), cap)


def assign(cost: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One-to-one pairs of rows and columns of `cost` (N, M), using only pairs that are `allowed` (N, M) bool.

    As many pairs as possible; among those choices, the one of the lowest total cost. Costs where `allowed`
    must be finite. Returns (row indices, column indices), int64 of equal length, rows ascending.
    """
    # solving only for what has a partner keeps crowded frames cheap: most tracks see few detections
    rows, columns = np.flatnonzero(allowed.any(axis=1)), np.flatnonzero(allowed.any(axis=0))
    if not len(rows):
        return rows, columns
    window = np.ix_(rows, columns)
    cost, allowed = cost[window], allowed[window]
    relative = np.where(allowed, cost - cost[allowed].min(), 0.0)
    # one forbidden pair must weigh more than all allowed ones, or it could be traded for a cheaper total
    forbidden = 1.0 + relative.max() * min(cost.shape)
    chosen, partners = linear_sum_assignment(np.where(allowed, relative, forbidden))
    real = allowed[chosen, partners]
    return rows[chosen[real]], columns[partners[real]]
