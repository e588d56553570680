"""Rectangles of whole pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Rectangle(NamedTuple):
    """A rectangle of whole pixels: left and top inclusive, right and bottom exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def around(cls, box: Sequence[float]) -> Rectangle:
        """Returns all pixels that a box x1 y1 x2 y2 touches; one pixel for an empty box."""
        left, top = math.floor(box[0]), math.floor(box[1])
        return cls(left, top, max(math.ceil(box[2]), left + 1), max(math.ceil(box[3]), top + 1))

    def grown(self, by: int) -> Rectangle:
        """Returns the rectangle with all sides moved outwards by `by` pixels."""
        return Rectangle(self.left - by, self.top - by, self.right + by, self.bottom + by)

    def slices(self) -> tuple[slice, slice]:
        """Returns the rows and columns for indexing an image; parts left of or above it are cut off."""
        rows = slice(max(self.top, 0), max(self.bottom, 0))
        return rows, slice(max(self.left, 0), max(self.right, 0))

    def distance(self, other: Rectangle) -> float:
        """Returns the distance of two rectangles in pixels; 0 if they touch, negative if they overlap."""
        across = max(self.left - other.right, other.left - self.right)
        down = max(self.top - other.bottom, other.top - self.bottom)
        if across > 0 and down > 0:
            return math.hypot(across, down)
        return float(max(across, down))
