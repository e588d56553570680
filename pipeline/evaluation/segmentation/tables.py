"""Text tables of mask metrics."""

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
"""Title of a column → field of `MaskScores`."""
WIDTH, INDENT = 110, 17
"""Columns of the legend, and indentation of its texts."""


def mask_tables(scorer: MaskScorer, threshold: float) -> str:
    """Returns counts, one line per definition, and a legend; a dash stands for what is undefined."""
    scores = scorer.scores()
    first = next(iter(scores.values()))
    counts = f"images {scorer.images} ({scorer.empty_images} without targets)"
    if first.targets is not None:
        counts += f", targets {first.targets}, hit {first.hits}, false pixels {first.false_pixels}"
        counts += f", false alarms per image {_format(first.false_alarms_per_image)}"
    return "\n\n".join([counts, score_table(scores), _legend(scorer.definitions, threshold)])


def score_table(scores: Mapping[str, MaskScores]) -> str:
    """Returns one line per definition and one column per metric."""
    rows = [["definition", *COLUMNS]]
    rows += [[name, *_cells(row)] for name, row in scores.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths) for row in rows)


def _cells(row: MaskScores) -> list[str]:
    cells = []
    for field in COLUMNS.values():
        value = getattr(row, field)
        cells.append(_format(value, 2, 1e6) if field == "fa" else _format(value))
    return cells


def _format(value: float | None, decimals: int = 4, factor: float = 1.0) -> str:
    return "-" if value is None else f"{value * factor:.{decimals}f}"


def _line(cells: list[str], widths: list[int]) -> str:
    first, *others = (
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([first, *others])


def _legend(rows: Mapping[str, Definition], threshold: float) -> str:
    lines = [f"The threshold is {threshold:g} for the definitions of this project; the others fix their own."]
    for name, row in rows.items():
        text = f"{name:<{INDENT}}{row.source}: {row.remark}"
        lines += textwrap.wrap(text, WIDTH, subsequent_indent=" " * INDENT)
    lines.append(
        "Maps and masks are compared at their own size; some published evaluations resize both first."
    )
    return "\n".join(lines)
