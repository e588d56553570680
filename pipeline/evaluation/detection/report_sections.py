"""The sections of a report, from matches and from what pycocotools found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.evaluation.detection.matches import SIZES, Hits, Matches, mean
from pipeline.evaluation.detection.matching import CRITERIA, IOU
from pipeline.evaluation.detection.pycocotools_ap import CocoNumbers
from pipeline.evaluation.detection.report import (
    ClassScores,
    CriterionScores,
    PublishedScores,
    Report,
    Scores,
    SizeScores,
    VideoScores,
)


def headline(coco: CocoNumbers, matches: Matches, hits: Hits) -> Scores:
    """The first numbers of a report; `hits` are those at IoU 0.5."""
    f1, threshold = hits.curve().best_f1()
    with_targets = np.unique(matches.target_frames[hits.targets])
    return Scores(
        ap50=_over_classes(coco.precision[0]),
        ap=_over_classes(coco.precision),
        recall50=_over_classes(coco.recall[0, :, 2]),
        best_f1=f1,
        best_threshold=threshold,
        frames=matches.frame_count,
        ap75=_over_classes(coco.precision[5]),
        ar1=_over_classes(coco.recall[:, :, 0]),
        ar10=_over_classes(coco.recall[:, :, 1]),
        ar100=_over_classes(coco.recall[:, :, 2]),
        empty_frames=matches.frame_count - len(with_targets),
        targets=int(hits.targets.sum()),
        detections=len(matches.scores),
    )


def report_of(
    coco: CocoNumbers,
    matches: Matches,
    *,
    threshold: float,
    names: Sequence[str],
    videos: Sequence[tuple[str, np.ndarray]],
    class_agnostic: Scores | None,
    notes: list[str],
) -> Report:
    """All sections; `names` are those of the categories, `videos` have the frames of each, (F,) bool."""
    hits = {criterion: matches.under(criterion) for criterion in CRITERIA}
    curves = {criterion.name: hits[criterion].curve() for criterion in CRITERIA}
    return Report(
        scores=headline(coco, matches, hits[IOU]),
        threshold=threshold,
        criteria={
            criterion.name: CriterionScores.of(
                hits[criterion].average_precision(), curves[criterion.name], threshold
            )
            for criterion in CRITERIA
        },
        per_class=[_class_scores(coco, hits[IOU], number, name) for number, name in enumerate(names)],
        class_agnostic=class_agnostic,
        per_size=_per_size(matches),
        per_video=[_video_scores(hits[IOU], name, frames, threshold) for name, frames in videos],
        as_published={
            "annotated_frames_only": _published(hits[IOU], matches.with_annotations()),
            "all_frames": _published(hits[IOU], matches.every_frame()),
        },
        notes=notes,
        curves=curves,
    )


def _over_classes(values: np.ndarray) -> float:
    """Mean over the last axis's categories that have targets, and over all other axes; 0 where none has."""
    values = values[..., ~np.isnan(values).any(axis=tuple(range(values.ndim - 1)))]
    return float(values.mean()) if values.size else 0.0


def _class_scores(coco: CocoNumbers, hits: Hits, number: int, name: str) -> ClassScores:
    curve = hits.curve(category=number)
    f1, threshold = curve.best_f1()

    def known(values: np.ndarray) -> float | None:
        return float(values.mean()) if curve.targets else None

    return ClassScores(
        name=name,
        targets=curve.targets,
        detections=int((hits.matches.categories == number).sum()),
        ap=known(coco.precision[:, number]),
        ap50=known(coco.precision[0, number]),
        ap75=known(coco.precision[5, number]),
        ar100=known(coco.recall[:, number, 2]),
        recall50=known(coco.recall[0, number, 2]),
        best_f1=f1,
        best_threshold=threshold,
    )


def _per_size(matches: Matches) -> list[SizeScores]:
    rows = []
    for sizes in SIZES:
        hits = matches.under(IOU, sizes)
        curve = hits.curve()
        rows.append(SizeScores(sizes.name, curve.targets, hits.average_precision(), curve.highest_recall))
    return rows


def _video_scores(hits: Hits, name: str, frames: np.ndarray, threshold: float) -> VideoScores:
    matches, curve = hits.matches, hits.curve(frames=frames)
    point = curve.at(threshold)
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


def _published(hits: Hits, frames: np.ndarray) -> PublishedScores:
    curves = hits.curves(frames=frames)
    interpolated = np.mean([curve.precision for curve in curves] or [np.zeros(101)], axis=0)
    recall = mean([curve.highest_recall for curve in curves]) or 0.0
    reached = interpolated[: int(100 * recall)]
    precision = float(reached.mean()) if len(reached) else 0.0
    total = precision + recall
    return PublishedScores(
        ap50=float(interpolated.mean()),
        precision_as_published=precision,
        recall_as_published=recall,
        f1_as_published=2 * precision * recall / total if total else 0.0,
    )
