"""Affine maps of the plane as (2, 3) float64 matrices [[a, b, x], [c, d, y]], and their fit to points."""

from __future__ import annotations

import math

import numpy as np

IDENTITY = np.eye(2, 3)
TOLERANCE = 0.5
"""Maximum distance between a point and where the motion puts it, in pixels."""
GOOD, ENOUGH = 0.12, 0.7
"""Distance (root mean square, in pixels) and share of points at which a shift explains enough."""
MIN_BENT_POINTS = 12
"""Minimum number of points that agree on a motion with rotation and zoom."""
MAX_COST = 0.7
"""Maximum squared error of a motion with rotation and zoom, as a fraction of that of the best shift."""
MIN_BENT = 0.15
"""Minimum difference of the two at a corner of the frame, in pixels."""


def compose(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Returns the map that applies `first`, then `second`; all (2, 3)."""
    result = np.empty((2, 3))
    result[:, :2] = second[:, :2] @ first[:, :2]
    result[:, 2] = second[:, :2] @ first[:, 2] + second[:, 2]
    return result


def invert(affine: np.ndarray) -> np.ndarray:
    """Returns the inverse of a map (2, 3). Raises numpy.linalg.LinAlgError if it has none."""
    (a, b, x), (c, d, y) = affine.tolist()
    area = a * d - b * c
    if area == 0:
        raise np.linalg.LinAlgError("Singular matrix")
    return np.array([[d, -b, b * y - d * x], [-c, a, c * x - a * y]]) / area


def apply(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Maps points (..., 2) x y; returns the same shape, float64."""
    return points @ affine[:, :2].T + affine[:, 2]


def fit_shift(
    before: np.ndarray, now: np.ndarray, weights: np.ndarray, *, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the shift on which most pairs of points agree, (2, 3), and which do, (N,) bool.

    `before` and `now` are (N, 2), `weights` (N,) positive, N at least 1. A pair agrees within `tolerance`. Of
    the shifts of all pairs the one counts to which those of the most weight are near; it is then refined to
    their mean.
    """
    x, y = np.ascontiguousarray((now - before).T, dtype=np.float64)
    reach = tolerance**2
    near = np.square(x[:, None] - x) + np.square(y[:, None] - y) <= reach
    best = (near @ weights).argmax()
    agree, shift = near[best], (x[best], y[best])
    for _ in range(3):
        share, last = weights * agree, agree
        total = share.sum()
        if total == 0:  # the mean of two distant groups may be near to none
            break
        shift = share @ x / total, share @ y / total
        agree = np.square(x - shift[0]) + np.square(y - shift[1]) <= reach
        if np.array_equal(agree, last):
            break
    return np.array([[1, 0, shift[0]], [0, 1, shift[1]]]), agree


def fit_similarity(before: np.ndarray, now: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the shift, rotation and zoom of weighted least squares between pairs of points, as (2, 3).

    `before` and `now` are (N, 2), `weights` (N,) positive. With fewer than two distinct points it is the mean
    shift. The closed form of Umeyama, "Least-squares estimation of transformation parameters between two
    point patterns" (1991), in two dimensions.
    """
    share = weights / weights.sum()
    from_centre, to_centre = share @ before, share @ now
    (old_x, old_y), (new_x, new_y) = (before - from_centre).T, (now - to_centre).T
    spread = share @ (old_x * old_x + old_y * old_y)
    a, b = 1.0, 0.0
    if spread > 1e-9:
        a = share @ (old_x * new_x + old_y * new_y) / spread
        b = share @ (old_x * new_y - old_y * new_x) / spread
    x, y = from_centre
    return np.array([[a, -b, to_centre[0] - a * x + b * y], [b, a, to_centre[1] - b * x - a * y]])


def fit_motion(
    before: np.ndarray, now: np.ndarray, weights: np.ndarray, *, last: np.ndarray, corners: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the motion (2, 3) on which most pairs of points agree, and which do, (N,) bool.

    `before` and `now` are (N, 2), `weights` (N,), `last` (2, 3) is the motion up to the frame before,
    `corners` (4, 2) are those of the frame. It is a shift unless rotation and zoom explain clearly more.
    """
    shift, agree = fit_shift(before, now, weights, tolerance=TOLERANCE)
    errors = weights * np.minimum(squared_errors(shift, before, now), TOLERANCE**2)
    weight = weights[agree].sum()
    if errors[agree].sum() <= GOOD**2 * weight and weight >= ENOUGH * weights.sum():
        return shift, agree
    bent = shift
    if not np.array_equal(last[:, :2], IDENTITY[:, :2]):
        bent = compose(fit_shift(apply(last, before), now, weights, tolerance=TOLERANCE)[0], last)
    squared, fitted = squared_errors(bent, before, now), None
    for tolerance in (3 * TOLERANCE, 2 * TOLERANCE, TOLERANCE, TOLERANCE):
        near = squared <= tolerance**2
        if np.count_nonzero(near) < MIN_BENT_POINTS:
            return shift, agree
        if fitted is not None and np.array_equal(near, fitted):
            continue
        bent, fitted = fit_similarity(before[near], now[near], weights[near]), near
        squared = squared_errors(bent, before, now)
    difference = farthest(bent, shift, corners)
    cost = weights @ np.minimum(squared, TOLERANCE**2)
    if difference < MIN_BENT or cost > MAX_COST * errors.sum():
        return shift, agree
    return bent, squared <= TOLERANCE**2


def squared_errors(motion: np.ndarray, before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Returns the squared distances (N,) between points (N, 2) and where a motion (2, 3) puts them."""
    return np.square(apply(motion, before) - now).sum(axis=1)


def farthest(motion: np.ndarray, other: np.ndarray, corners: np.ndarray) -> float:
    """Returns the largest distance between where two motions (2, 3) put the corners (4, 2)."""
    (a, b, x), (c, d, y) = (motion - other).tolist()
    return max(math.hypot(a * u + b * v + x, c * u + d * v + y) for u, v in corners.tolist())
