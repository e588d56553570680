"""Counts of several rules over the same images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pipeline.evaluation.segmentation.pixel_metrics import PixelRule, PixelTally
from pipeline.evaluation.segmentation.roc import RocRule, RocTally
from pipeline.evaluation.segmentation.sample import Sample
from pipeline.evaluation.segmentation.target_metrics import TargetCounts, TargetRule, TargetTally

Rule = PixelRule | TargetRule | RocRule


class ImageCounts(NamedTuple):
    """Results of one image by rule."""

    ious: dict[PixelRule, float | None]
    """None if the image is blank: nothing annotated and nothing predicted."""
    targets: dict[TargetRule, TargetCounts]


class Tallies:
    """Running counts of a set of rules; equal rules are counted once."""

    def __init__(self, rules: Iterable[Rule]):
        self.pixels: dict[PixelRule, PixelTally] = {}
        self.targets: dict[TargetRule, TargetTally] = {}
        self.curves: dict[RocRule, RocTally] = {}
        for rule in rules:
            if isinstance(rule, PixelRule):
                self.pixels[rule] = rule.tally()
            elif isinstance(rule, TargetRule):
                self.targets[rule] = rule.tally()
            else:
                self.curves[rule] = rule.tally()

    def add(self, sample: Sample) -> ImageCounts:
        """Adds one image to all counts."""
        for curve in self.curves.values():
            curve.add(sample)
        ious = {rule: tally.add(sample) for rule, tally in self.pixels.items()}
        return ImageCounts(ious, {rule: tally.add(sample) for rule, tally in self.targets.items()})
