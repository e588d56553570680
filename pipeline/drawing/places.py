"""Zones, lines and masks of events, drawn thinly under everything else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from pipeline.drawing.primitives import Colour, draw_text, text_size

COLOURS: dict[str, Colour] = {"zone": (95, 205, 255), "line": (255, 190, 70), "mask": (140, 140, 140)}
"""R, G, B of the outlines."""
_HEAD = 6
"""Length of the arrow head at the end of a line, in units."""


@dataclass(frozen=True, eq=False)
class Outline:
    """A place as it is drawn."""

    name: str
    kind: Literal["zone", "line", "mask"]
    paths: tuple[np.ndarray, ...]
    """Each (N, 2) float64: x y in source pixels; closed unless it is a line."""


def draw_places(canvas: np.ndarray, outlines: Iterable[Outline], unit: int) -> None:
    """Draws outlines with their names, and an arrow head at the last point of a line.

    `canvas`, (H, W, 3) uint8 R, G, B, is changed; `unit` is the width of lines in pixels.
    """
    for outline in outlines:
        colour, closed = COLOURS[outline.kind], outline.kind != "line"
        # the pixel in column c covers c to c + 1
        paths = [np.floor(path).astype(np.int32) for path in outline.paths]
        limits = np.array([canvas.shape[1] - 1, canvas.shape[0] - 1], np.int32)
        paths = [np.minimum(path, limits) for path in paths]
        cv2.polylines(canvas, paths, closed, colour, thickness=max(1, unit // 2))
        if outline.kind == "line":
            _draw_head(canvas, outline.paths[0], colour, unit)
        if outline.kind != "mask" and paths:
            _draw_name(canvas, outline.name, paths[0], colour, unit)


def _draw_head(canvas: np.ndarray, path: np.ndarray, colour: Colour, unit: int) -> None:
    (ax, ay), (bx, by) = path[-2], path[-1]
    angle = math.atan2(by - ay, bx - ax)
    for turn in (-2.6, 2.6):  # backwards to both sides
        x, y = bx + _HEAD * unit * math.cos(angle + turn), by + _HEAD * unit * math.sin(angle + turn)
        cv2.line(canvas, (int(bx), int(by)), (round(x), round(y)), colour, max(1, unit // 2))


def _draw_name(canvas: np.ndarray, name: str, path: Sequence[np.ndarray], colour: Colour, unit: int) -> None:
    """Writes a name beside the first point, within the canvas, if it fits there."""
    words = [(name, colour)]
    height, width = text_size(words, scale=unit)
    x, y = (int(value) for value in path[0])
    left = min(max(x + 2 * unit, 0), canvas.shape[1] - width)
    top = min(max(y + 2 * unit, 0), canvas.shape[0] - height)
    if left >= 0 and top >= 0:
        draw_text(canvas, words, left=left, top=top, scale=unit)
