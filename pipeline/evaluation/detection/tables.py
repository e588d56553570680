"""Text tables of a detection report, and the formatting that all tables of the evaluation share."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.evaluation.detection.matching import CRITERIA
from pipeline.evaluation.detection.report import (
    FALSE_ALARM_LEVELS,
    RECALL_LEVELS,
    DetectionReport,
    DetectionScores,
)


def report_tables(report: DetectionReport) -> str:
    """Returns all sections as text; a dash stands for a value that is undefined or not reached."""
    parts = [
        _counts(report.scores),
        format_table("COCO average precision and recall", _coco_rows(report)),
        format_table("By criterion of a hit", _criterion_rows(report)),
    ]
    if report.per_class:
        parts.append(format_table("By class", _class_rows(report)))
    parts.append(format_table("By size of the target, at IoU 0.5", _size_rows(report)))
    if report.per_video:
        parts.append(
            format_table(f"By video, at IoU 0.5 and score {report.threshold:g}", _video_rows(report))
        )
    title = "As published with Tridos: without a score threshold, not comparable with the metrics above"
    parts.append(format_table(title, _published_rows(report)))
    parts += [f"note: {note}" for note in report.notes]
    return "\n\n".join(parts)


def format_number(value: float | None, digits: int = 3) -> str:
    """Returns a float with `digits` decimals, an integer as it is, and a dash for None."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"


def format_table(title: str, rows: Sequence[Sequence[str]]) -> str:
    """Returns a title above aligned columns: the first column left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(v.rjust(w) for v, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([title, *(f"  {line}".rstrip() for line in lines)])


def _counts(scores: DetectionScores) -> str:
    frames = f"frames {scores.frames} ({scores.empty_frames} without targets)"
    return f"{frames}, targets {scores.targets}, detections {scores.detections}"


def _coco_rows(report: DetectionReport) -> list[list[str]]:
    names = ("ap50", "ap75", "ap", "ar1", "ar10", "ar100", "recall50")
    rows = [["", "AP50", "AP75", "AP", "AR1", "AR10", "AR100", "recall50"]]
    for title, scores in (("class by class", report.scores), ("classes as one", report.class_agnostic)):
        if scores:
            values = (getattr(scores, name) if scores.targets else None for name in names)
            rows.append([title, *map(format_number, values)])
    if not report.class_agnostic:
        rows[1][0] = "all"
    return rows


def _criterion_rows(report: DetectionReport) -> list[list[str]]:
    columns = [report.criteria[criterion.name] for criterion in CRITERIA]
    points = [column.at_threshold for column in columns]
    rows = [
        ["", *(criterion.title for criterion in CRITERIA)],
        ["average precision", *(format_number(column.ap) for column in columns)],
        ["best F1", *(format_number(column.best_f1) for column in columns)],
        ["  at score", *(format_number(column.best_threshold) for column in columns)],
        [f"at score {report.threshold:g}: precision", *(format_number(point.precision) for point in points)],
        ["  recall", *(format_number(point.recall) for point in points)],
        ["  F1", *(format_number(point.f1) for point in points)],
        ["  false alarms a frame", *(format_number(point.false_alarms_per_frame, 4) for point in points)],
    ]
    for level in (f"{level:g}" for level in RECALL_LEVELS):
        rates = (column.false_alarms_at_recall[level] for column in columns)
        rows.append([f"false alarms a frame at recall {level}", *(format_number(rate, 4) for rate in rates)])
    for level in (f"{level:g}" for level in FALSE_ALARM_LEVELS):
        recalls = (column.recall_at_false_alarms[level] for column in columns)
        rows.append([f"recall at {level} false alarms a frame", *map(format_number, recalls)])
    return rows


def _class_rows(report: DetectionReport) -> list[list[str]]:
    coco = ["AP50", "AP75", "AP", "AR100", "recall50"]
    rows = [["class", "targets", "detections", *coco, "best F1", "at score"]]
    for row in report.per_class:
        counts = (row.targets, row.detections)
        metrics = (row.ap50, row.ap75, row.ap, row.ar100, row.recall50, row.best_f1, row.best_threshold)
        rows.append([row.name, *map(format_number, counts), *map(format_number, metrics)])
    return rows


def _size_rows(report: DetectionReport) -> list[list[str]]:
    rows = [["box area", "targets", "AP50", "highest recall"]]
    for row in report.per_size:
        rows.append([row.name, *map(format_number, (row.targets, row.ap50, row.highest_recall))])
    return rows


def _video_rows(report: DetectionReport) -> list[list[str]]:
    rows = [["video", "frames", "empty", "targets", "detections", "AP50", "recall", "false alarms a frame"]]
    for row in report.per_video:
        counts = (row.frames, row.empty_frames, row.targets, row.detections)
        rates = (row.ap50, row.recall, row.false_alarms_per_frame)
        rows.append([row.name, *map(format_number, counts), *map(format_number, rates)])
    return rows


def _published_rows(report: DetectionReport) -> list[list[str]]:
    rows = [["frames", "AP50", "precision as published", "recall as published", "F1 as published"]]
    for name, scores in report.as_published.items():
        values = (
            scores.ap50,
            scores.precision_as_published,
            scores.recall_as_published,
            scores.f1_as_published,
        )
        defined = values if report.scores.targets else [None] * len(values)
        rows.append([name.replace("_", " "), *map(format_number, defined)])
    return rows
