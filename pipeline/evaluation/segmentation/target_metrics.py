"""Targets compared one by one: probability of detection (Pd) and false-alarm rate (Fa)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy import ndimage

from pipeline.evaluation.segmentation.sample import HALF, Cut, Grey, Sample
from pipeline.imaging.connected_components import (
    Connectivity,
    Regions,
    centroid_distances,
    first_come_pairs,
    nearest_pairs,
)

REACH, GUARD = 1, 4
"""Pixels around a target's pixels: where a found one hits it (3x3), and where none is false (9x9)."""


@dataclass(frozen=True)
class TargetRule:
    """Which targets count as hit, and which pixels as false alarms."""

    cut: Cut = HALF
    grey: Grey = "half"
    connectivity: Connectivity = 8
    hit: Literal["nearest", "first come", "guard"] = "nearest"
    """How groups of found pixels are assigned to targets, one to one: `nearest_pairs`, `first_come_pairs`; or
    not at all: under `guard` a target is hit by any found pixel within `REACH`."""
    distance: float = 3.0
    """Pixels; centroids must be closer than this to make a pair."""
    false: Literal["groups", "areas", "rows", "guard"] = "groups"
    """False are the pixels of groups without a target; of groups without a target, and not of the same area
    as one with; found pixels that share no row with a hit target; found pixels beyond `GUARD`."""
    frame: int | None = None
    """Pixels that an image counts as in Fa; None for as many as it has."""

    def tally(self) -> TargetTally:
        """Counts, still empty."""
        return TargetTally(self)

    def judge(self, sample: Sample) -> Verdict:
        """What was hit in an image, and what is false."""
        targets = sample.target_regions(self.grey, self.connectivity)
        if self.hit == "guard":
            return _guarded(sample.found(self.cut), sample.targets(self.grey), targets)
        found = sample.found_regions(self.cut, self.connectivity)
        assign = nearest_pairs if self.hit == "nearest" else first_come_pairs
        pairs = assign(centroid_distances(targets, found), self.distance)
        alone = np.ones(len(found), dtype=bool)
        alone[pairs[:, 1]] = False
        if self.false == "rows":
            hit = np.isin(targets.labels, pairs[:, 0])
            false = np.count_nonzero(~np.isin(found.rows, targets.rows[hit]))
        elif self.false == "areas":
            false = found.areas[~np.isin(found.areas, found.areas[~alone])].sum()
        else:
            false = found.areas[alone].sum()
        return Verdict(len(pairs), len(targets), int(false), int(alone.sum()))


class Verdict(NamedTuple):
    """Targets of one image."""

    hits: int
    targets: int
    false_pixels: int
    false_groups: int | None
    """Groups of found pixels without a target; None where groups are not assigned."""


@dataclass
class TargetTally:
    """Counts over the images so far."""

    rule: TargetRule
    hits: int = 0
    targets: int = 0
    false_pixels: int = 0
    false_groups: int | None = 0
    """Groups of found pixels without a target; None where groups are not assigned."""
    images: int = 0
    pixels: int = 0
    """Pixels of all images, as the rule counts them."""

    def add(self, sample: Sample) -> Verdict:
        """Count one image."""
        verdict = self.rule.judge(sample)
        self.hits += verdict.hits
        self.targets += verdict.targets
        self.false_pixels += verdict.false_pixels
        self.false_groups = None if verdict.false_groups is None else self.false_groups + verdict.false_groups
        self.images += 1
        self.pixels += sample.pixels if self.rule.frame is None else self.rule.frame
        return verdict

    @property
    def pd(self) -> float | None:
        """Share of the targets that were hit; None without targets."""
        return self.hits / self.targets if self.targets else None

    @property
    def fa(self) -> float | None:
        """False pixels over all pixels, a plain ratio; papers print it times 1e6. None without images."""
        return self.false_pixels / self.pixels if self.pixels else None


def _guarded(found: np.ndarray, target: np.ndarray, targets: Regions) -> Verdict:
    near = _grown(found, REACH)
    hits = int(np.count_nonzero(targets.maxima(near.astype(np.uint8))))
    false = int(np.count_nonzero(found & ~_grown(target, GUARD)))
    return Verdict(hits, len(targets), false, false_groups=None)


def _grown(mask: np.ndarray, reach: int) -> np.ndarray:
    """The (H, W) bool mask and all within `reach` pixels of it, along rows, columns and both."""
    return ndimage.maximum_filter(mask, size=2 * reach + 1, mode="constant")
