"""Drawing primitives: rectangles that keep a distance from their box, fading polylines, small text.

All functions draw in place into `canvas`, (H, W, 3) uint8 R, G, B, without anti-aliasing: a line of one pixel
has its full colour, whereas anti-aliasing would spread it over two pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np

from pipeline.drawing.bitmap_font import GLYPH_HEIGHT, render_text
from pipeline.structures.rectangle import Rectangle

Colour = tuple[int, int, int]
"""R, G, B."""
Words = Sequence[tuple[str, Colour]]
"""The words of one line of text with their colours."""
Style = Literal["solid", "dashed", "corners"]
"""Line style of a rectangle; "corners" draws the ends of its sides only."""
_DASH = 3
"""Length of dashes and of the gaps between them, in line widths."""
_SPACE = 2
"""Space between words, in pixels of the font at scale 1."""
_HALO = (12, 12, 12)
"""Colour around letters, which makes them readable on any background."""


def draw_outline(
    canvas: np.ndarray, box: Rectangle, *, margin: int, thickness: int, colour: Colour, style: Style
) -> None:
    """Draws a rectangle around `box` at a distance of `margin` pixels.

    At the border of the canvas a side moves nearer to the box to stay visible; it is omitted if it would
    cover a pixel of the box.
    """
    height, width = canvas.shape[:2]
    left = max(box.left - margin - thickness, 0)
    top = max(box.top - margin - thickness, 0)
    right = min(box.right + margin, width - thickness)
    bottom = min(box.bottom + margin, height - thickness)
    spans = _spans(left, right + thickness, thickness, style)
    rows = [row for row, fits in ((top, top + thickness <= box.top), (bottom, bottom >= box.bottom)) if fits]
    for row in rows:
        for start, end in spans:
            canvas[row : row + thickness, start:end] = colour
    spans = _spans(top, bottom + thickness, thickness, style)
    columns = [c for c, fits in ((left, left + thickness <= box.left), (right, right >= box.right)) if fits]
    for column in columns:
        for start, end in spans:
            canvas[start:end, column : column + thickness] = colour


def _spans(start: int, end: int, thickness: int, style: Style) -> list[tuple[int, int]]:
    """Returns the intervals of a side from `start` to `end` that are drawn."""
    start, end = max(start, 0), max(end, 0)
    if style == "solid":
        return [(start, end)]
    dash = _DASH * thickness
    if style == "corners":
        dash = min(dash, (end - start) // 3)
        return [(start, start + dash), (end - dash, end)]
    # an odd number of equal parts, so that the side begins and ends with a dash
    parts = max(3, (end - start) // dash | 1)
    edges = [start + round(k * (end - start) / parts) for k in range(parts + 1)]
    return list(zip(edges[::2], edges[1::2], strict=True))


def polyline_fading(canvas: np.ndarray, points: np.ndarray, *, colour: Colour, thickness: int) -> None:
    """Draws a line through `points`, (N, 2) x y in source pixels, that fades towards the first one."""
    if len(points) < 2:
        return
    lengths = np.hypot(*np.diff(points, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    if along[-1] < 1:
        return
    steps = np.linspace(0, along[-1], int(along[-1]) + 1)
    corner = (thickness - 1) / 2
    columns = np.floor(np.interp(steps, along, points[:, 0]) - corner).astype(int)
    rows = np.floor(np.interp(steps, along, points[:, 1]) - corner).astype(int)
    opacity = np.interp(steps, along, np.linspace(0.25, 1, len(points)))[:, None]
    brush = [(r, c) for r in range(thickness) for c in range(thickness)]
    rows = np.concatenate([rows + r for r, _ in brush])
    columns = np.concatenate([columns + c for _, c in brush])
    opacity = np.tile(opacity, (len(brush), 1))
    inside = (rows >= 0) & (rows < canvas.shape[0]) & (columns >= 0) & (columns < canvas.shape[1])
    rows, columns, opacity = rows[inside], columns[inside], opacity[inside]
    background = canvas[rows, columns]
    canvas[rows, columns] = (background + opacity * (np.array(colour) - background)).astype(np.uint8)


def text_size(words: Words, *, scale: int) -> tuple[int, int]:
    """Returns the height and width in pixels of `words` as `draw_text` draws them, halo included."""
    widths = [_text_masks(text, scale)[0].shape[1] for text, _ in words]
    return (GLYPH_HEIGHT + 2) * scale, sum(widths) + _SPACE * scale * (len(widths) - 1)


def draw_text(canvas: np.ndarray, words: Words, *, left: int, top: int, scale: int) -> None:
    """Draws `words` in one line whose top-left corner is at `left`, `top`; it must lie within the canvas."""
    for text, colour in words:
        strokes, halo = _text_masks(text, scale)
        part = canvas[top : top + strokes.shape[0], left : left + strokes.shape[1]]
        part[halo] = _HALO
        part[strokes] = colour
        left += strokes.shape[1] + _SPACE * scale


@lru_cache(maxsize=1024)
def _text_masks(text: str, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns two masks, (H, W) bool: the strokes of `text`, and the strokes dilated by `scale` pixels."""
    strokes = np.pad(render_text(text, scale=scale), scale)
    dilated = cv2.dilate(strokes.astype(np.uint8), np.ones((2 * scale + 1, 2 * scale + 1), np.uint8))
    return strokes, dilated.astype(bool)


class Occupancy:
    """The pixels of a canvas of `shape` (H, W, …) that rectangles cover.

    Asking whether a rectangle is free takes as long as it has pixels, however many rectangles there are.
    """

    def __init__(self, shape: Sequence[int], rectangles: Iterable[Rectangle] = ()):
        self._covered = np.zeros(shape[:2], dtype=bool)
        for rectangle in rectangles:
            self.add(rectangle)

    @property
    def height(self) -> int:
        """Number of rows of the canvas."""
        return self._covered.shape[0]

    @property
    def width(self) -> int:
        """Number of columns of the canvas."""
        return self._covered.shape[1]

    def add(self, rectangle: Rectangle) -> None:
        """Covers the pixels of a rectangle, as far as they lie on the canvas."""
        self._covered[rectangle.slices()] = True

    def is_free(self, rectangle: Rectangle) -> bool:
        """Returns whether a rectangle lies on the canvas and overlaps none of those that were added."""
        left, top, right, bottom = rectangle
        inside = left >= 0 and top >= 0 and right <= self.width and bottom <= self.height
        return inside and not self._covered[rectangle.slices()].any()


def label_position(box: Rectangle, *, height: int, width: int, occupied: Occupancy) -> Rectangle | None:
    """Returns a rectangle of `height` × `width` pixels beside `box`; None if there is no room.

    It is above, below, right or left of the box, in this order of preference, and free.
    """
    x = min(max(box.left, 0), occupied.width - width)
    y = min(max(box.top, 0), occupied.height - height)
    corners = ((x, box.top - height), (x, box.bottom), (box.right, y), (box.left - width, y))
    for left, top in corners:
        position = Rectangle(left, top, left + width, top + height)
        if occupied.is_free(position):
            return position
    return None
