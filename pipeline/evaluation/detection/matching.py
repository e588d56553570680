"""Which detection hits which target: greedy, best score first, each target once; pycocotools' rules.

A criterion says how close a detection must come. For IoU the closeness is the overlap; for centres it is
minus the distance in pixels, so that in both cases more is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.detection.ground_truth import FrameTruth
from pipeline.evaluation.detection.predictions import PredictedBoxes


@dataclass(frozen=True)
class Criterion:
    """What counts as a hit."""

    name: str
    """Key in the JSON report."""
    title: str
    """Name for people."""
    measure: str
    """Field of `Pairs` that holds the closeness: overlap or nearness."""
    least: float
    """Closeness that is enough."""


IOU = Criterion("iou_0.5", "IoU 0.5", "overlap", 0.5)
CENTRE_3 = Criterion("centre_3px", "centre 3 px", "nearness", -3.0)
CENTRE_5 = Criterion("centre_5px", "centre 5 px", "nearness", -5.0)
CRITERIA = (IOU, CENTRE_3, CENTRE_5)


@dataclass(frozen=True)
class Pairs:
    """Detections and targets of one category that lie close enough for some criterion, by detection."""

    found: np.ndarray
    """(P,) int64: index of the detection, ascending."""
    targets: np.ndarray
    """(P,) int64: index of the target."""
    overlap: np.ndarray
    """(P,) float64: intersection over union; over the detection's own area where the target is a crowd."""
    nearness: np.ndarray
    """(P,) float64: minus the distance of the centres in pixels; of a crowd, minus that to its edge."""


def pairs_of(found: PredictedBoxes, truth: FrameTruth) -> Pairs:
    """The pairs of one frame."""
    if not len(found.scores) or not len(truth.boxes):
        nothing = np.zeros(0)
        return Pairs(nothing.astype(int), nothing.astype(int), nothing, nothing)
    overlap, nearness = overlaps(found, truth), nearnesses(found, truth)
    close = np.zeros(overlap.shape, dtype=bool)
    for criterion in CRITERIA:
        close |= (overlap if criterion.measure == "overlap" else nearness) >= criterion.least
    close &= found.categories[:, None] == truth.categories
    rows, columns = np.nonzero(close)
    return Pairs(rows, columns, overlap[close], nearness[close])


def overlaps(found: PredictedBoxes, truth: FrameTruth) -> np.ndarray:
    """(N, M) intersection over union, in pycocotools' order of operations: equal to the last bit."""
    first, second = found.boxes[:, None], truth.boxes[None]
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:] + first[..., :2], second[..., 2:] + second[..., :2])
    intersection = (high - low).clip(min=0).prod(axis=2)
    area, target_area = first[..., 2:].prod(axis=2), second[..., 2:].prod(axis=2)
    union = np.where(truth.crowds, area, area + target_area - intersection)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def nearnesses(found: PredictedBoxes, truth: FrameTruth) -> np.ndarray:
    """(N, M) minus the distance of the centres; a crowd is near from its edge on, all over its inside."""
    centres = found.boxes[:, None, :2] + found.boxes[:, None, 2:] / 2
    offset = np.abs(centres - (truth.boxes[:, :2] + truth.boxes[:, 2:] / 2))
    beyond = np.where(truth.crowds[:, None], (offset - truth.boxes[:, 2:] / 2).clip(min=0), offset)
    return -np.hypot(beyond[..., 0], beyond[..., 1])


def joined(frames: Sequence[Pairs], found: Sequence[int], targets: Sequence[int]) -> Pairs:
    """The pairs of one or more frames as one; `found` and `targets` are how many of each a frame has."""
    lengths = [len(pairs.found) for pairs in frames]
    return Pairs(
        np.concatenate([pairs.found for pairs in frames]) + np.repeat(_starts(found), lengths),
        np.concatenate([pairs.targets for pairs in frames]) + np.repeat(_starts(targets), lengths),
        np.concatenate([pairs.overlap for pairs in frames]),
        np.concatenate([pairs.nearness for pairs in frames]),
    )


def _starts(counts: Sequence[int]) -> np.ndarray:
    """Row at which each frame begins when the rows of all lie behind one another."""
    return np.cumsum([0, *counts])[:-1]


def match(
    pairs: Pairs, criterion: Criterion, *, count: int, ignored: np.ndarray, crowds: np.ndarray
) -> np.ndarray:
    """(count,) int64: the target that each detection hits, -1 for none.

    Detections come frame by frame, best first. Each takes the closest target that is free; an `ignored` one,
    (M,) bool, only where no other is within reach. A crowd, (M,) bool, any number can hit.
    """
    closeness = getattr(pairs, criterion.measure)
    enough = closeness >= criterion.least
    found, targets, closeness = pairs.found[enough], pairs.targets[enough], closeness[enough]
    # of equally close targets pycocotools takes the last one
    order = np.lexsort((-targets, -closeness, ignored[targets], found))
    hit = np.full(count, -1)
    taken = np.zeros(len(ignored), dtype=bool)
    for detection, target in zip(found[order].tolist(), targets[order].tolist(), strict=True):
        if hit[detection] < 0 and (crowds[target] or not taken[target]):
            hit[detection] = target
            taken[target] = True
    return hit
