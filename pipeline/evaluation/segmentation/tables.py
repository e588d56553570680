"""Scores of masks as a table for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from pipeline.evaluation.segmentation.definitions import Definition, MaskScores
from pipeline.evaluation.segmentation.scorer import MaskScorer

COLUMNS = {
    "IoU": "iou",
    "nIoU": "niou",
    "F1": "f1",
    "precision": "precision",
    "recall": "recall",
    "Pd": "pd",
    "Fa x1e-6": "fa",
    "AUC": "auc",
    "target AUC": "target_auc",
}
WIDTH, INDENT = 110, 17


def tables(scorer: MaskScorer, threshold: float) -> str:
    """One line a definition; below, what each of them does. A dash stands for what is not defined."""
    scores = scorer.scores()
    first = next(iter(scores.values()))
    counts = f"images {scorer.images} ({scorer.empty_images} without targets)"
    if first.targets is not None:
        counts += f", targets {first.targets}, hit {first.hits}, false pixels {first.false_pixels}"
        counts += f", false alarms per image {_shown(first.false_alarms_per_image)}"
    return "\n\n".join([counts, score_table(scores), _legend(scorer.definitions, threshold)])


def score_table(scores: Mapping[str, MaskScores]) -> str:
    """One line a definition, one column a number."""
    rows = [["definition", *COLUMNS]]
    rows += [[name, *_cells(row)] for name, row in scores.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths) for row in rows)


def _cells(row: MaskScores) -> list[str]:
    cells = []
    for field in COLUMNS.values():
        value = getattr(row, field)
        cells.append(_shown(value, 2, 1e6) if field == "fa" else _shown(value))
    return cells


def _shown(value: float | None, decimals: int = 4, factor: float = 1.0) -> str:
    return "-" if value is None else f"{value * factor:.{decimals}f}"


def _line(cells: list[str], widths: list[int]) -> str:
    first, *others = (
        cell.rjust(width) if place else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([first, *others])


def _legend(rows: Mapping[str, Definition], threshold: float) -> str:
    lines = [f"Found is what is above {threshold:g}, where 0.5 is not part of a published definition:"]
    for name, row in rows.items():
        text = f"{name:<{INDENT}}{row.source}: {row.remark}"
        lines += textwrap.wrap(text, WIDTH, subsequent_indent=" " * INDENT)
    lines.append("Maps and masks are compared as they are; some published evaluations resize both before.")
    return "\n".join(lines)
