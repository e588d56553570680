"""Text tables of track metrics."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.evaluation.detection.tables import format_number, format_table
from pipeline.evaluation.tracking.scores import TrackScores, format_value

_RATIOS = ("MOTA", "MOTP", "IDF1", "HOTA", "DetA", "AssA", "tube AP", "tube AP50")

IDENTITY_NOTES = (
    "MOTA: 1 - (misses + false positives + switches) / boxes. IDF1: boxes that keep one identity.",
    "HOTA: geometric mean of DetA and AssA, over thresholds of IoU, or of 1 - d / (2 gate) for centres.",
    "tube AP: AP of whole tracks, over overlaps of 0.5 to 0.95 in space and time.",
)
"""Definitions of the columns that tell how tracks follow targets; docs/evaluation.md has them in full."""
PRESENCE_NOTES = (
    "coverage: share of boxes with a track in the gate. missed: targets covered in less than 20 %.",
    "first s: mean seconds to the first track. false track: less than 20 % of its rows on a target.",
)
"""Definitions of the columns that tell what a user sees."""


def video_table(scores: Mapping[str, TrackScores]) -> str:
    """Returns one line per video with the most common metrics of the result of `score_videos`."""
    columns = (
        *("mota", "motp", "idf1", "hota", "coverage", "switches", "fragments", "misses"),
        *("false_positives", "false_tracks", "boxes"),
    )
    lines = [["video", *columns]]
    lines += [
        [name, *(format_value(getattr(row, column)) for column in columns)] for name, row in scores.items()
    ]
    shape = f"{{:<{max(len(name) for name, *_ in lines)}}}"
    shape += "".join(f"{{:>{max(len(column), 7) + 2}}}" for column in columns)
    return "\n".join(shape.format(*line) for line in lines)


def gate_table(scores: Mapping[str, TrackScores]) -> str:
    """Returns two tables, one line per gate; `scores` are those of the same tracks by the name of the gate.

    Each table ends with the definitions of its columns.
    """
    counts = ("switches", "fragments", "misses", "false_positives", "boxes")
    ratios = ("mota", "motp", "idf1", "hota", "deta", "assa", "tube_ap", "tube_ap50")
    first = [["match", *_RATIOS, *(name.replace("_", " ") for name in counts)]]
    second = [["match", "coverage", "missed", "first s", "false tracks", "a minute", "an hour"]]
    for gate, row in scores.items():
        title = f"{gate} {row.limit:g}"
        first.append([title, *(format_number(getattr(row, name)) for name in (*ratios, *counts))])
        rates = row.false_tracks_per_minute, row.false_tracks_per_hour
        missed = f"{row.missed_targets}/{row.targets}"
        first_seconds = format_number(row.first_confirmation, 2)
        values = [format_number(row.coverage), missed, first_seconds, str(row.false_tracks)]
        second.append([title, *values, *(format_number(rate, 2) for rate in rates)])
    tables = (
        format_table("Tracks, by gate of a match", first),
        "\n".join(f"  {line}" for line in IDENTITY_NOTES),
        format_table("Targets covered and tracks on nothing", second),
        "\n".join(f"  {line}" for line in PRESENCE_NOTES),
    )
    return "\n".join(tables[:2]) + "\n\n" + "\n".join(tables[2:])
