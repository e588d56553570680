"""Receiver operating characteristic (ROC): hit rate over false-positive rate as the threshold falls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.evaluation.segmentation.pixel_metrics import RATE_DAMPING
from pipeline.evaluation.segmentation.sample import GreyPolicy, Sample

SCORE_LEVELS = 65535
"""Steps from 0 to 1 of a curve over all thresholds; 8- and 16-bit maps are represented exactly."""
HISTOGRAMS = ("pixels", "targets", "required", "hits")
"""All pixels; target pixels; pixels that are false negatives if not predicted; targets or windows at them."""


@dataclass(frozen=True)
class RocRule:
    """What is counted at which thresholds. Memory is that of four histograms, for any number of images."""

    steps: int | None = None
    """Thresholds are k / steps, k = 0 … steps. None for all: probabilities rounded to 1 / `SCORE_LEVELS`, and
    the curve extended to (0, 0), the point of a threshold above all probabilities."""
    inclusive: bool = False
    """Whether a probability equal to a threshold counts as above it; only with `steps`."""
    relative: bool = False
    """Whether maps are divided by their own maximum first."""
    grey: GreyPolicy = "half"
    hit: Literal["pixels", "touched", "window"] = "pixels"
    """What the hit rate counts: `pixels`; `touched`, targets (8-connected) with a pixel above the threshold;
    `window`, targets with such a pixel in the 2x2 window above and left of their rounded centroid."""
    damped: bool = False
    """Whether `RATE_DAMPING` is added to denominators."""
    skip_empty: bool = False
    """Whether images without targets are left out."""

    def tally(self) -> RocTally:
        """Returns empty histograms."""
        return RocTally(self)

    @property
    def thresholds(self) -> int:
        """Number of thresholds."""
        return (SCORE_LEVELS if self.steps is None else self.steps) + 1

    def thresholds_passed(self, sample: Sample) -> np.ndarray:
        """Returns (H, W) int64: the number of thresholds, from the lowest on, that each pixel is above."""
        values = sample.probabilities(relative=self.relative)
        if self.steps is None:
            return np.rint(values * np.float64(SCORE_LEVELS)).astype(np.int64) + 1
        grid = (np.arange(self.steps + 1) / self.steps).astype(np.float32)
        return np.searchsorted(grid, values, side="right" if self.inclusive else "left")


@dataclass(frozen=True, eq=False)
class RocCurve:
    """Rates at ascending thresholds: the first point has the most hits and false positives."""

    false_rates: np.ndarray
    """(n,) float64 false positives over all pixels outside targets; NaN without such pixels."""
    hit_rates: np.ndarray
    """(n,) float64 hits over all pixels or targets that can be hit; NaN without targets."""

    def area(self) -> float | None:
        """Returns the area under the curve (AUC) by trapezoids; None if a rate is undefined."""
        widths = self.false_rates[:-1] - self.false_rates[1:]
        area = float((widths * (self.hit_rates[:-1] + self.hit_rates[1:])).sum() / 2)
        return None if np.isnan(area) else area


class RocTally:
    """Histograms of the thresholds passed, over the images added so far."""

    def __init__(self, rule: RocRule):
        self.rule = rule
        self._histograms = {name: np.zeros(rule.thresholds + 1, np.int64) for name in HISTOGRAMS}

    def add(self, sample: Sample) -> None:
        """Adds one image."""
        rule = self.rule
        targets = sample.targets(rule.grey)
        if rule.skip_empty and not targets.any():
            return
        passed = rule.thresholds_passed(sample)
        self._count("pixels", passed)
        self._count("targets", passed[targets])
        self._count("required", passed[sample.required(rule.grey)])
        if rule.hit != "pixels":
            regions = sample.target_regions(rule.grey, 8)
            touched = rule.hit == "touched"
            self._count(
                "hits", regions.maxima(passed) if touched else _window_maxima(passed, regions.centroids)
            )

    def _count(self, name: str, passed: np.ndarray) -> None:
        self._histograms[name] += np.bincount(passed.ravel(), minlength=self.rule.thresholds + 1)

    def curve(self) -> RocCurve:
        """Returns the rates at all thresholds."""
        above = {name: _counts_above(histogram) for name, histogram in self._histograms.items()}
        total = {name: histogram.sum() for name, histogram in self._histograms.items()}
        true_positives, false_positives = above["targets"], above["pixels"] - above["targets"]
        false_negatives = total["required"] - above["required"]
        true_negatives = total["pixels"] - above["pixels"] - false_negatives
        damping = RATE_DAMPING if self.rule.damped else 0.0
        with np.errstate(invalid="ignore"):
            false_rates = false_positives / (false_positives + true_negatives + damping)
            if self.rule.hit == "pixels":
                hit_rates = true_positives / (true_positives + false_negatives + damping)
            else:
                hit_rates = above["hits"] / total["hits"]
        if self.rule.steps is None:
            false_rates, hit_rates = np.append(false_rates, 0.0), np.append(hit_rates, 0.0)
        return RocCurve(false_rates, hit_rates)


def _counts_above(histogram: np.ndarray) -> np.ndarray:
    """Converts (n + 1,) counts by number of thresholds passed to (n,) counts above each threshold."""
    return histogram[::-1].cumsum()[::-1][1:]


def _window_maxima(passed: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Returns (R,) int64: the maximum of `passed` (H, W) in the 2x2 window above and left of each centroid.

    Centroids are (R, 2) row and column. 0 if the window crosses the border.
    """
    best = []
    for row, column in np.rint(centroids).astype(int).tolist():
        window = passed[row - 2 : row, column - 2 : column] if min(row, column) >= 2 else passed[:0]
        best.append(window.max(initial=0))
    return np.array(best, dtype=np.int64)
