"""A report as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.evaluation.detection.matching import CRITERIA
from pipeline.evaluation.detection.report import FALSE_ALARM_LEVELS, RECALL_LEVELS, Report, Scores


def tables(report: Report) -> str:
    """All sections, one below the other; a dash stands for what is undefined or not reached."""
    parts = [
        _counts(report.scores),
        section("COCO average precision and recall", _coco_rows(report)),
        section("By what counts as a hit", _criterion_rows(report)),
    ]
    if report.per_class:
        parts.append(section("By class", _class_rows(report)))
    parts.append(section("By size of the target, at IoU 0.5", _size_rows(report)))
    if report.per_video:
        parts.append(section(f"By video, at IoU 0.5 and score {report.threshold:g}", _video_rows(report)))
    title = "As published with Tridos: numbers of no threshold, not to be compared with those above"
    parts.append(section(title, _published_rows(report)))
    parts += [f"note: {note}" for note in report.notes]
    return "\n\n".join(parts)


def shown(value: float | None, digits: int = 3) -> str:
    """A number with so many decimals; whole numbers as they are, a dash for None."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"


def _counts(scores: Scores) -> str:
    frames = f"frames {scores.frames} ({scores.empty_frames} without targets)"
    return f"{frames}, targets {scores.targets}, detections {scores.detections}"


def _coco_rows(report: Report) -> list[list[str]]:
    names = ("ap50", "ap75", "ap", "ar1", "ar10", "ar100", "recall50")
    rows = [["", "AP50", "AP75", "AP", "AR1", "AR10", "AR100", "recall50"]]
    for title, scores in (("class by class", report.scores), ("classes as one", report.class_agnostic)):
        if scores:
            rows.append([title, *(shown(getattr(scores, name)) for name in names)])
    if not report.class_agnostic:
        rows[1][0] = "all"
    return rows


def _criterion_rows(report: Report) -> list[list[str]]:
    columns = [report.criteria[criterion.name] for criterion in CRITERIA]
    points = [column.at_threshold for column in columns]
    rows = [
        ["", *(criterion.title for criterion in CRITERIA)],
        ["average precision", *(shown(column.ap) for column in columns)],
        ["best F1", *(shown(column.best_f1) for column in columns)],
        ["  at score", *(shown(column.best_threshold) for column in columns)],
        [f"at score {report.threshold:g}: precision", *(shown(point.precision) for point in points)],
        ["  recall", *(shown(point.recall) for point in points)],
        ["  F1", *(shown(point.f1) for point in points)],
        ["  false alarms a frame", *(shown(point.false_alarms_per_frame, 4) for point in points)],
    ]
    for level in (f"{level:g}" for level in RECALL_LEVELS):
        values = (column.false_alarms_at_recall[level] for column in columns)
        rows.append([f"false alarms a frame at recall {level}", *(shown(value, 4) for value in values)])
    for level in (f"{level:g}" for level in FALSE_ALARM_LEVELS):
        values = (column.recall_at_false_alarms[level] for column in columns)
        rows.append([f"recall at {level} false alarms a frame", *map(shown, values)])
    return rows


def _class_rows(report: Report) -> list[list[str]]:
    coco = ["AP50", "AP75", "AP", "AR100", "recall50"]
    rows = [["class", "targets", "detections", *coco, "best F1", "at score"]]
    for row in report.per_class:
        values = (row.targets, row.detections, row.ap50, row.ap75, row.ap, row.ar100, row.recall50)
        rows.append([row.name, *map(shown, values), shown(row.best_f1), shown(row.best_threshold)])
    return rows


def _size_rows(report: Report) -> list[list[str]]:
    rows = [["box area", "targets", "AP50", "highest recall"]]
    for row in report.per_size:
        rows.append([row.name, *map(shown, (row.targets, row.ap50, row.highest_recall))])
    return rows


def _video_rows(report: Report) -> list[list[str]]:
    rows = [["video", "frames", "empty", "targets", "detections", "AP50", "recall", "false alarms a frame"]]
    for row in report.per_video:
        counts = (row.frames, row.empty_frames, row.targets, row.detections)
        rates = (row.ap50, row.recall, row.false_alarms_per_frame)
        rows.append([row.name, *map(shown, counts), *map(shown, rates)])
    return rows


def _published_rows(report: Report) -> list[list[str]]:
    rows = [["frames", "AP50", "precision as published", "recall as published", "F1 as published"]]
    for name, scores in report.as_published.items():
        values = (scores.ap50, scores.precision_as_published, scores.recall_as_published)
        rows.append([name.replace("_", " "), *map(shown, values), shown(scores.f1_as_published)])
    return rows


def section(title: str, rows: Sequence[Sequence[str]]) -> str:
    """A title over aligned columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(v.rjust(w) for v, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([title, *(f"  {line}".rstrip() for line in lines)])
