"""Affine maps of the plane as (2, 3) float64 matrices [[a, b, x], [c, d, y]]."""

from __future__ import annotations

import numpy as np

IDENTITY = np.eye(2, 3)
_TO_COMPLEX = np.array([1, 1j])


def compose(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Returns the map that applies `first`, then `second`; all (2, 3)."""
    result = np.empty((2, 3))
    result[:, :2] = second[:, :2] @ first[:, :2]
    result[:, 2] = second[:, :2] @ first[:, 2] + second[:, 2]
    return result


def invert(affine: np.ndarray) -> np.ndarray:
    """Returns the inverse of a map (2, 3). Raises numpy.linalg.LinAlgError if it has none."""
    result = np.empty((2, 3))
    result[:, :2] = np.linalg.inv(affine[:, :2])
    result[:, 2] = -result[:, :2] @ affine[:, 2]
    return result


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
    shifts = (now - before) @ _TO_COMPLEX  # one number per shift: half the arithmetic
    near = np.abs(shifts[:, None] - shifts) <= tolerance
    shift = shifts[(near @ weights).argmax()]
    for _ in range(3):
        agree = np.abs(shifts - shift) <= tolerance
        if not agree.any():  # the mean of two distant groups may be near to none
            break
        shift = shifts[agree] @ weights[agree] / weights[agree].sum()
    return np.array([[1, 0, shift.real], [0, 1, shift.imag]]), np.abs(shifts - shift) <= tolerance


def fit_similarity(before: np.ndarray, now: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the shift, rotation and zoom of weighted least squares between pairs of points, as (2, 3).

    `before` and `now` are (N, 2), `weights` (N,) positive. With fewer than two distinct points it is the mean
    shift. The closed form of Umeyama, "Least-squares estimation of transformation parameters between two
    point patterns" (1991), in two dimensions.
    """
    share = weights / weights.sum()
    from_centre, to_centre = share @ before, share @ now
    old, new = before - from_centre, now - to_centre
    spread = share @ np.square(old).sum(axis=1)
    a, b = 1.0, 0.0
    if spread > 1e-9:
        a = share @ (old * new).sum(axis=1) / spread
        b = share @ (old[:, 0] * new[:, 1] - old[:, 1] * new[:, 0]) / spread
    linear = np.array([[a, -b], [b, a]])
    return np.column_stack([linear, to_centre - linear @ from_centre])
