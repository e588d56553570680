"""The detections and targets of many frames in flat arrays, and which hit which under a criterion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.evaluation.detection.curves import Curve
from pipeline.evaluation.detection.ground_truth import FrameTruth
from pipeline.evaluation.detection.matching import Criterion, Pairs, joined, match, pairs_of
from pipeline.evaluation.detection.predictions import PredictedBoxes


class Sizes(NamedTuple):
    """A range of box areas in square pixels: above `over`, up to and with `most`."""

    name: str
    over: float
    most: float

    def outside(self, areas: np.ndarray) -> np.ndarray:
        """(N,) areas → (N,) bool."""
        return (areas <= self.over) | (areas > self.most)


SIZES = (
    Sizes("up to 4x4", -1, 4**2),
    Sizes("up to 8x8", 4**2, 8**2),
    Sizes("up to 16x16", 8**2, 16**2),
    Sizes("up to 32x32", 16**2, 32**2),
    Sizes("larger", 32**2, float("inf")),
)


class Matches:
    """All frames that are scored: D detections and G targets, each with the number of its frame."""

    def __init__(self, truths: Sequence[FrameTruth], found: Sequence[PredictedBoxes], pairs: Sequence[Pairs]):
        self.frame_count = len(truths)
        found_counts, target_counts = [len(f.scores) for f in found], [len(t.boxes) for t in truths]
        self.frames = np.repeat(np.arange(len(found)), found_counts)
        self.scores = _joined([f.scores for f in found], float)
        self.categories = _joined([f.categories for f in found], int)
        self.areas = _joined([f.boxes[:, 2:].prod(axis=1) for f in found], float)
        self.target_frames = np.repeat(np.arange(len(truths)), target_counts)
        self.target_categories = _joined([t.categories for t in truths], int)
        self.target_areas = _joined([t.boxes[:, 2:].prod(axis=1) for t in truths], float)
        self.crowds = _joined([t.crowds for t in truths], bool)
        self._pairs = joined(pairs, found_counts, target_counts)

    @classmethod
    def of(cls, frames: Sequence[tuple[FrameTruth, PredictedBoxes]]) -> Matches:
        """Those of frames whose pairs are not known yet; detections best first."""
        truths, found = zip(*frames, strict=True)
        return cls(truths, found, [pairs_of(f, t) for t, f in frames])

    def under(self, criterion: Criterion, sizes: Sizes | None = None) -> Hits:
        """Hits and false alarms; with `sizes` only of targets of that area, as pycocotools has it.

        A target of another size is ignored: what hits it counts neither as a hit nor as a false alarm, and so
        does what hits nothing and is itself of another size.
        """
        ignored = self.crowds if sizes is None else self.crowds | sizes.outside(self.target_areas)
        hit = match(self._pairs, criterion, count=len(self.scores), ignored=ignored, crowds=self.crowds)
        hits, void = hit >= 0, np.zeros(len(hit), dtype=bool)
        void[hits] = ignored[hit[hits]]
        if sizes is not None:
            void |= ~hits & sizes.outside(self.areas)
        return Hits(self, hits, ~void, ~ignored)

    def every_frame(self) -> np.ndarray:
        """(F,) bool, all true."""
        return np.ones(self.frame_count, dtype=bool)

    def with_annotations(self) -> np.ndarray:
        """(F,) bool: frames with at least one annotation."""
        return np.bincount(self.target_frames, minlength=self.frame_count) > 0


class Hits:
    """What each detection is worth under one criterion.

    `hits` (D,) bool; `counted` (D,) bool, false for what is neither hit nor false alarm; `targets` (G,) bool:
    the targets that are to be found.
    """

    def __init__(self, matches: Matches, hits: np.ndarray, counted: np.ndarray, targets: np.ndarray):
        self.matches, self.hits, self.counted, self.targets = matches, hits, counted, targets

    def curve(self, *, frames: np.ndarray | None = None, category: int | None = None) -> Curve:
        """The curve of all detections, or of those in `frames`, (F,) bool, and of one category."""
        m = self.matches
        found, wanted = self.counted, self.targets
        if frames is not None:
            found, wanted = found & frames[m.frames], wanted & frames[m.target_frames]
        if category is not None:
            found, wanted = found & (m.categories == category), wanted & (m.target_categories == category)
        count = m.frame_count if frames is None else int(frames.sum())
        return Curve(m.scores[found], self.hits[found], targets=int(wanted.sum()), frames=count)

    def curves(self, *, frames: np.ndarray | None = None) -> list[Curve]:
        """One curve for each category that has targets in these frames."""
        m = self.matches
        wanted = self.targets if frames is None else self.targets & frames[m.target_frames]
        present = np.unique(m.target_categories[wanted]).tolist()
        return [self.curve(frames=frames, category=category) for category in present]

    def average_precision(self, *, frames: np.ndarray | None = None) -> float | None:
        """Mean over the categories that have targets; None where none has."""
        return mean([curve.average_precision for curve in self.curves(frames=frames)])


def mean(values: Sequence[float]) -> float | None:
    """None for no values."""
    return float(np.mean(values)) if len(values) else None


def _joined(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *parts])
