"""Association of detections with tracks: costs, gates and the optimal one-to-one assignment.

All costs are based on the distance between centres. IoU is not informative for targets of a few pixels: for a
3×3 box it is 0.29 after a diagonal shift of one pixel, and 0 after three.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment


def squared_distances(predicted: np.ndarray, detected: np.ndarray) -> np.ndarray:
    """Returns the squared distances (N, M) between `predicted` (N, 2) and `detected` (M, 2) centres."""
    difference = predicted[:, None] - detected[None]  # (N, M, 2)
    return np.einsum("nmk,nmk->nm", difference, difference)


def association_cost(squared: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Returns the cost (N, M) of assigning detections to tracks: −2 log likelihood, up to a constant.

    `squared` (N, M) holds squared centre distances in px², `variance` (N,) the innovation variance of each
    track along one axis in px². The cost is the squared Mahalanobis distance plus the logarithm of the
    determinant of the innovation covariance (Blackman and Popoli, "Design and Analysis of Modern Tracking
    Systems", 1999, chapter 6). Without the second term a track that has been coasting for long, with a large
    variance, would take the detections of its neighbours.
    """
    return squared / variance[:, None] + 2 * np.log(variance)[:, None]


def gate_radius(variance: np.ndarray, *, deviations: float, cap: float) -> np.ndarray:
    """Returns the radius (N,), in pixels, around its prediction in which a track accepts a detection.

    It is `deviations` standard deviations of the innovation, `cap` pixels at most. The innovation `variance`
    (N,), in px², grows with the time since the last hit.
    """
    return np.minimum(deviations * np.sqrt(variance), cap)


def assign(cost: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Assigns rows to columns of `cost` (N, M) one to one, using only pairs that are `allowed` (N, M) bool.

    The number of pairs is maximal; among the assignments with that many pairs, the total cost is minimal.
    Allowed costs must be finite. Returns row and column indices, int64 of equal length, rows ascending.
    """
    # only rows and columns with an allowed pair are solved, which is fast: most tracks gate few detections
    rows, columns = np.flatnonzero(allowed.any(axis=1)), np.flatnonzero(allowed.any(axis=0))
    if not len(rows):
        return rows, columns
    window = np.ix_(rows, columns)
    cost, allowed = cost[window], allowed[window]
    relative = np.where(allowed, cost - cost[allowed].min(), 0.0)
    # a forbidden pair must cost more than all allowed ones together, or it could lower the total cost
    forbidden = 1.0 + relative.max() * min(cost.shape)
    chosen, partners = linear_sum_assignment(np.where(allowed, relative, forbidden))
    valid = allowed[chosen, partners]
    return rows[chosen[valid]], columns[partners[valid]]
