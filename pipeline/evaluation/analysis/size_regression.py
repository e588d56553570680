"""Systematic bias of box sizes: a map from predicted to annotated sizes, cross-validated over videos.

What a map improves on videos that it was not fitted on is a bias of the network and can be learned. What only
a factor fitted on a video's own labels improves (`pipeline.evaluation.analysis.error_attribution`) is a
property of those labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FOLDS = 4
"""Folds of the cross-validation; the videos of a fold are mapped by the fit on the other folds."""

_ITERATIONS = 20
_MIN_RESIDUAL = 0.05
"""Log residual below which the weight of a pair no longer grows."""


class SizeRegression(NamedTuple):
    """Affine map of log width and log height; sizes outside the fitted range are clipped to it."""

    low: np.ndarray
    """(2,) log of the smallest width and height fitted on."""
    high: np.ndarray
    """(2,) log of the greatest."""
    centre: np.ndarray
    """(2,) log of the median."""
    weights: np.ndarray
    """(3, 2) coefficients of log width and height, relative to `centre`, and of a constant, for both logs."""

    @classmethod
    def fit(cls, predicted: np.ndarray, annotated: np.ndarray) -> SizeRegression:
        """Fits least absolute deviations of the logs by iteratively reweighted least squares.

        `predicted` and `annotated` are (P, 2) widths and heights above 0, P at least 1. If the sizes vary too
        little to determine the slopes, the map is a constant factor.
        """
        sizes, target = np.log(predicted), np.log(annotated)
        centre = np.median(sizes, axis=0)
        design = np.column_stack([sizes - centre, np.ones(len(sizes))])
        weights, importance = np.zeros((3, 2)), np.ones(sizes.shape)
        for _ in range(_ITERATIONS):
            for axis in range(2):
                scale = np.sqrt(importance[:, axis])
                difference = (target - sizes)[:, axis] * scale
                weights[:, axis] = np.linalg.lstsq(design * scale[:, None], difference, rcond=1e-6)[0]
            importance = 1 / np.maximum(np.abs(target - sizes - design @ weights), _MIN_RESIDUAL)
        return cls(sizes.min(axis=0), sizes.max(axis=0), centre, weights)

    def factors(self, predicted: np.ndarray) -> np.ndarray:
        """Returns the (N, 2) factors that map predicted widths and heights (N, 2) to annotated ones."""
        sizes = np.log(np.clip(predicted, np.exp(self.low), np.exp(self.high)))
        return np.exp(np.column_stack([sizes - self.centre, np.ones(len(sizes))]) @ self.weights)


def video_folds(videos: int) -> np.ndarray:
    """Returns the (V,) fold of each video; consecutive videos, often similar, get different folds."""
    return np.arange(videos) % FOLDS


def cross_validated_maps(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[SizeRegression | None]:
    """Returns for each video the map fitted on the other folds; None if these have no pairs.

    `pairs` holds for each video the predicted and annotated widths and heights, (P, 2) each.
    """
    folds = video_folds(len(pairs))
    maps: dict[int, SizeRegression | None] = {}
    for fold in np.unique(folds).tolist():
        others = [pair for pair, other in zip(pairs, folds, strict=True) if other != fold]
        predicted, annotated = (
            np.concatenate([np.zeros((0, 2)), *(pair[side] for pair in others)]) for side in (0, 1)
        )
        maps[fold] = SizeRegression.fit(predicted, annotated) if len(predicted) else None
    return [maps[fold] for fold in folds.tolist()]
