"""Average precision while frames still come in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.evaluation.detection.curves import Curve
from pipeline.evaluation.detection.ground_truth import FrameTruth
from pipeline.evaluation.detection.matches import Matches, mean
from pipeline.evaluation.detection.matching import IOU, Pairs
from pipeline.evaluation.detection.predictions import PredictedBoxes


class RunningPrecision:
    """AP50 of the frames so far. Each frame is matched once, when the number is asked for the next time."""

    def __init__(self):
        self._fresh: list[tuple[FrameTruth, PredictedBoxes, Pairs]] = []
        self._scores, self._hits = np.zeros(0), np.zeros(0, dtype=bool)
        self._categories, self._targets = np.zeros(0, dtype=int), np.zeros(0, dtype=int)

    def add(self, truth: FrameTruth, found: PredictedBoxes, pairs: Pairs) -> None:
        """One more frame."""
        self._fresh.append((truth, found, pairs))

    def average_precision(self) -> float | None:
        """Mean over the categories that have had targets; None before the first target."""
        if self._fresh:
            self._match(*zip(*self._fresh, strict=True))
            self._fresh = []
        return mean([self._of(category).average_precision for category in np.unique(self._targets)])

    def _match(
        self, truths: Sequence[FrameTruth], found: Sequence[PredictedBoxes], pairs: Sequence[Pairs]
    ) -> None:
        matches = Matches(truths, found, pairs)
        hits = matches.under(IOU)
        self._scores = np.append(self._scores, matches.scores[hits.counted])
        self._hits = np.append(self._hits, hits.hits[hits.counted])
        self._categories = np.append(self._categories, matches.categories[hits.counted])
        self._targets = np.append(self._targets, matches.target_categories[hits.targets])

    def _of(self, category: int) -> Curve:
        mine = self._categories == category
        targets = int((self._targets == category).sum())
        return Curve(self._scores[mine], self._hits[mine], targets=targets, frames=0)
