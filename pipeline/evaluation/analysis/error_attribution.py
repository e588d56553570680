"""Error attribution: AP50 with one kind of error removed at a time by an oracle.

Follows TIDE (Bolya et al., ECCV 2020), adapted to targets of a few pixels: a detection is assigned to a
target if their centres are at most 5 pixels apart, whatever the overlap of the boxes. After each correction
all detections are matched again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.evaluation.analysis.size_regression import cross_validated_maps
from pipeline.evaluation.detection.evaluator import Evaluator
from pipeline.evaluation.detection.ground_truth import FrameTruth
from pipeline.evaluation.detection.matches import Matches
from pipeline.evaluation.detection.matching import (
    CENTRE_5,
    IOU,
    Criterion,
    candidate_pairs,
    iou_matrix,
    match_greedily,
    negative_centre_distances,
)
from pipeline.evaluation.detection.predictions import PredictedBoxes

BACKGROUND_IOU = 0.1
"""IoU from which a detection concerns a target even if their centres are further apart; as in TIDE."""

_JSON_KEYS = {"oracles": "removals", "in_empty_frames": "on_empty"}
"""Keys in the JSON that differ from the names of the fields, so that files of earlier versions compare."""

EvaluatedFrame = tuple[FrameTruth, PredictedBoxes]
"""Annotations and detections of one frame; detections are sorted by descending score."""


class Oracle(NamedTuple):
    """Correction of one kind of error."""

    name: str
    """Key in the JSON report."""
    title: str
    """Name in tables and plots."""
    correct: Callable[[FrameTruth, PredictedBoxes], EvaluatedFrame]


@dataclass(frozen=True)
class OracleResult:
    """AP50 without one kind of error."""

    name: str
    title: str
    alone: float
    """AP50 with only this kind of error corrected."""
    together: float
    """AP50 with this kind and all previous kinds corrected."""


@dataclass(frozen=True)
class ErrorCounts:
    """Errors of detections at or above a score threshold; each detection and target counts at most once."""

    targets: int
    hits: int
    """Targets hit at IoU 0.5."""
    badly_boxed: int
    """Targets not hit, but with a detection that concerns them."""
    missed: int
    """Targets that no detection concerns."""
    duplicates: int
    """Detections that hit nothing and concern a target that another detection hits."""
    far: int
    """Detections that concern no target, in frames with targets."""
    in_empty_frames: int
    """Detections in frames without targets."""


@dataclass(frozen=True)
class VideoErrors:
    """Errors in one video."""

    name: str
    frames: int
    ap50: float | None
    """None without targets; so are `ap50_resized` and `centre_ap`."""
    ap50_resized: float | None
    """AP50 with all boxes of the video resized by one factor of width and one of height."""
    centre_ap: float | None
    """Average precision with a hit defined by centres at most 5 pixels apart."""
    width_ratio: float | None
    """Median of predicted over annotated width of assigned detections; None without any."""
    height_ratio: float | None
    """Likewise for the height."""
    counts: ErrorCounts


@dataclass(frozen=True)
class ErrorAttribution:
    """Errors in all videos."""

    threshold: float
    """Score threshold of the counts and of missed targets."""
    ap50: float
    centre_ap: float
    """Average precision with a hit defined by centres at most 5 pixels apart."""
    ap50_resized: float
    """AP50 with the boxes of each video resized by one factor of width and one of height."""
    ap50_mapped: float
    """AP50 with all sizes changed by a map fitted on other videos; see
    `pipeline.evaluation.analysis.size_regression`."""
    oracles: list[OracleResult]
    counts: ErrorCounts
    width_ratios: list[float]
    """10th, 50th and 90th percentile of predicted over annotated width; empty without assigned detections."""
    width_ratios_in_video: list[float]
    """Likewise with each ratio divided by the median of its video, which no factor per video can correct."""
    videos: list[VideoErrors]

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self, dict_factory=lambda items: {_JSON_KEYS.get(k, k): value for k, value in items})


def attribute_errors(evaluator: Evaluator, threshold: float) -> ErrorAttribution:
    """Attributes the errors of the detections of an evaluator that ignores categories.

    `threshold` is the score from which detections count as made, for counts and missed targets; AP uses all
    detections. Raises UsageError if no frame was added.
    """
    frames, videos = evaluator.results(), evaluator.videos()
    resized, mapped = list(frames), list(frames)
    rows, ratios, relative = [], [np.zeros((0, 2))], [np.zeros((0, 2))]
    pairs = [
        size_pairs([frames[index] for index in np.flatnonzero(inside)], threshold) for _, inside in videos
    ]
    for (name, inside), sizes, size_map in zip(videos, pairs, cross_validated_maps(pairs), strict=True):
        indices = np.flatnonzero(inside)
        own = [frames[index] for index in indices]
        ratio = sizes[0] / sizes[1]
        median = np.median(ratio, axis=0) if len(ratio) else np.ones(2)
        corrected = [scale_boxes(frame, 1 / median) for frame in own]
        for index, frame in zip(indices, corrected, strict=True):
            resized[index] = frame
            if size_map:
                mapped[index] = scale_boxes(frames[index], size_map.factors(frames[index][1].boxes[:, 2:]))
        ratios.append(ratio)
        relative.append(ratio / median)
        rows.append(_video_errors(name, own, corrected, median if len(ratio) else None, threshold))
    if not videos:
        predicted, annotated = size_pairs(frames, threshold)
        ratios.append(predicted / annotated)
    return ErrorAttribution(
        threshold=threshold,
        ap50=_average_precision(frames, IOU) or 0.0,
        centre_ap=_average_precision(frames, CENTRE_5) or 0.0,
        ap50_resized=_average_precision(resized, IOU) or 0.0,
        ap50_mapped=_average_precision(mapped, IOU) or 0.0,
        oracles=apply_oracles(frames, threshold),
        counts=count_errors(frames, threshold),
        width_ratios=_percentiles(np.concatenate(ratios)[:, 0]),
        width_ratios_in_video=_percentiles(np.concatenate(relative)[:, 0]),
        videos=rows,
    )


def apply_oracles(frames: Sequence[EvaluatedFrame], threshold: float) -> list[OracleResult]:
    """Returns AP50 with each kind of error corrected, alone and together with the previous kinds."""
    rows, corrected = [], list(frames)
    for oracle in error_oracles(threshold):
        alone = [oracle.correct(*frame) for frame in frames]
        corrected = [oracle.correct(*frame) for frame in corrected]
        values = (_average_precision(changed, IOU) or 0.0 for changed in (alone, corrected))
        rows.append(OracleResult(oracle.name, oracle.title, *values))
    return rows


def error_oracles(threshold: float) -> tuple[Oracle, ...]:
    """Returns the oracles in the order of application; missed targets depend on the score threshold."""
    return (
        Oracle("sizes", "sizes: as annotated, at the predicted centre", correct_sizes),
        Oracle("centres", "centres: as annotated, with the predicted size", correct_centres),
        Oracle("duplicates", "duplicates of hits", drop_duplicates),
        Oracle("empty_frames", "false alarms in frames without targets", drop_in_empty_frames),
        Oracle("far", "false alarms far from all targets", drop_far),
        Oracle("missed", "missed targets", lambda truth, found: ignore_missed(truth, found, threshold)),
    )


def assign_targets(
    truth: FrameTruth, predicted: PredictedBoxes, criterion: Criterion = CENTRE_5
) -> np.ndarray:
    """Returns the (N,) int64 target of each detection, -1 for none; a target has one detection at most."""
    pairs, crowds = candidate_pairs(predicted, truth), truth.crowds
    return match_greedily(pairs, criterion, count=len(predicted.scores), ignored=crowds, crowds=crowds)


def correct_sizes(truth: FrameTruth, predicted: PredictedBoxes) -> EvaluatedFrame:
    """Gives assigned detections the annotated width and height; their centres stay."""
    return _replace_boxes(
        truth, predicted, lambda own, label: _boxes(own[:, :2] + own[:, 2:] / 2, label[:, 2:])
    )


def correct_centres(truth: FrameTruth, predicted: PredictedBoxes) -> EvaluatedFrame:
    """Moves assigned detections to the annotated centre; their widths and heights stay."""
    return _replace_boxes(
        truth, predicted, lambda own, label: _boxes(label[:, :2] + label[:, 2:] / 2, own[:, 2:])
    )


def drop_duplicates(truth: FrameTruth, predicted: PredictedBoxes) -> EvaluatedFrame:
    """Drops detections that hit nothing and concern a target that another detection hits."""
    return truth, predicted.select(~_duplicates(truth, predicted))


def drop_in_empty_frames(truth: FrameTruth, predicted: PredictedBoxes) -> EvaluatedFrame:
    """Drops all detections of a frame without annotations."""
    return truth, predicted.select(np.full(len(predicted.scores), len(truth.boxes) > 0))


def drop_far(truth: FrameTruth, predicted: PredictedBoxes) -> EvaluatedFrame:
    """Drops detections that concern no target, in frames with annotations."""
    if not len(truth.boxes):
        return truth, predicted
    return truth, predicted.select(np.flatnonzero(_concerns(truth, predicted).any(axis=1)))


def ignore_missed(truth: FrameTruth, predicted: PredictedBoxes, threshold: float) -> EvaluatedFrame:
    """Marks targets that no detection with a score of at least `threshold` concerns as crowds."""
    noticed = _concerns(truth, predicted.select(predicted.scores >= threshold)).any(axis=0)
    return truth._replace(crowds=truth.crowds | ~noticed), predicted


def scale_boxes(frame: EvaluatedFrame, factors: np.ndarray) -> EvaluatedFrame:
    """Multiplies width and height of all detections by `factors`, (2,) or (N, 2); centres stay."""
    truth, predicted = frame
    boxes = _boxes(predicted.boxes[:, :2] + predicted.boxes[:, 2:] / 2, predicted.boxes[:, 2:] * factors)
    return truth, predicted._replace(boxes=boxes)


def size_pairs(frames: Sequence[EvaluatedFrame], threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns predicted and annotated widths and heights, (P, 2) each.

    Detections are those with a target and a score of at least `threshold`; sizes of 0 are left out.
    """
    rows = [np.zeros((0, 2, 2))]
    for truth, predicted in frames:
        target = assign_targets(truth, predicted)
        assigned = (target >= 0) & (predicted.scores >= threshold)
        both = np.stack([predicted.boxes[assigned, 2:], truth.boxes[target[assigned], 2:]], axis=1)
        rows.append(both[(both > 0).all(axis=(1, 2))])
    both = np.concatenate(rows)
    return both[:, 0], both[:, 1]


