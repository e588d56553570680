"""Connected components of binary masks, and their one-to-one assignment by the distance of centroids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

Connectivity = Literal[4, 8]
"""Neighbours of a pixel: those that share a side (4), or a side or a corner (8)."""


@dataclass(frozen=True, eq=False)
class Regions:
    """The connected components of a mask, ordered by their first pixel in raster order."""

    rows: np.ndarray
    """(P,) int64 rows of all foreground pixels, in raster order."""
    columns: np.ndarray
    """(P,) int64 columns of the same pixels."""
    labels: np.ndarray
    """(P,) int64 region of each of these pixels, from 0."""
    areas: np.ndarray
    """(R,) int64 number of pixels of each region."""
    centroids: np.ndarray
    """(R, 2) float64 mean row and column of the region's pixels; whole numbers are centres of pixels."""

    def __len__(self) -> int:
        return len(self.areas)

    def maxima(self, values: np.ndarray) -> np.ndarray:
        """Returns the maximum of non-negative `values` (H, W) over each region: (R,), of the same dtype."""
        best = np.zeros(len(self), dtype=values.dtype)
        np.maximum.at(best, self.labels, values[self.rows, self.columns])
        return best


def find_regions(mask: np.ndarray, connectivity: Connectivity = 8) -> Regions:
    """Returns the connected components of a mask (H, W) bool."""
    label_map, count = ndimage.label(
        mask, ndimage.generate_binary_structure(2, 2 if connectivity == 8 else 1)
    )
    rows, columns = np.nonzero(mask)
    labels = label_map[rows, columns].astype(np.int64) - 1
    areas = np.bincount(labels, minlength=count)
    sums = [np.bincount(labels, weights=axis, minlength=count) for axis in (rows, columns)]
    return Regions(rows, columns, labels, areas, np.stack(sums, axis=1) / areas[:, None])


def centroid_distances(targets: Regions, predictions: Regions) -> np.ndarray:
    """Returns the pairwise distances in pixels between centroids: (T, P) float64."""
    return np.linalg.norm(targets.centroids[:, None] - predictions.centroids[None], axis=2)


def nearest_pairs(distances: np.ndarray, limit: float) -> np.ndarray:
    """Assigns predictions to targets: as many pairs as possible, then the smallest total distance.

    Only pairs closer than `limit` are formed from the `distances` (T, P). Returns (N, 2) int64 indices of
    target and prediction, each in at most one pair. The order of the regions does not affect the pairs.
    """
    close = distances < limit
    near = np.flatnonzero(close.any(axis=0))  # a poor map has thousands of regions, few of them near a target
    cost = np.where(close, distances, limit * (1 + len(distances)))[:, near]
    pairs = np.stack(linear_sum_assignment(cost), axis=1)
    pairs[:, 1] = near[pairs[:, 1]]
    return pairs[close[pairs[:, 0], pairs[:, 1]]]


def first_come_pairs(distances: np.ndarray, limit: float) -> np.ndarray:
    """Assigns to each target, in order, the first free prediction closer than `limit`.

    `distances` are (T, P). Returns (N, 2) int64 indices of target and prediction. Most published evaluations
    of small-target segmentation match this way; the pairs depend on the order of the regions.
    """
    close, pairs = distances < limit, []
    for target, row in enumerate(close):
        if row.any():
            first = int(row.argmax())
            close[:, first] = False
            pairs.append((target, first))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)
