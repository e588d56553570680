"""Builds the sections of a detection report from matches and the metrics of pycocotools."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.evaluation.detection.matches import AREA_RANGES, Hits, Matches, mean_or_none
from pipeline.evaluation.detection.matching import CRITERIA, IOU
from pipeline.evaluation.detection.pycocotools_ap import CocoMetrics
from pipeline.evaluation.detection.report import (
    ClassScores,
    CriterionScores,
    DetectionReport,
    DetectionScores,
    PublishedScores,
    SizeScores,
    VideoScores,
)


def headline_scores(coco: CocoMetrics, matches: Matches, hits: Hits) -> DetectionScores:
    """Returns the headline metrics; `hits` are those at IoU 0.5."""
    f1, threshold = hits.curve().best_f1()
    with_targets = np.unique(matches.target_frames[hits.targets])
    return DetectionScores(
        ap50=_mean_over_classes(coco.precision[0]),
        ap=_mean_over_classes(coco.precision),
        recall50=_mean_over_classes(coco.recall[0, :, 2]),
        best_f1=f1,
        best_threshold=threshold,
        frames=matches.frame_count,
        ap75=_mean_over_classes(coco.precision[5]),
        ar1=_mean_over_classes(coco.recall[:, :, 0]),
        ar10=_mean_over_classes(coco.recall[:, :, 1]),
        ar100=_mean_over_classes(coco.recall[:, :, 2]),
        empty_frames=matches.frame_count - len(with_targets),
        targets=int(hits.targets.sum()),
        detections=len(matches.scores),
    )


def build_report(
    coco: CocoMetrics,
    matches: Matches,
    *,
    threshold: float,
    names: Sequence[str],
    videos: Sequence[tuple[str, np.ndarray]],
    class_agnostic: DetectionScores | None,
    notes: list[str],
) -> DetectionReport:
    """Builds a report.

    Args:
        coco: metrics of pycocotools.
        matches: detections and targets of all F frames.
        threshold: score of the operating points.
        names: names of the categories; empty if categories are ignored.
        videos: name and frames, an (F,) bool mask, of each video.
        class_agnostic: headline metrics with categories ignored.
        notes: remarks about the detections.
    """
    hits = {criterion: matches.judged_by(criterion) for criterion in CRITERIA}
    curves = {criterion.name: hits[criterion].curve() for criterion in CRITERIA}
    return DetectionReport(
        scores=headline_scores(coco, matches, hits[IOU]),
        threshold=threshold,
        criteria={
            criterion.name: CriterionScores.from_curve(
                hits[criterion].average_precision(), curves[criterion.name], threshold
            )
            for criterion in CRITERIA
        },
        per_class=[_class_scores(coco, hits[IOU], position, name) for position, name in enumerate(names)],
        class_agnostic=class_agnostic,
        per_size=_size_scores(matches),
        per_video=[_video_scores(hits[IOU], name, frames, threshold) for name, frames in videos],
        as_published={
            "annotated_frames_only": _published_scores(hits[IOU], matches.annotated_frames()),
            "all_frames": _published_scores(hits[IOU], matches.all_frames()),
        },
        notes=notes,
        curves=curves,
    )


def _mean_over_classes(values: np.ndarray) -> float:
    """Returns the mean of (…, K) values over all axes, without categories that are NaN; 0 if all are."""
    values = values[..., ~np.isnan(values).any(axis=tuple(range(values.ndim - 1)))]
    return float(values.mean()) if values.size else 0.0


def _class_scores(coco: CocoMetrics, hits: Hits, category: int, name: str) -> ClassScores:
    curve = hits.curve(category=category)
    f1, threshold = curve.best_f1()

    def mean_if_annotated(values: np.ndarray) -> float | None:
        return float(values.mean()) if curve.targets else None

    return ClassScores(
        name=name,
        targets=curve.targets,
        detections=int((hits.matches.categories == category).sum()),
        ap=mean_if_annotated(coco.precision[:, category]),
        ap50=mean_if_annotated(coco.precision[0, category]),
        ap75=mean_if_annotated(coco.precision[5, category]),
        ar100=mean_if_annotated(coco.recall[:, category, 2]),
        recall50=mean_if_annotated(coco.recall[0, category, 2]),
        best_f1=f1,
        best_threshold=threshold,
    )


def _size_scores(matches: Matches) -> list[SizeScores]:
    rows = []
    for area_range in AREA_RANGES:
        hits = matches.judged_by(IOU, area_range)
        curve = hits.curve()
        rows.append(SizeScores(area_range.name, curve.targets, hits.average_precision(), curve.max_recall))
    return rows


def _video_scores(hits: Hits, name: str, frames: np.ndarray, threshold: float) -> VideoScores:
    matches, curve = hits.matches, hits.curve(frames=frames)
    point = curve.operating_point(threshold)
    targets = hits.targets & frames[matches.target_frames]
    return VideoScores(
        name=name,
        frames=curve.frames,
        empty_frames=curve.frames - len(np.unique(matches.target_frames[targets])),
        targets=curve.targets,
        detections=int(frames[matches.frames].sum()),
        ap50=hits.average_precision(frames=frames),
        recall=point.recall,
        false_alarms_per_frame=point.false_alarms_per_frame,
    )


def _published_scores(hits: Hits, frames: np.ndarray) -> PublishedScores:
    curves = hits.curves(frames=frames)
    interpolated = np.mean([curve.interpolated_precision for curve in curves] or [np.zeros(101)], axis=0)
    recall = mean_or_none([curve.max_recall for curve in curves]) or 0.0
    reached = interpolated[: int(100 * recall)]
    precision = float(reached.mean()) if len(reached) else 0.0
    total = precision + recall
    return PublishedScores(
        ap50=float(interpolated.mean()),
        precision_as_published=precision,
        recall_as_published=recall,
        f1_as_published=2 * precision * recall / total if total else 0.0,
    )
