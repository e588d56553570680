"""Pixels compared one by one: IoU over all images and per image, precision, recall, F1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.segmentation.sample import HALF, Cut, Grey, Sample

RATE_DAMPING, F1_DAMPING = 1e-3, 1e-5
"""Added to denominators by the evaluations that do so at all; they pull F1 down by some 1e-5."""


@dataclass(frozen=True)
class PixelRule:
    """Which pixels count as found, and which as target."""

    cut: Cut = HALF
    grey: Grey = "half"

    def tally(self) -> PixelTally:
        """Counts, still empty."""
        return PixelTally(self)


@dataclass
class PixelTally:
    """Counts over the images so far."""

    rule: PixelRule
    true: int = 0
    """Found and target."""
    false: int = 0
    """Found and no target."""
    missed: int = 0
    """Target and not found."""
    annotated: int = 0
    """Mask pixels above 0, also where grey ones are not targets; above 0.5 under `half`."""
    images: int = 0
    blank: int = 0
    """Images with nothing annotated and nothing found."""
    iou_sum: float = 0.0
    """Sum of the images' own IoU, those of blank ones left out."""
    above_half: int = 0
    """Images with an IoU above 0.5; blank ones are not."""

    def add(self, sample: Sample) -> float | None:
        """Count one image; returns its own IoU, None where it is blank."""
        found = sample.found(self.rule.cut)
        targets, wanted = sample.targets(self.rule.grey), sample.wanted(self.rule.grey)
        true = int(np.count_nonzero(found & targets))
        false = int(np.count_nonzero(found)) - true
        missed = int(np.count_nonzero(wanted & ~found))
        self.true, self.false, self.missed = self.true + true, self.false + false, self.missed + missed
        self.annotated += int(np.count_nonzero(wanted if self.rule.grey == "half" else sample.annotated()))
        self.images += 1
        union = true + false + missed
        iou = true / union if union else None
        self.blank += iou is None
        self.iou_sum += iou or 0.0
        self.above_half += iou is not None and iou > 0.5
        return iou

    def iou(self, *, blank: float) -> float:
        """Intersection over union of the pixels of all images together; `blank` where there are none."""
        union = self.true + self.false + self.missed
        return self.true / union if union else blank

    def mean_iou(self, *, blank: float) -> float | None:
        """Mean of the images' own IoU; a blank image counts as `blank`. None without images."""
        return (self.iou_sum + blank * self.blank) / self.images if self.images else None

    def precision(self, *, damped: bool = False) -> float | None:
        """Share of the found pixels that are target; None where nothing was found."""
        return _share(self.true, self.true + self.false, damped)

    def recall(self, *, damped: bool = False) -> float | None:
        """Share of the target's pixels that were found; None without targets."""
        return _share(self.true, self.true + self.missed, damped)

    def accuracy(self) -> float | None:
        """`pixAcc`: found pixels of the target over all annotated ones; None without."""
        return _share(self.true, self.annotated, False)

    def f1(self, *, blank: float, damped: bool = False) -> float:
        """Harmonic mean of precision and recall; `blank` where nothing is annotated and nothing found."""
        total = 2 * self.true + self.false + self.missed
        if not damped:
            return 2 * self.true / total if total else blank
        precision, recall = self.precision(damped=True), self.recall(damped=True)
        return 2 * precision * recall / (precision + recall + F1_DAMPING)


def _share(part: int, whole: int, damped: bool) -> float | None:
    if damped:
        return part / (whole + RATE_DAMPING)
    return part / whole if whole else None