def count_errors(frames: Sequence[EvaluatedFrame], threshold: float) -> ErrorCounts:
    """Counts the errors of the detections with a score of at least `threshold`."""
    counts = np.zeros(7, dtype=int)
    for truth, detections in frames:
        predicted = detections.select(detections.scores >= threshold)
        targets = ~truth.crowds
        hit = np.isin(np.arange(len(targets)), assign_targets(truth, predicted, IOU)) & targets
        concerns = _concerns(truth, predicted)
        badly_boxed = concerns.any(axis=0) & targets & ~hit
        far = 0 if concerns.size == 0 else int((~concerns.any(axis=1)).sum())
        missed = targets & ~hit & ~badly_boxed
        in_empty_frames = 0 if len(truth.boxes) else len(predicted.scores)
        duplicates = int(_duplicates(truth, predicted).sum())
        sums = (targets.sum(), hit.sum(), badly_boxed.sum(), missed.sum())
        counts += [*sums, duplicates, far, in_empty_frames]
    return ErrorCounts(*counts.tolist())


def _video_errors(
    name: str,
    frames: Sequence[EvaluatedFrame],
    corrected: Sequence[EvaluatedFrame],
    median: np.ndarray | None,
    threshold: float,
) -> VideoErrors:
    return VideoErrors(
        name=name,
        frames=len(frames),
        ap50=_average_precision(frames, IOU),
        ap50_resized=_average_precision(corrected, IOU),
        centre_ap=_average_precision(frames, CENTRE_5),
        width_ratio=None if median is None else float(median[0]),
        height_ratio=None if median is None else float(median[1]),
        counts=count_errors(frames, threshold),
    )


