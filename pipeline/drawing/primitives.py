"""Marks on a pixel grid: outlines that stay clear of what they frame, fading paths, tiny text.

Everything is drawn in place into `canvas`, (H, W, 3) uint8 in R, G, B order, with whole pixels: a line of
one pixel is then one pixel of full colour, where an anti-aliased one would be two of half.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np

from pipeline.drawing.bitmap_font import HEIGHT, letter
from pipeline.structures.rectangle import Rectangle

Colour = tuple[int, int, int]
"""R, G, B."""
Words = Sequence[tuple[str, Colour]]
"""Words of one line of text, each in its colour."""
Style = Literal["solid", "dashed", "corners"]
_DASH = 3
"""Length of dashes and gaps, in line widths."""
_SPACE = 2
"""Between the rims of words, in units of the lettering."""
_HALO = (12, 12, 12)
"""Almost black, around letters, so that they can be read on any background."""


def outline(
    canvas: np.ndarray, box: Rectangle, *, margin: int, thickness: int, colour: Colour, style: Style
) -> None:
    """Frame `box` with lines `margin` pixels away from it, in place.

    At the picture's border a line moves nearer to the box to stay visible, and is left out where it would
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
    """The drawn parts of a side that reaches from `start` to `end`."""
    start, end = max(start, 0), max(end, 0)
    if style == "solid":
        return [(start, end)]
    dash = _DASH * thickness
    if style == "corners":
        dash = min(dash, (end - start) // 3)
        return [(start, start + dash), (end - dash, end)]
    # an odd number of equal parts, so that a dash lies on every corner
    parts = max(3, (end - start) // dash | 1)
    edges = [start + round(k * (end - start) / parts) for k in range(parts + 1)]
    return list(zip(edges[::2], edges[1::2], strict=True))


def polyline_fading(canvas: np.ndarray, points: np.ndarray, *, colour: Colour, thickness: int) -> None:
    """Draw a line through `points`, (N, 2) x and y from old to new, that fades towards its old end, in place.

    Coordinates are source pixels with the origin at the outer corner of the top-left pixel.
    """
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
    strength = np.interp(steps, along, np.linspace(0.25, 1, len(points)))[:, None]
    brush = [(r, c) for r in range(thickness) for c in range(thickness)]
    rows = np.concatenate([rows + r for r, _ in brush])
    columns = np.concatenate([columns + c for _, c in brush])
    strength = np.tile(strength, (len(brush), 1))
    inside = (rows >= 0) & (rows < canvas.shape[0]) & (columns >= 0) & (columns < canvas.shape[1])
    rows, columns, strength = rows[inside], columns[inside], strength[inside]
    ground = canvas[rows, columns]
    canvas[rows, columns] = (ground + strength * (np.array(colour) - ground)).astype(np.uint8)


def text_size(words: Words, *, scale: int) -> tuple[int, int]:
    """Height and width in pixels of `words` as `write` sets them, halo included."""
    masks = [_letters(text, scale)[0] for text, _ in words]
    return (HEIGHT + 2) * scale, sum(mask.shape[1] for mask in masks) + _SPACE * scale * (len(masks) - 1)


def write(canvas: np.ndarray, words: Words, *, left: int, top: int, scale: int) -> None:
    """Set `words` in one line with its top-left corner there, in place; the line must lie in the picture."""
    for text, colour in words:
        strokes, halo = _letters(text, scale)
        part = canvas[top : top + strokes.shape[0], left : left + strokes.shape[1]]
        part[halo] = _HALO
        part[strokes] = colour
        left += strokes.shape[1] + _SPACE * scale


@lru_cache(maxsize=1024)
def _letters(text: str, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Two (H, W) bool masks: the strokes of `text`, and the strokes with a rim of one unit around them."""
    strokes = np.pad(letter(text, scale=scale), scale)
    rim = cv2.dilate(strokes.astype(np.uint8), np.ones((2 * scale + 1, 2 * scale + 1), np.uint8))
    return strokes, rim.astype(bool)


def label_position(
    box: Rectangle, *, height: int, width: int, occupied: Iterable[Rectangle], canvas: np.ndarray
) -> Rectangle | None:
    """A place of `height` × `width` pixels beside `box` and in the picture; None if there is none.

    Tried in this order: above, below, right, left; those that overlap one of `occupied` are passed over.
    """
    rows, columns = canvas.shape[:2]
    x = min(max(box.left, 0), columns - width)
    y = min(max(box.top, 0), rows - height)
    spots = ((x, box.top - height), (x, box.bottom), (box.right, y), (box.left - width, y))
    occupied = list(occupied)
    for left, top in spots:
        place = Rectangle(left, top, left + width, top + height)
        inside = left >= 0 and top >= 0 and place.right <= columns and place.bottom <= rows
        if inside and all(place.gap(other) >= 0 for other in occupied):
            return place
    return None
