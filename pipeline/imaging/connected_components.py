"""Connected groups of pixels: areas, centroids, and their assignment to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

Connectivity = Literal[4, 8]
"""Pixels touch at sides alone (4), or at corners, too (8)."""


@dataclass(frozen=True, eq=False)
class Regions:
    """The groups of a mask in raster order: by their topmost row, in it by their leftmost pixel."""

    rows: np.ndarray
    """(P,) int64 rows of all pixels in groups, in raster order."""
    columns: np.ndarray
    """(P,) int64 columns of the same pixels."""
    members: np.ndarray
    """(P,) int64 group of each of these pixels, from 0."""
    areas: np.ndarray
    """(R,) int64 pixels of each group."""
    centroids: np.ndarray
    """(R, 2) float64 mean row and column of the group's pixels, whole numbers at centres of pixels."""

    def __len__(self) -> int:
        return len(self.areas)

    def highest(self, values: np.ndarray) -> np.ndarray:
        """(R,) highest of the (H, W) values, 0 or more, in each group."""
        best = np.zeros(len(self), dtype=values.dtype)
        np.maximum.at(best, self.members, values[self.rows, self.columns])
        return best


def regions(mask: np.ndarray, connectivity: Connectivity = 8) -> Regions:
    """The connected groups of an (H, W) bool mask."""
    labels, count = ndimage.label(mask, ndimage.generate_binary_structure(2, 2 if connectivity == 8 else 1))
    rows, columns = np.nonzero(mask)
    members = labels[rows, columns].astype(np.int64) - 1
    areas = np.bincount(members, minlength=count)
    sums = [np.bincount(members, weights=axis, minlength=count) for axis in (rows, columns)]
    return Regions(rows, columns, members, areas, np.stack(sums, axis=1) / areas[:, None])


def distances(targets: Regions, found: Regions) -> np.ndarray:
    """(T, F) float64 pixels between the centroids of targets and of what was found."""
    return np.linalg.norm(targets.centroids[:, None] - found.centroids[None], axis=2)


def nearest_pairs(apart: np.ndarray, limit: float) -> np.ndarray:
    """(n, 2) pairs target, found that are less than `limit` apart: as many as can be, then the closest.

    Each target and each found group is in one pair at most, and their order does not matter.
    """
    close = apart < limit
    near = np.flatnonzero(close.any(axis=0))  # a poor map has thousands of groups, few of them near a target
    cost = np.where(close, apart, limit * (1 + len(apart)))[:, near]
    pairs = np.stack(linear_sum_assignment(cost), axis=1)
    pairs[:, 1] = near[pairs[:, 1]]
    return pairs[close[pairs[:, 0], pairs[:, 1]]]


def first_come_pairs(apart: np.ndarray, limit: float) -> np.ndarray:
    """(n, 2) pairs target, found: each target in order takes the first group left within the `limit`.

    As most published evaluations do it; which pairs come out depends on the order of the groups.
    """
    close, pairs = apart < limit, []
    for target, row in enumerate(close):
        if row.any():
            first = int(row.argmax())
            close[:, first] = False
            pairs.append((target, first))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)
