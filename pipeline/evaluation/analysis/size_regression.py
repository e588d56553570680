"""Box sizes that are wrong alike in all videos: one map from found to annotated, fitted on other videos.

What a map that never saw a video gains there is the network's habit, and can be learned; what only the
video's own labels can mend (`limits.py`) is theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FOLDS = 4
"""Parts that the videos are dealt into; each part is mapped by what was fitted on the others."""

_ROUNDS = 20
_MIN_RESIDUAL = 0.05  # logarithm; below it a pair weighs no more


class SizeRegression(NamedTuple):
    """An affine map of the logarithms of width and height; sizes beyond those fitted on count as the last."""

    low: np.ndarray
    """(2,) logarithms of the least found width and height."""
    high: np.ndarray
    """(2,) of the greatest."""
    centre: np.ndarray
    """(2,) of the median."""
    weights: np.ndarray
    """(3, 2): what width and height, over the centre, and a constant add to the logarithms of both."""

    @classmethod
    def fit(cls, found: np.ndarray, labels: np.ndarray) -> SizeRegression:
        """Least absolute deviations of the logarithms, by reweighted least squares.

        `found` and `labels` are (P, 2) widths and heights above 0, P at least 1. Where sizes do not differ
        enough to tell more, the map is a factor.
        """
        sizes, wanted = np.log(found), np.log(labels)
        centre = np.median(sizes, axis=0)
        rows = np.column_stack([sizes - centre, np.ones(len(sizes))])
        weights, importance = np.zeros((3, 2)), np.ones(sizes.shape)
        for _ in range(_ROUNDS):
            for axis in range(2):
                scale = np.sqrt(importance[:, axis])
                left = (wanted - sizes)[:, axis] * scale
                weights[:, axis] = np.linalg.lstsq(rows * scale[:, None], left, rcond=1e-6)[0]
            importance = 1 / np.maximum(np.abs(wanted - sizes - rows @ weights), _MIN_RESIDUAL)
        return cls(sizes.min(axis=0), sizes.max(axis=0), centre, weights)

    def factors(self, found: np.ndarray) -> np.ndarray:
        """(N, 2) widths and heights → (N, 2) factors that turn them into what labels would have."""
        sizes = np.log(np.clip(found, np.exp(self.low), np.exp(self.high)))
        return np.exp(np.column_stack([sizes - self.centre, np.ones(len(sizes))]) @ self.weights)


def folds(videos: int) -> np.ndarray:
    """(V,) the part that each video belongs to, dealt in turn: neighbours, often alike, are parted."""
    return np.arange(videos) % FOLDS


def maps_for(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[SizeRegression | None]:
    """For each video the map fitted on those of the other parts.

    `pairs` are found and annotated sizes, (P, 2) each, by video; None where the other parts have none.
    """
    part, maps = folds(len(pairs)), {}
    for number in np.unique(part):
        others = [pair for pair, own in zip(pairs, part, strict=True) if own != number]
        found, labels = (
            np.concatenate([np.zeros((0, 2)), *(pair[side] for pair in others)]) for side in (0, 1)
        )
        maps[number] = SizeRegression.fit(found, labels) if len(found) else None
    return [maps[number] for number in part]
