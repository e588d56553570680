"""Pixel metrics: IoU over all images and per image, precision, recall, F1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.segmentation.sample import ABOVE_HALF, GreyPolicy, Sample, ThresholdRule

RATE_DAMPING, F1_DAMPING = 1e-3, 1e-5
"""Added to the denominators of rates and of F1 by some published evaluations; lowers F1 by about 1e-5."""


@dataclass(frozen=True)
class PixelRule:
    """Which pixels are predicted, and which are targets."""

    cut: ThresholdRule = ABOVE_HALF
    grey: GreyPolicy = "half"

    def tally(self) -> PixelTally:
        """Returns empty counts."""
        return PixelTally(self)


@dataclass
class PixelTally:
    """Pixel counts over the images added so far."""

    rule: PixelRule
    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0
    annotated: int = 0
    """Mask pixels above 0, even if grey ones are not targets; above 0.5 under the policy `half`."""
    images: int = 0
    blank_images: int = 0
    """Images with neither annotated nor predicted pixels."""
    iou_sum: float = 0.0
    """Sum of the IoU of each image that is not blank."""
    images_above_half: int = 0
    """Images with an IoU above 0.5; blank images are not among them."""

    def add(self, sample: Sample) -> float | None:
        """Adds one image and returns its IoU, None if it is blank."""
        predicted = sample.predicted(self.rule.cut)
        targets, required = sample.targets(self.rule.grey), sample.required(self.rule.grey)
        true_positives = int(np.count_nonzero(predicted & targets))
        false_positives = int(np.count_nonzero(predicted)) - true_positives
        false_negatives = int(np.count_nonzero(required & ~predicted))
        self.true_positives += true_positives
        self.false_positives += false_positives
        self.false_negatives += false_negatives
        annotated = required if self.rule.grey == "half" else sample.annotated()
        self.annotated += int(np.count_nonzero(annotated))
        self.images += 1
        union = true_positives + false_positives + false_negatives
        iou = true_positives / union if union else None
        self.blank_images += iou is None
        self.iou_sum += iou or 0.0
        self.images_above_half += iou is not None and iou > 0.5
        return iou

    def iou(self, *, blank: float) -> float:
        """Returns the IoU of the pixels of all images together; `blank` if the union is empty."""
        union = self.true_positives + self.false_positives + self.false_negatives
        return self.true_positives / union if union else blank

    def mean_iou(self, *, blank: float) -> float | None:
        """Returns the mean IoU of the images, blank ones counted as `blank`; None without images."""
        return (self.iou_sum + blank * self.blank_images) / self.images if self.images else None

    def precision(self, *, damped: bool = False) -> float | None:
        """Returns true positives over predicted pixels; None without predicted pixels unless damped."""
        predicted = self.true_positives + self.false_positives
        return (
            _damped_ratio(self.true_positives, predicted)
            if damped
            else _ratio(self.true_positives, predicted)
        )

    def recall(self, *, damped: bool = False) -> float | None:
        """Returns true positives over target pixels; None without target pixels unless damped."""
        targets = self.true_positives + self.false_negatives
        return _damped_ratio(self.true_positives, targets) if damped else _ratio(self.true_positives, targets)

    def accuracy(self) -> float | None:
        """Returns pixAcc: true positives over all annotated pixels; None without annotated pixels."""
        return _ratio(self.true_positives, self.annotated)

    def f1(self, *, blank: float, damped: bool = False) -> float:
        """Returns the harmonic mean of precision and recall; `blank` if all images are blank."""
        if not damped:
            total = 2 * self.true_positives + self.false_positives + self.false_negatives
            return 2 * self.true_positives / total if total else blank
        precision = _damped_ratio(self.true_positives, self.true_positives + self.false_positives)
        recall = _damped_ratio(self.true_positives, self.true_positives + self.false_negatives)
        return 2 * precision * recall / (precision + recall + F1_DAMPING)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _damped_ratio(part: int, whole: int) -> float:
    return part / (whole + RATE_DAMPING)
