"""Text tables of track metrics."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.evaluation.detection.tables import format_number, format_table
from pipeline.evaluation.tracking.scores import TrackScores, format_value


def video_table(scores: Mapping[str, TrackScores]) -> str:
    """Returns one line per video with the most common metrics of the result of `score_videos`."""
    columns = ("mota", "motp", "idf1", "switches", "fragments", "misses", "false_positives", "boxes")
    lines = [["video", *columns]]
    lines += [
        [name, *(format_value(getattr(row, column)) for column in columns)] for name, row in scores.items()
    ]
    shape = f"{{:<{max(len(name) for name, *_ in lines)}}}"
    shape += "".join(f"{{:>{max(len(column), 7) + 2}}}" for column in columns)
    return "\n".join(shape.format(*line) for line in lines)


def gate_table(scores: Mapping[str, TrackScores]) -> str:
    """Returns one line per gate; `scores` are those of the same tracks by the name of the gate."""
    counts = ("switches", "fragments", "misses", "false_positives", "boxes")
    rows = [["match", "MOTA", "MOTP", "IDF1", *(name.replace("_", " ") for name in counts)]]
    for gate, row in scores.items():
        values = (row.mota, row.motp, row.idf1, *(getattr(row, name) for name in counts))
        rows.append([f"{gate} {row.limit:g}", *map(format_number, values)])
    return format_table("Tracks, by gate of a match", rows)
