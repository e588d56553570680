"""Greedy assignment of detections to targets by the rules of pycocotools.

Detections are taken by descending score; each takes the most similar target that is still free. A criterion
says which similarity counts and how high it must be: intersection over union (IoU), or the negative distance
between centres in pixels, so that a higher value is better in both cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.evaluation.detection.ground_truth import FrameTruth
from pipeline.evaluation.detection.predictions import PredictedBoxes


@dataclass(frozen=True)
class Criterion:
    """Definition of a hit: a minimum similarity of detection and target."""

    name: str
    """Key in the JSON report."""
    title: str
    """Name in tables and plots."""
    similarity: Literal["iou", "negative_distance"]
    """Field of `CandidatePairs`."""
    min_similarity: float


IOU = Criterion("iou_0.5", "IoU 0.5", "iou", 0.5)
CENTRE_3 = Criterion("centre_3px", "centre 3 px", "negative_distance", -3.0)
CENTRE_5 = Criterion("centre_5px", "centre 5 px", "negative_distance", -5.0)
CRITERIA = (IOU, CENTRE_3, CENTRE_5)


@dataclass(frozen=True)
class CandidatePairs:
    """Pairs of a detection and a target of the same category that satisfy at least one criterion."""

    detections: np.ndarray
    """(P,) int64: index of the detection, ascending."""
    targets: np.ndarray
    """(P,) int64: index of the target."""
    iou: np.ndarray
    """(P,) float64: see `iou_matrix`."""
    negative_distance: np.ndarray
    """(P,) float64: see `negative_centre_distances`."""


def candidate_pairs(predicted: PredictedBoxes, truth: FrameTruth) -> CandidatePairs:
    """Returns the candidate pairs of one frame."""
    if not len(predicted.scores) or not len(truth.boxes):
        nothing = np.zeros(0)
        return CandidatePairs(nothing.astype(int), nothing.astype(int), nothing, nothing)
    iou, negative_distance = iou_matrix(predicted, truth), negative_centre_distances(predicted, truth)
    close = np.zeros(iou.shape, dtype=bool)
    for criterion in CRITERIA:
        close |= (iou if criterion.similarity == "iou" else negative_distance) >= criterion.min_similarity
    close &= predicted.categories[:, None] == truth.categories
    rows, columns = np.nonzero(close)
    return CandidatePairs(rows, columns, iou[close], negative_distance[close])


def iou_matrix(predicted: PredictedBoxes, truth: FrameTruth) -> np.ndarray:
    """Returns the (N, M) float64 IoU of detections and targets.

    For a crowd the denominator is the area of the detection. Repeats the floating-point operations of
    pycocotools in their order, unlike `pipeline.structures.boxes.iou`: a last digit that differs could move a
    pair across the threshold, and AP would differ from that of pycocotools.
    """
    first, second = predicted.boxes[:, None], truth.boxes[None]
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:] + first[..., :2], second[..., 2:] + second[..., :2])
    intersection = (high - low).clip(min=0).prod(axis=2)
    area, target_area = first[..., 2:].prod(axis=2), second[..., 2:].prod(axis=2)
    union = np.where(truth.crowds, area, area + target_area - intersection)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def negative_centre_distances(predicted: PredictedBoxes, truth: FrameTruth) -> np.ndarray:
    """Returns the (N, M) float64 negative distances between centres in pixels.

    For a crowd the distance is that from the centre of the detection to the box of the crowd, 0 inside it.
    """
    centres = predicted.boxes[:, None, :2] + predicted.boxes[:, None, 2:] / 2
    offset = np.abs(centres - (truth.boxes[:, :2] + truth.boxes[:, 2:] / 2))
    outside = np.where(truth.crowds[:, None], (offset - truth.boxes[:, 2:] / 2).clip(min=0), offset)
    return -np.hypot(outside[..., 0], outside[..., 1])


def concatenate_pairs(
    frames: Sequence[CandidatePairs], detection_counts: Sequence[int], target_counts: Sequence[int]
) -> CandidatePairs:
    """Joins the pairs of one or more frames; indices then count through the detections and targets of all."""
    lengths = [len(pairs.detections) for pairs in frames]
    first_detections = np.repeat(_offsets(detection_counts), lengths)
    first_targets = np.repeat(_offsets(target_counts), lengths)
    return CandidatePairs(
        np.concatenate([pairs.detections for pairs in frames]) + first_detections,
        np.concatenate([pairs.targets for pairs in frames]) + first_targets,
        np.concatenate([pairs.iou for pairs in frames]),
        np.concatenate([pairs.negative_distance for pairs in frames]),
    )


def _offsets(counts: Sequence[int]) -> np.ndarray:
    """Returns the (F,) index of the first row of each frame if the rows of all frames are concatenated."""
    return np.cumsum([0, *counts])[:-1]


def match_greedily(
    pairs: CandidatePairs, criterion: Criterion, *, count: int, ignored: np.ndarray, crowds: np.ndarray
) -> np.ndarray:
    """Assigns each detection to at most one target.

    Args:
        pairs: candidates; detections are numbered frame by frame, by descending score within a frame.
        criterion: the definition of a hit.
        count: number of detections.
        ignored: (M,) bool; such a target is taken only if no other target satisfies the criterion.
        crowds: (M,) bool; such a target can be taken by any number of detections.

    Returns:
        (count,) int64 index of the target of each detection, -1 for none.
    """
    similarity = getattr(pairs, criterion.similarity)
    enough = similarity >= criterion.min_similarity
    detections, targets, similarity = pairs.detections[enough], pairs.targets[enough], similarity[enough]
    # of equally similar targets pycocotools takes the last one
    order = np.lexsort((-targets, -similarity, ignored[targets], detections))
    assigned = np.full(count, -1)
    taken = np.zeros(len(ignored), dtype=bool)
    for detection, target in zip(detections[order].tolist(), targets[order].tolist(), strict=True):
        if assigned[detection] < 0 and (crowds[target] or not taken[target]):
            assigned[detection] = target
            taken[target] = True
    return assigned
