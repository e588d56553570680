"""Detections and targets of many frames in flat arrays, and the hits among them under a criterion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.evaluation.detection.curves import PrecisionRecallCurve
from pipeline.evaluation.detection.ground_truth import FrameTruth
from pipeline.evaluation.detection.matching import (
    CandidatePairs,
    Criterion,
    candidate_pairs,
    concatenate_pairs,
    match_greedily,
)
from pipeline.evaluation.detection.predictions import PredictedBoxes


class AreaRange(NamedTuple):
    """Half-open range of box areas in square pixels: `low` < area <= `high`."""

    name: str
    low: float
    high: float

    def excludes(self, areas: np.ndarray) -> np.ndarray:
        """Returns an (N,) bool mask of the (N,) areas outside the range."""
        return (areas <= self.low) | (areas > self.high)


AREA_RANGES = (
    AreaRange("up to 4x4", -1, 4**2),
    AreaRange("up to 8x8", 4**2, 8**2),
    AreaRange("up to 16x16", 8**2, 16**2),
    AreaRange("up to 32x32", 16**2, 32**2),
    AreaRange("larger", 32**2, float("inf")),
)


class Matches:
    """Candidate matches of D detections and G targets of F frames.

    `frames` (D,), `scores` (D,), `categories` (D,) and `areas` (D,) describe the detections; `target_frames`
    (G,), `target_categories` (G,), `target_areas` (G,) and `crowds` (G,) bool the targets. Frames are given
    by their position, categories by theirs, areas in square pixels. The detections of a frame must be sorted
    by descending score.
    """

    def __init__(
        self,
        truths: Sequence[FrameTruth],
        predictions: Sequence[PredictedBoxes],
        pairs: Sequence[CandidatePairs],
    ):
        self.frame_count = len(truths)
        counts, target_counts = [len(p.scores) for p in predictions], [len(t.boxes) for t in truths]
        self.frames = np.repeat(np.arange(len(predictions)), counts)
        self.scores = _concatenate([p.scores for p in predictions], float)
        self.categories = _concatenate([p.categories for p in predictions], int)
        self.areas = _concatenate([p.boxes[:, 2:].prod(axis=1) for p in predictions], float)
        self.target_frames = np.repeat(np.arange(len(truths)), target_counts)
        self.target_categories = _concatenate([t.categories for t in truths], int)
        self.target_areas = _concatenate([t.boxes[:, 2:].prod(axis=1) for t in truths], float)
        self.crowds = _concatenate([t.crowds for t in truths], bool)
        self._pairs = concatenate_pairs(pairs, counts, target_counts)

    @classmethod
    def from_frames(cls, frames: Sequence[tuple[FrameTruth, PredictedBoxes]]) -> Matches:
        """Computes the candidate pairs of frames whose detections are sorted by descending score."""
        truths, predictions = zip(*frames, strict=True)
        return cls(truths, predictions, [candidate_pairs(predicted, truth) for truth, predicted in frames])

    def judged_by(self, criterion: Criterion, area_range: AreaRange | None = None) -> Hits:
        """Assigns detections to targets under a criterion.

        With `area_range`, targets of other areas are ignored as pycocotools does: a detection assigned to one
        counts neither as hit nor as false alarm, and so does an unassigned detection of another area.
        """
        ignored = self.crowds if area_range is None else self.crowds | area_range.excludes(self.target_areas)
        assigned = match_greedily(
            self._pairs, criterion, count=len(self.scores), ignored=ignored, crowds=self.crowds
        )
        hits, void = assigned >= 0, np.zeros(len(assigned), dtype=bool)
        void[hits] = ignored[assigned[hits]]
        if area_range is not None:
            void |= ~hits & area_range.excludes(self.areas)
        return Hits(self, hits, ~void, ~ignored)

    def all_frames(self) -> np.ndarray:
        """Returns an (F,) bool mask that is True everywhere."""
        return np.ones(self.frame_count, dtype=bool)

    def annotated_frames(self) -> np.ndarray:
        """Returns an (F,) bool mask of the frames with at least one annotation."""
        return np.bincount(self.target_frames, minlength=self.frame_count) > 0


class Hits:
    """Detections judged by one criterion.

    Args:
        matches: the detections and targets.
        hits: (D,) bool, detections assigned to a target.
        counted: (D,) bool, False for detections that are neither hit nor false alarm.
        targets: (G,) bool, targets that are to be detected; False for crowds and ignored targets.
    """

    def __init__(self, matches: Matches, hits: np.ndarray, counted: np.ndarray, targets: np.ndarray):
        self.matches, self.hits, self.counted, self.targets = matches, hits, counted, targets

    def curve(self, *, frames: np.ndarray | None = None, category: int | None = None) -> PrecisionRecallCurve:
        """Returns the curve of all detections, or of those in `frames`, (F,) bool, and of one category."""
        matches = self.matches
        counted, targets = self.counted, self.targets
        if frames is not None:
            counted, targets = counted & frames[matches.frames], targets & frames[matches.target_frames]
        if category is not None:
            counted = counted & (matches.categories == category)
            targets = targets & (matches.target_categories == category)
        count = matches.frame_count if frames is None else int(frames.sum())
        return PrecisionRecallCurve(
            matches.scores[counted], self.hits[counted], targets=int(targets.sum()), frames=count
        )

    def curves(self, *, frames: np.ndarray | None = None) -> list[PrecisionRecallCurve]:
        """Returns one curve per category with targets in `frames`, (F,) bool; None for all frames."""
        matches = self.matches
        targets = self.targets if frames is None else self.targets & frames[matches.target_frames]
        present = np.unique(matches.target_categories[targets]).tolist()
        return [self.curve(frames=frames, category=category) for category in present]

    def average_precision(self, *, frames: np.ndarray | None = None) -> float | None:
        """Returns the mean AP of the categories with targets in `frames`, (F,) bool; None without targets."""
        return mean_or_none([curve.average_precision for curve in self.curves(frames=frames)])


def mean_or_none(values: Sequence[float | None]) -> float | None:
    """Returns the mean of the values that are not None; None if there are none."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _concatenate(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *parts])
