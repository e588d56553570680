"""Rows of MOT ground truth: their separators, first frame, and which column is the class.

A row is `frame,id,left,top,width,height,counts,class,visibility`; columns after the sixth may be missing.
They are separated by commas, semicolons, tabs or blanks, and a line of column names may precede them. Frames
count from 1, or from 0 if there is a frame 0.

Rows of ten and more columns come in two kinds. Those of MOT15 end in a position in space, x, y, z, which is
-1 if unknown. Those of VisDrone and of files for TrackEval have the class in the same column as shorter rows;
in VisDrone class 0 is a region to ignore, and truncation and occlusion follow. A file is of the second kind
if all values of the eighth column are whole numbers from -1, of which one is positive, and those of the next
two are from -1 to 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.system.errors import UsageError
from pipeline.system.files import read_text

MAX_EXACT_INTEGER = 2**53
"""Largest number in a row: up to it, float64 represents every integer."""
MAX_CLASSES = 10_000
"""Every class gets a name, used or not, and a single wrong number can claim any count."""
NO_CLASS = -1

_CLASS, _LONG = 7, 10
"""Column of the class, from 0, and the number of columns from which it may be a position instead."""
_EXPECTED = "frame,id,left,top,width,height,counts,class,visibility"


class GroundTruthRow(NamedTuple):
    """A row that counts."""

    frame: int
    """From 0."""
    instance: int
    box: tuple[float, float, float, float]
    """Left, top, width, height in pixels from 0."""
    category: int
    """The number in the file; NO_CLASS if it gives none."""


class GroundTruth(NamedTuple):
    """The rows of a file, and what is to be told about them."""

    rows: list[GroundTruthRow]
    not_counted: int
    """Rows whose column `counts` is 0."""
    ignored: int
    """Regions to ignore: rows of class 0 in a file of long rows."""
    from_zero: bool
    """Whether frames count from 0."""


def read_rows(path: Path) -> GroundTruth:
    """Reads a file of ground truth. Raises UsageError if it cannot be read or is not of this form."""
    lines = _numbers(path)
    first = min((int(values[0]) for values in lines), default=1)
    from_zero = first == 0
    has_class = _eighth_is_class(lines)
    rows, not_counted, ignored = [], 0, 0
    for values in lines:
        if len(values) > 6 and values[6] == 0:
            not_counted += 1
            continue
        category = int(values[_CLASS]) if has_class and len(values) > _CLASS else NO_CLASS
        if category == 0 and len(values) >= _LONG:
            ignored += 1
            continue
        frame, instance, left, top, width, height = values[:6]
        box = (left - 1, top - 1, width, height)
        rows.append(GroundTruthRow(int(frame) - (not from_zero), int(instance), box, category))
    return GroundTruth(rows, not_counted, ignored, from_zero)


def _numbers(path: Path) -> list[list[float]]:
    """Returns the numbers of each row."""
    lines: list[list[float]] = []
    for number, line in enumerate(read_text(path, kind="MOT ground truth").splitlines(), start=1):
        parts = _split(line)
        if not parts or (not lines and _names_columns(parts)):
            continue
        try:
            values = [float(part) for part in parts]
            frame, _, _, _, _, _ = values[:6]
            usable = np.abs(values).max() <= MAX_EXACT_INTEGER and frame >= 0 and frame.is_integer()
        except ValueError:
            usable = False
        if not usable:
            raise UsageError(f"{path}, line {number}: '{line.strip()}' is not {_EXPECTED}")
        lines.append(values)
    return lines


def _split(line: str) -> list[str]:
    """Returns the columns of a row, without empty ones at its end."""
    line = line.strip().rstrip(",;").rstrip()
    separator = next((mark for mark in ",;" if mark in line), None)
    return [part.strip() for part in line.split(separator)]


def _names_columns(parts: list[str]) -> bool:
    """Whether a row is one of column names: its first is a word."""
    return parts[0].replace("_", "").isalpha()


def _eighth_is_class(lines: list[list[float]]) -> bool:
    """Whether the eighth column of all rows is the class, and not a position in space."""
    column = [values[_CLASS] for values in lines if len(values) > _CLASS]
    whole = all(value.is_integer() and value >= NO_CLASS for value in column)
    long = [values for values in lines if len(values) >= _LONG]
    after = all(-1 <= value <= 2 for values in long for value in values[_CLASS + 1 : _LONG])
    return whole and (not long or (after and 1 <= max(column) <= MAX_CLASSES))
