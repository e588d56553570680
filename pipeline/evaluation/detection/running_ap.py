"""Average precision of a run in progress."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.evaluation.detection.curves import PrecisionRecallCurve
from pipeline.evaluation.detection.ground_truth import FrameTruth
from pipeline.evaluation.detection.matches import Matches, mean_or_none
from pipeline.evaluation.detection.matching import IOU, CandidatePairs
from pipeline.evaluation.detection.predictions import PredictedBoxes


class RunningAveragePrecision:
    """AP50 of the frames added so far. Each frame is matched once, at the next request for the value."""

    def __init__(self) -> None:
        self._pending: list[tuple[FrameTruth, PredictedBoxes, CandidatePairs]] = []
        self._scores, self._hits = np.zeros(0), np.zeros(0, dtype=bool)
        self._categories, self._targets = np.zeros(0, dtype=int), np.zeros(0, dtype=int)

    def add(self, truth: FrameTruth, predicted: PredictedBoxes, pairs: CandidatePairs) -> None:
        """Adds one frame."""
        self._pending.append((truth, predicted, pairs))

    def average_precision(self) -> float | None:
        """Returns the mean AP50 of the categories with targets so far; None before the first target."""
        if self._pending:
            self._match(*zip(*self._pending, strict=True))
            self._pending = []
        categories = np.unique(self._targets).tolist()
        return mean_or_none([self._curve(category).average_precision for category in categories])

    def _match(
        self,
        truths: Sequence[FrameTruth],
        predictions: Sequence[PredictedBoxes],
        pairs: Sequence[CandidatePairs],
    ) -> None:
        matches = Matches(truths, predictions, pairs)
        hits = matches.judged_by(IOU)
        self._scores = np.append(self._scores, matches.scores[hits.counted])
        self._hits = np.append(self._hits, hits.hits[hits.counted])
        self._categories = np.append(self._categories, matches.categories[hits.counted])
        self._targets = np.append(self._targets, matches.target_categories[hits.targets])

    def _curve(self, category: int) -> PrecisionRecallCurve:
        rows = self._categories == category
        targets = int((self._targets == category).sum())
        return PrecisionRecallCurve(self._scores[rows], self._hits[rows], targets=targets, frames=0)
