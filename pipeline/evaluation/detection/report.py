"""Detection metrics and their definitions."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.evaluation.detection.curves import OperatingPoint, PrecisionRecallCurve

RECALL_LEVELS = (0.5, 0.7, 0.8, 0.9)
"""Recalls at which false alarms per frame are reported."""
FALSE_ALARM_LEVELS = (0.01, 0.05, 0.1)
"""False alarms per frame at which recall is reported."""


@dataclass(frozen=True)
class DetectionScores:
    """Headline metrics; all but the counts are in [0, 1].

    AP and AR are those of COCO (Lin et al., ECCV 2014), computed by pycocotools for boxes of all areas. A
    detection hits a target if their intersection over union (IoU) reaches the threshold and no detection of
    higher score has taken the target. At most 100 detections of a frame and category count, those of highest
    score. AP, AR and recall50 are means over the categories with targets, 0 without any.
    """

    ap50: float
    """Average precision at IoU 0.5: mean of the interpolated precision at 101 recalls."""
    ap: float
    """Mean average precision at IoU 0.5, 0.55 … 0.95."""
    recall50: float
    """Recall at IoU 0.5 without a score threshold."""
    best_f1: float
    """Highest F1 at IoU 0.5 over all score thresholds, all categories pooled."""
    best_threshold: float
    """Score threshold of `best_f1`."""
    frames: int
    """Frames scored, with or without targets."""
    ap75: float
    """Average precision at IoU 0.75."""
    ar1: float
    """Average recall with 1 detection per frame and category: mean of the recall at IoU 0.5, 0.55 … 0.95."""
    ar10: float
    """Average recall with at most 10 detections per frame and category."""
    ar100: float
    """Average recall with at most 100 detections per frame and category."""
    empty_frames: int
    """Frames without targets among `frames`."""
    targets: int
    """Annotated boxes, crowd regions not counted."""
    detections: int
    """Detections scored."""

    def as_dict(self) -> dict[str, float]:
        """Returns plain numbers for JSON."""
        return asdict(self)

    def table(self) -> str:
        """Returns one line of text per metric."""
        rows = self.as_dict().items()
        return "\n".join(f"{k:<15}{v:.4f}" if isinstance(v, float) else f"{k:<15}{v}" for k, v in rows)


@dataclass(frozen=True)
class CriterionScores:
    """Metrics under one definition of a hit: IoU 0.5, or centres at most 3 or 5 pixels apart.

    All but `ap` pool the categories; a hit still needs the right category.
    """

    ap: float | None
    """Average precision, mean over the categories with targets; None without targets."""
    best_f1: float
    """Highest F1 over all score thresholds."""
    best_threshold: float
    """Score threshold of `best_f1`."""
    at_threshold: OperatingPoint
    """Operating point at the requested threshold."""
    false_alarms_at_recall: dict[str, float | None]
    """FROC: recall → fewest false alarms per frame at which it is reached; None if it never is."""
    recall_at_false_alarms: dict[str, float | None]
    """FROC: false alarms per frame → highest recall with at most that many; None without targets."""

    @classmethod
    def from_curve(cls, ap: float | None, curve: PrecisionRecallCurve, threshold: float) -> CriterionScores:
        """Computes the metrics of a curve; `threshold` is the score of `at_threshold`."""
        f1, best = curve.best_f1()
        return cls(
            ap=ap,
            best_f1=f1,
            best_threshold=best,
            at_threshold=curve.operating_point(threshold),
            false_alarms_at_recall={f"{r:g}": curve.false_alarms_at_recall(r) for r in RECALL_LEVELS},
            recall_at_false_alarms={f"{r:g}": curve.recall_at_false_alarms(r) for r in FALSE_ALARM_LEVELS},
        )


@dataclass(frozen=True)
class ClassScores:
    """Metrics of one category, defined as in `DetectionScores`; AP, AR, recall are None without targets."""

    name: str
    targets: int
    detections: int
    ap: float | None
    ap50: float | None
    ap75: float | None
    ar100: float | None
    recall50: float | None
    best_f1: float
    best_threshold: float


@dataclass(frozen=True)
class SizeScores:
    """Metrics at IoU 0.5 for targets of one range of box areas.

    Targets of other areas are ignored as pycocotools does: a detection assigned to one counts neither as hit
    nor as false alarm, and so does an unassigned detection of another area.
    """

    name: str
    """Upper bound as the sides of a square in pixels; the lower bound is that of the range before."""
    targets: int
    ap50: float | None
    """None without targets."""
    highest_recall: float | None
    """Recall without a score threshold, categories pooled; None without targets."""


@dataclass(frozen=True)
class VideoScores:
    """Metrics of one video."""

    name: str
    frames: int
    empty_frames: int
    targets: int
    detections: int
    ap50: float | None
    """None without targets."""
    recall: float | None
    """At IoU 0.5 and the requested threshold; None without targets."""
    false_alarms_per_frame: float
    """At IoU 0.5 and the requested threshold."""


@dataclass(frozen=True)
class PublishedScores:
    """Precision, recall and F1 as defined by the evaluation published with Tridos (IEEE TGRS 2024).

    They do not belong to a score threshold, so they are comparable with published tables only.
    """

    ap50: float
    """Average precision at IoU 0.5."""
    precision_as_published: float
    """Mean of the interpolated precision at recall 0, 0.01 … up to the highest recall."""
    recall_as_published: float
    """Recall without a score threshold."""
    f1_as_published: float
    """Harmonic mean of these two."""


@dataclass(frozen=True)
class DetectionReport:
    """All detection metrics of an evaluation."""

    scores: DetectionScores
    threshold: float
    """Score of the operating points."""
    criteria: dict[str, CriterionScores]
    """By the names of `pipeline.evaluation.detection.matching.CRITERIA`."""
    per_class: list[ClassScores]
    """Empty if categories are ignored."""
    class_agnostic: DetectionScores | None
    """Metrics with categories ignored; None if `scores` ignores them or there is one category only."""
    per_size: list[SizeScores]
    per_video: list[VideoScores]
    """In the order of the annotations; only videos with scored frames."""
    as_published: dict[str, PublishedScores]
    """`annotated_frames_only` leaves out frames without targets, as published; `all_frames` does not."""
    notes: list[str]
    """Remarks about detections that are repeated or do not count."""
    curves: dict[str, PrecisionRecallCurve] = field(repr=False)
    """By criterion, categories pooled; for plots, not part of the JSON."""

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON: the headline metrics at the top level, then the other sections."""
        sections = {
            "criteria": {name: asdict(scores) for name, scores in self.criteria.items()},
            "per_class": [asdict(row) for row in self.per_class],
            "class_agnostic": self.class_agnostic.as_dict() if self.class_agnostic else None,
            "per_size": [asdict(row) for row in self.per_size],
            "per_video": [asdict(row) for row in self.per_video],
            "as_published": {name: asdict(scores) for name, scores in self.as_published.items()},
        }
        return {**self.scores.as_dict(), "threshold": self.threshold, **sections, "notes": self.notes}
