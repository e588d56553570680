"""Receiver operating characteristic: what is hit over what is false, as the threshold falls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.evaluation.segmentation.pixel_metrics import RATE_DAMPING
from pipeline.evaluation.segmentation.sample import Grey, Sample

LEVELS = 65535
"""Steps from 0 to 1 of a curve without listed thresholds; 8 and 16 bit maps lose nothing to them."""
COUNTED = ("pixels", "targets", "wanted", "hits")
"""All pixels; those that are right when found; those that are missed when not; targets or their windows."""


@dataclass(frozen=True)
class CurveRule:
    """What is counted at which thresholds. Memory is that of two histograms, however many images come."""

    steps: int | None = None
    """Thresholds are k / steps, k = 0 … steps; None for all: scores rounded to 1 / `LEVELS`, and the curve
    led to (0, 0), as it would be by a threshold above all scores."""
    inclusive: bool = False
    """Whether a score equal to a listed threshold counts as above it."""
    relative: bool = False
    """Whether maps are divided by their own maximum before."""
    grey: Grey = "half"
    hit: Literal["pixels", "touched", "window"] = "pixels"
    """What the rate of hits counts: pixels; targets (8-connected) with any pixel above the threshold; or with
    one in the 2x2 pixels that end up and left of the target's centroid, rounded."""
    damped: bool = False
    """Whether a little is added to denominators."""
    skip_empty: bool = False
    """Whether images without targets are left out."""

    def tally(self) -> CurveTally:
        """Histograms, still empty."""
        return CurveTally(self)

    @property
    def thresholds(self) -> int:
        """How many thresholds there are."""
        return (LEVELS if self.steps is None else self.steps) + 1

    def passed(self, sample: Sample) -> np.ndarray:
        """(H, W) int64: how many of the thresholds, from the lowest on, each pixel is above."""
        values = sample.values(relative=self.relative)
        if self.steps is None:
            return np.rint(values * np.float64(LEVELS)).astype(np.int64) + 1
        grid = (np.arange(self.steps + 1) / self.steps).astype(np.float32)
        return np.searchsorted(grid, values, side="right" if self.inclusive else "left")


@dataclass(frozen=True, eq=False)
class Curve:
    """Rates at falling strictness: from the lowest threshold, at which most is found, to the highest."""

    false_rates: np.ndarray
    """(n,) float64 false pixels over all pixels outside targets; NaN without any such pixel."""
    hit_rates: np.ndarray
    """(n,) float64 hits over all that could be hit; NaN without targets."""

    def area(self) -> float | None:
        """AUC, by trapezoids; None where a rate is not defined."""
        widths = self.false_rates[:-1] - self.false_rates[1:]
        area = float((widths * (self.hit_rates[:-1] + self.hit_rates[1:])).sum() / 2)
        return None if np.isnan(area) else area


class CurveTally:
    """Histograms over the images so far."""

    def __init__(self, rule: CurveRule):
        self.rule = rule
        self._counts = {name: np.zeros(rule.thresholds + 1, np.int64) for name in COUNTED}

    def add(self, sample: Sample) -> None:
        """Count one image."""
        rule = self.rule
        targets = sample.targets(rule.grey)
        if rule.skip_empty and not targets.any():
            return
        passed = rule.passed(sample)
        self._count("pixels", passed)
        self._count("targets", passed[targets])
        self._count("wanted", passed[sample.wanted(rule.grey)])
        if rule.hit != "pixels":
            groups = sample.target_regions(rule.grey, 8)
            best = groups.maxima(passed) if rule.hit == "touched" else _in_window(passed, groups.centroids)
            self._count("hits", best)

    def _count(self, name: str, passed: np.ndarray) -> None:
        self._counts[name] += np.bincount(passed.ravel(), minlength=self.rule.thresholds + 1)

    def curve(self) -> Curve:
        """The rates at all thresholds."""
        above = {name: _above(histogram) for name, histogram in self._counts.items()}
        total = {name: histogram.sum() for name, histogram in self._counts.items()}
        true, false = above["targets"], above["pixels"] - above["targets"]
        missed = total["wanted"] - above["wanted"]
        rightly_left = total["pixels"] - above["pixels"] - missed
        damping = RATE_DAMPING if self.rule.damped else 0.0
        with np.errstate(invalid="ignore"):
            false_rates = false / (false + rightly_left + damping)
            if self.rule.hit == "pixels":
                hit_rates = true / (true + missed + damping)
            else:
                hit_rates = above["hits"] / total["hits"]
        if self.rule.steps is None:
            false_rates, hit_rates = np.append(false_rates, 0.0), np.append(hit_rates, 0.0)
        return Curve(false_rates, hit_rates)


def _above(histogram: np.ndarray) -> np.ndarray:
    """(n + 1,) counts by passed thresholds → (n,) counts above each threshold."""
    return histogram[::-1].cumsum()[::-1][1:]


def _in_window(passed: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """(R,) highest of the 2x2 pixels that end up and left of each centroid; 0 where the border cuts them."""
    best = []
    for row, column in np.rint(centroids).astype(int).tolist():
        window = passed[row - 2 : row, column - 2 : column] if min(row, column) >= 2 else passed[:0]
        best.append(window.max(initial=0))
    return np.array(best, dtype=np.int64)
