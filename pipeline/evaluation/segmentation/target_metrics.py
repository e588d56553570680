"""Target metrics: probability of detection (Pd) and false-alarm rate (Fa)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy import ndimage

from pipeline.evaluation.segmentation.sample import ABOVE_HALF, GreyPolicy, Sample, ThresholdRule
from pipeline.imaging.connected_components import (
    Connectivity,
    Regions,
    centroid_distances,
    first_come_pairs,
    nearest_pairs,
)

REACH, GUARD = 1, 4
"""Chessboard distances in pixels from a target: up to `REACH` (3x3) a predicted pixel hits it, up to `GUARD`
(9x9) a predicted pixel is not a false alarm."""


@dataclass(frozen=True)
class TargetRule:
    """Which targets, the connected components of the mask, are hit, and which pixels are false alarms."""

    cut: ThresholdRule = ABOVE_HALF
    grey: GreyPolicy = "half"
    connectivity: Connectivity = 8
    hit: Literal["nearest", "first come", "guard"] = "nearest"
    """One-to-one assignment of predicted components to targets by `nearest_pairs` or `first_come_pairs`. With
    `guard` there is none: a target is hit by any predicted pixel within `REACH`."""
    distance: float = 3.0
    """Upper limit in pixels, exclusive, of the distance between assigned centroids."""
    false: Literal["groups", "areas", "rows", "guard"] = "groups"
    """False pixels: `groups`, those of unassigned components; `areas`, the same without components whose area
    equals that of an assigned one; `rows`, predicted pixels that share no image row with a hit target;
    `guard`, predicted pixels beyond `GUARD`."""
    frame: int | None = None
    """Pixels per image in the denominator of Fa; None for the size of the image."""

    def tally(self) -> TargetTally:
        """Returns empty counts."""
        return TargetTally(self)

    def count(self, sample: Sample) -> TargetCounts:
        """Returns the hits and false pixels of one image."""
        targets = sample.target_regions(self.grey, self.connectivity)
        if self.hit == "guard":
            return _count_with_guard(sample.predicted(self.cut), sample.targets(self.grey), targets)
        predicted = sample.predicted_regions(self.cut, self.connectivity)
        assign = nearest_pairs if self.hit == "nearest" else first_come_pairs
        pairs = assign(centroid_distances(targets, predicted), self.distance)
        unassigned = np.ones(len(predicted), dtype=bool)
        unassigned[pairs[:, 1]] = False
        if self.false == "rows":
            hit = np.isin(targets.labels, pairs[:, 0])
            false_pixels = np.count_nonzero(~np.isin(predicted.rows, targets.rows[hit]))
        elif self.false == "areas":
            spared = np.isin(predicted.areas, predicted.areas[~unassigned])
            false_pixels = predicted.areas[~spared].sum()
        else:
            false_pixels = predicted.areas[unassigned].sum()
        return TargetCounts(len(pairs), len(targets), int(false_pixels), int(unassigned.sum()))


class TargetCounts(NamedTuple):
    """Hits and false alarms of one image."""

    hits: int
    targets: int
    false_pixels: int
    false_components: int | None
    """Predicted components without a target; None if components are not assigned."""


@dataclass
class TargetTally:
    """Target counts over the images added so far."""

    rule: TargetRule
    hits: int = 0
    targets: int = 0
    false_pixels: int = 0
    false_components: int | None = 0
    """Predicted components without a target; None if components are not assigned."""
    images: int = 0
    pixels: int = 0
    """Pixels of all images, the denominator of Fa."""

    def add(self, sample: Sample) -> TargetCounts:
        """Adds one image and returns its counts."""
        counts = self.rule.count(sample)
        self.hits += counts.hits
        self.targets += counts.targets
        self.false_pixels += counts.false_pixels
        if self.false_components is None or counts.false_components is None:
            self.false_components = None
        else:
            self.false_components += counts.false_components
        self.images += 1
        self.pixels += sample.pixels if self.rule.frame is None else self.rule.frame
        return counts

    @property
    def pd(self) -> float | None:
        """Probability of detection: hits over targets; None without targets."""
        return self.hits / self.targets if self.targets else None

    @property
    def fa(self) -> float | None:
        """False-alarm rate: false pixels over all pixels, not multiplied by 1e6; None without images."""
        return self.false_pixels / self.pixels if self.pixels else None


def _count_with_guard(predicted: np.ndarray, target: np.ndarray, targets: Regions) -> TargetCounts:
    """Counts hits and false alarms; `predicted` and `target` are (H, W) bool, `targets` the components."""
    near = _dilate(predicted, REACH)
    hits = int(np.count_nonzero(targets.maxima(near.astype(np.uint8))))
    false_pixels = int(np.count_nonzero(predicted & ~_dilate(target, GUARD)))
    return TargetCounts(hits, len(targets), false_pixels, false_components=None)


def _dilate(mask: np.ndarray, reach: int) -> np.ndarray:
    """Returns the mask (H, W) bool dilated by a square of 2 * `reach` + 1 pixels."""
    return ndimage.maximum_filter(mask, size=2 * reach + 1, mode="constant")
