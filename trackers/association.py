"""Association of detections with tracks: gates, costs and the optimal one-to-one assignment.

All costs are based on the distance between centres. IoU is not informative for targets of a few pixels: for a
3×3 box it is 0.29 after a diagonal shift of one pixel, and 0 after three.

Only pairs within a gate are ever considered, as a list of rows and columns: of 2000 targets each is near a
few detections only.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

DENSE_PAIRS = 4096
"""Numbers of tracks times detections up to which all distances are computed, which is faster than a tree."""


def near_pairs(
    predicted: np.ndarray, radius: np.ndarray, detected: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pairs of `predicted` (N, 2) and `detected` (M, 2) centres that are close, in pixels.

    Close are those at a distance of at most `radius` (N,). Returns their rows and columns, int64 of equal
    length, in ascending order of rows, then columns.
    """
    if len(predicted) * len(detected) <= DENSE_PAIRS:
        difference = predicted[:, None] - detected[None]  # (N, M, 2)
        squared = np.einsum("nmk,nmk->nm", difference, difference)
        close_rows, close_columns = np.nonzero(squared <= radius[:, None] ** 2)
        return close_rows, close_columns
    found = cKDTree(detected).query_ball_point(predicted, radius, return_sorted=True)
    rows = np.repeat(np.arange(len(predicted)), [len(row) for row in found])
    columns = np.fromiter((column for row in found for column in row), np.int64, len(rows))
    return rows, columns


def assign(
    rows: np.ndarray, columns: np.ndarray, cost: np.ndarray, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Assigns rows to columns one to one, using only the P pairs `rows`, `columns` (P,) at `cost` (P,).

    The sum over the chosen pairs of `cost` − `limit` is minimal; pairs that cost more than `limit` are never
    chosen. So a pair is worth having if it costs less than what its row and column would without it. Costs
    must be finite. Returns the chosen rows and columns, int64 of equal length, rows ascending.

    Each connected component of the pairs is solved by itself: the sum is that of the whole matrix.
    """
    useful = cost < limit
    rows, columns, gain = rows[useful], columns[useful], cost[useful] - limit
    if not len(rows):
        return rows, columns
    if rows.max() * columns.max() <= DENSE_PAIRS:
        pairs = _solve(rows, columns, gain)
        return rows[pairs], columns[pairs]
    row_of, column_of = _ranks(rows), _ranks(columns)
    alone = (np.bincount(row_of)[row_of] == 1) & (np.bincount(column_of)[column_of] == 1)
    chosen = [np.flatnonzero(alone)]
    rest = np.flatnonzero(~alone)
    if len(rest):
        count = row_of.max() + 1
        size = count + column_of.max() + 1
        links = coo_array((np.ones(len(rest)), (row_of[rest], count + column_of[rest])), shape=(size, size))
        component = connected_components(links, directed=False)[1][row_of[rest]]
        order = np.argsort(component, kind="stable")
        ends = np.flatnonzero(np.diff(component[order])) + 1
        for pairs in np.split(rest[order], ends):
            own_rows, own_columns = (_ranks(names[pairs]) for names in (row_of, column_of))
            chosen.append(pairs[_solve(own_rows, own_columns, gain[pairs])])
    pairs = np.concatenate(chosen)
    pairs = pairs[np.argsort(rows[pairs], kind="stable")]
    return rows[pairs], columns[pairs]


def _ranks(values: np.ndarray) -> np.ndarray:
    """Returns the position of each value among the sorted different ones."""
    return np.unique(values, return_inverse=True)[1]


def _solve(rows: np.ndarray, columns: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Returns which of the P pairs give the lowest sum of `gain` (P,), all negative, one to one."""
    matrix = np.zeros((rows.max() + 1, columns.max() + 1))  # no pair: nothing gained
    number = np.full(matrix.shape, -1)
    matrix[rows, columns] = gain
    number[rows, columns] = np.arange(len(gain))
    chosen = number[linear_sum_assignment(matrix)]
    return chosen[chosen >= 0]


def nearest(points: np.ndarray, others: np.ndarray, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns which of `points` (N, 2) have one of `others` (M, 2) within its `reach` (M,), and the nearest.

    All in pixels. Returns indices into `points`, ascending, and into `others`, int64 of equal length.
    """
    far = np.full(len(points), reach.max(initial=0.0))
    rows, columns = near_pairs(points, far, others)
    distance = np.hypot(*(points[rows] - others[columns]).T)
    close = distance <= reach[columns]
    rows, columns, distance = rows[close], columns[close], distance[close]
    order = np.lexsort((distance, rows))
    first = np.unique(rows[order], return_index=True)[1]
    return rows[order][first], columns[order][first]


def mixture_cost(squared: np.ndarray, variance: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Returns the cost (P,) of assigning a detection to a track, for P pairs: −2 log (2π likelihood).

    `squared` (P, M) are the squared distances in px² between the detection and what each of the M models of
    the track predicts, `variance` (P, M) those of the innovation along one axis in px², `probability` (P, M)
    those of the models. With one model this is the squared Mahalanobis distance plus the logarithm of the
    determinant of the innovation covariance (Blackman and Popoli, "Design and Analysis of Modern Tracking
    Systems", 1999, chapter 6). Without the second term a track that has been coasting for long, with a large
    variance, would take the detections of its neighbours.
    """
    exponent = -squared / (2 * variance)
    highest = exponent.max(axis=1)
    weights = probability / variance * np.exp(exponent - highest[:, None])
    return -2 * (highest + np.log(weights.sum(axis=1)))


def gate_radius(variance: np.ndarray, probability: np.ndarray, limit: float) -> np.ndarray:
    """Returns the distance (N, M) in pixels beyond which no model has a share in a cost below `limit`.

    `variance` and `probability` (N, M) are those of `mixture_cost`. Where all M distances are larger, the
    cost of the pair exceeds `limit`.
    """
    least = 2 * np.log(variance / (probability * probability.shape[1]))
    return np.sqrt(variance * np.maximum(limit - least, 0))
