"""Association of detections with tracks: gates, costs and the optimal one-to-one assignment.

All costs are based on the distance between centres. IoU is not informative for targets of a few pixels: for a
3×3 box it is 0.29 after a diagonal shift of one pixel, and 0 after three.

Only pairs within a gate are ever considered, as a list of rows and columns: of 2000 targets each is near a
few detections only.
"""

from __future__ import annotations

from itertools import chain

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
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
    rows = np.repeat(np.arange(len(predicted)), np.fromiter(map(len, found), np.int64, len(found)))
    columns = np.fromiter(chain.from_iterable(found), np.int64, len(rows))
    return rows, columns


def assign(
    rows: np.ndarray, columns: np.ndarray, cost: np.ndarray, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Assigns rows to columns one to one, using only the P pairs `rows`, `columns` (P,) at `cost` (P,).

    The sum over the chosen pairs of `cost` − `limit` is minimal; pairs that cost more than `limit` are never
    chosen. So a pair is worth having if it costs less than what its row and column would without it. Costs
    must be finite. Returns the chosen rows and columns, int64 of equal length, rows ascending.

    Many pairs are solved as a sparse matrix, without those of rows and columns that have no other pair.
    """
    useful = cost < limit
    rows, columns, gain = rows[useful], columns[useful], cost[useful] - limit
    if not len(rows):
        return rows, columns
    if rows.max() * columns.max() <= DENSE_PAIRS:
        pairs = _solve(rows, columns, gain)
        return rows[pairs], columns[pairs]
    alone = (np.bincount(rows)[rows] == 1) & (np.bincount(columns)[columns] == 1)
    rest = np.flatnonzero(~alone)
    contested = rest[_solve_sparse(rows[rest], columns[rest], gain[rest])]
    chosen = np.concatenate([np.flatnonzero(alone), contested])
    pairs = chosen[np.argsort(rows[chosen], kind="stable")]
    return rows[pairs], columns[pairs]


def _solve(rows: np.ndarray, columns: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Returns which of the P pairs give the lowest sum of `gain` (P,), all negative, one to one."""
    matrix = np.zeros((rows.max() + 1, columns.max() + 1))  # no pair: nothing gained
    number = np.full(matrix.shape, -1)
    matrix[rows, columns] = gain
    number[rows, columns] = np.arange(len(gain))
    chosen = number[linear_sum_assignment(matrix)]
    return chosen[chosen >= 0]


def _solve_sparse(rows: np.ndarray, columns: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Returns what `_solve` does, with memory and time that depend on P and not on the size of the matrix."""
    if not len(gain):
        return np.zeros(0, np.int64)
    _, row_of = np.unique(rows, return_inverse=True)
    _, column_of = np.unique(columns, return_inverse=True)
    count, width = row_of.max() + 1, column_of.max() + 1
    own = np.arange(count)
    # each row may also take a column of its own, at which it gains nothing: then all rows are assigned
    places = np.concatenate([row_of, own]), np.concatenate([column_of, width + own])
    # a sum over all rows is the lowest whatever is added to each entry; zeros would count as no entry
    weights = np.concatenate([gain, np.zeros(count)]) - gain.min() + 1
    matrix = csr_array((weights, places), shape=(count, width + count))
    some, others = min_weight_full_bipartite_matching(matrix)
    inner = others < width
    number = row_of * width + column_of  # of each entry of the matrix
    order = np.argsort(number)
    return order[np.searchsorted(number, some[inner] * width + others[inner], sorter=order)]


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