def _average_precision(frames: Sequence[EvaluatedFrame], criterion: Criterion) -> float | None:
    return Matches.from_frames(frames).judged_by(criterion).average_precision()


def _concerns(truth: FrameTruth, predicted: PredictedBoxes) -> np.ndarray:
    """Returns (N, M) bool: centres at most 5 px apart or an IoU of at least `BACKGROUND_IOU`."""
    close = negative_centre_distances(predicted, truth) >= CENTRE_5.min_similarity
    return close | (iou_matrix(predicted, truth) >= BACKGROUND_IOU)


def _duplicates(truth: FrameTruth, predicted: PredictedBoxes) -> np.ndarray:
    """Returns (N,) bool: detections that hit nothing and concern a target that is hit at IoU 0.5."""
    target = assign_targets(truth, predicted, IOU)
    taken = np.isin(np.arange(len(truth.boxes)), target)
    return (target < 0) & _concerns(truth, predicted)[:, taken].any(axis=1)


def _replace_boxes(
    truth: FrameTruth, predicted: PredictedBoxes, change: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> EvaluatedFrame:
    """Replaces the boxes of assigned detections by `change(predicted, annotated)`, boxes (P, 4) each."""
    target = assign_targets(truth, predicted)
    assigned = target >= 0
    boxes = predicted.boxes.copy()
    boxes[assigned] = change(boxes[assigned], truth.boxes[target[assigned]])
    return truth, predicted._replace(boxes=boxes)


def _boxes(centres: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Returns (N, 4) left, top, width, height from centres (N, 2) and sizes (N, 2)."""
    return np.concatenate([centres - sizes / 2, sizes], axis=1)


def _percentiles(values: np.ndarray) -> list[float]:
    return np.percentile(values, [10, 50, 90]).tolist() if len(values) else []
