"""All numbers of an evaluation, each defined here in plain words."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from pipeline.evaluation.detection.curves import Curve, OperatingPoint

RECALL_LEVELS = (0.5, 0.7, 0.8, 0.9)
FALSE_ALARM_LEVELS = (0.01, 0.05, 0.1)


@dataclass(frozen=True)
class Scores:
    """The headline numbers, in [0, 1] but for the counts.

    A detection hits a target when their boxes overlap enough (IoU: intersection over union) and no better
    detection has taken it. All sizes count, and at most the best 100 detections of each frame and category.
    AP, AR and recall50 are means over the categories that have targets; 0 where none has.
    """

    ap50: float
    """Average precision at IoU 0.5: mean of 101 interpolated precisions, mean over categories."""
    ap: float
    """Mean of the average precisions at IoU 0.5, 0.55 … 0.95."""
    recall50: float
    """Highest recall reached at IoU 0.5, at any score."""
    best_f1: float
    """Highest harmonic mean of precision and recall at IoU 0.5 over all score thresholds."""
    best_threshold: float
    """The score at which `best_f1` is reached."""
    frames: int
    """Frames that were scored; those without targets count."""
    ap75: float
    """Average precision at IoU 0.75."""
    ar1: float
    """Average recall: highest recall, mean over IoU 0.5 … 0.95, with the best detection of each frame."""
    ar10: float
    """The same with the best 10 detections of each frame and category."""
    ar100: float
    """The same with the best 100."""
    empty_frames: int
    """Frames without targets among `frames`."""
    targets: int
    """Annotated boxes to be found; crowd regions are not."""
    detections: int
    """Detections that were scored."""

    def as_dict(self) -> dict[str, float]:
        """Plain numbers, for JSON."""
        return asdict(self)

    def table(self) -> str:
        """One line for each number, for people."""
        rows = self.as_dict().items()
        return "\n".join(f"{k:<15}{v:.4f}" if isinstance(v, float) else f"{k:<15}{v}" for k, v in rows)


@dataclass(frozen=True)
class CriterionScores:
    """Numbers under one definition of a hit: IoU 0.5, or centres within 3 or 5 pixels.

    All but `ap` take the categories together; a hit is always of the right category.
    """

    ap: float | None
    """Average precision, mean over categories; None without targets."""
    best_f1: float
    """Highest F1 over all score thresholds."""
    best_threshold: float
    """The score at which it is reached."""
    at_threshold: OperatingPoint
    """Precision, recall, F1 and false alarms at the threshold that was asked for."""
    false_alarms_at_recall: dict[str, float | None]
    """Fewest false alarms per frame at which a recall is reached; None where it never is."""
    recall_at_false_alarms: dict[str, float | None]
    """Highest recall with at most so many false alarms per frame."""

    @classmethod
    def of(cls, ap: float | None, curve: Curve, threshold: float) -> CriterionScores:
        """The numbers of a curve."""
        f1, best = curve.best_f1()
        return cls(
            ap=ap,
            best_f1=f1,
            best_threshold=best,
            at_threshold=curve.at(threshold),
            false_alarms_at_recall={f"{level:g}": curve.false_alarms_at(level) for level in RECALL_LEVELS},
            recall_at_false_alarms={f"{level:g}": curve.recall_at(level) for level in FALSE_ALARM_LEVELS},
        )


@dataclass(frozen=True)
class ClassScores:
    """One category; None where it has no targets."""

    name: str
    targets: int
    detections: int
    ap: float | None
    """As in `Scores`, and so are the following."""
    ap50: float | None
    ap75: float | None
    ar100: float | None
    recall50: float | None
    best_f1: float
    best_threshold: float


@dataclass(frozen=True)
class SizeScores:
    """Targets of one range of box areas.

    What hits a target of another size counts neither as a hit nor as a false alarm, and so does a detection
    that hits nothing and is itself of another size.
    """

    name: str
    """Upper end of the range: a square of so many pixels; the lower end is that of the range before it."""
    targets: int
    ap50: float | None
    """None without targets."""
    highest_recall: float | None
    """Share of the targets that are hit at any score, categories together."""


@dataclass(frozen=True)
class VideoScores:
    """One video by itself."""

    name: str
    frames: int
    empty_frames: int
    targets: int
    detections: int
    ap50: float | None
    """None without targets."""
    recall: float | None
    """At IoU 0.5 and the threshold that was asked for; None without targets."""
    false_alarms_per_frame: float
    """At that threshold."""


@dataclass(frozen=True)
class PublishedScores:
    """Precision, recall and F1 as the evaluation published with Tridos (IEEE TGRS 2024) defines them.

    They belong to no score threshold and must not be compared with precision, recall and F1 that do. Here to
    compare with published tables only.
    """

    ap50: float
    """Average precision at IoU 0.5."""
    precision_as_published: float
    """Mean of the interpolated precisions at recall 0, 0.01 … up to the highest recall."""
    recall_as_published: float
    """Highest recall at any score."""
    f1_as_published: float
    """Harmonic mean of these two."""


@dataclass(frozen=True)
class Report:
    """Everything that is measured."""

    scores: Scores
    threshold: float
    """The score from which on detections count where a threshold is needed."""
    criteria: dict[str, CriterionScores]
    """By the names of `pipeline.evaluation.detection.matching.CRITERIA`."""
    per_class: list[ClassScores]
    """Empty where all categories count as one."""
    class_agnostic: Scores | None
    """All categories taken as one, where there are several; None where that is what `scores` are."""
    per_size: list[SizeScores]
    per_video: list[VideoScores]
    """In the order of the annotations; only videos of which frames were scored."""
    as_published: dict[str, PublishedScores]
    """`annotated_frames_only` leaves out frames without targets, as published; `all_frames` does not."""
    notes: list[str]
    """What is odd about the detections."""
    curves: dict[str, Curve] = field(repr=False)
    """By criterion, categories together; for plots, not in the JSON."""

    def as_dict(self) -> dict:
        """Plain values, for JSON: the scores at the top, the other sections under their names."""
        sections = {
            "criteria": {name: asdict(scores) for name, scores in self.criteria.items()},
            "per_class": [asdict(row) for row in self.per_class],
            "class_agnostic": self.class_agnostic.as_dict() if self.class_agnostic else None,
            "per_size": [asdict(row) for row in self.per_size],
            "per_video": [asdict(row) for row in self.per_video],
            "as_published": {name: asdict(scores) for name, scores in self.as_published.items()},
        }
        return {**self.scores.as_dict(), "threshold": self.threshold, **sections, "notes": self.notes}
