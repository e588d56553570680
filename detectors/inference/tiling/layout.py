"""Tiles and regions of frames: where they lie, and how their detections become those of the frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.structures.boxes import to_centres
from pipeline.structures.detections import Detections
from pipeline.structures.rectangle import Rectangle

MIN_DISTANCE = 3.0
"""Pixels up to which centres in two tiles are those of one target, however small it is."""
DIAGONALS = 0.25
"""Distance of such centres as a fraction of the sum of the diagonals of both boxes, if that is more."""


@dataclass(frozen=True)
class Region:
    """A part of the frame in which targets are looked for."""

    rectangle: Rectangle
    """Its bounding rectangle, within the frame."""
    corners: tuple[tuple[float, float], ...] = ()
    """Corners of a polygon in pixels; empty for the whole rectangle."""

    def contains(self, centres: np.ndarray) -> np.ndarray:
        """Returns which of the points (N, 2) x y lie in the region: (N,) bool.

        A ray from a point to the left crosses an odd number of sides of a polygon that holds it.
        """
        x, y = centres[:, 0], centres[:, 1]
        if not self.corners:
            left, top, right, bottom = self.rectangle
            return (x >= left) & (x < right) & (y >= top) & (y < bottom)
        inside = np.zeros(len(centres), bool)
        for (ax, ay), (bx, by) in zip(self.corners[-1:] + self.corners[:-1], self.corners, strict=True):
            if ay != by:
                inside ^= ((ay > y) != (by > y)) & (x < ax + (bx - ax) * (y - ay) / (by - ay))
        return inside


def split(rectangle: Rectangle, tile: tuple[int, int], overlap: int) -> list[Rectangle]:
    """Returns tiles of (width, height) that cover a rectangle, row by row.

    Neighbours share `overlap` pixels or more. All have the same size, that of the rectangle along an axis
    along which it is no longer than a tile.
    """
    columns = _spans(rectangle.left, rectangle.right, tile[0], overlap)
    rows = _spans(rectangle.top, rectangle.bottom, tile[1], overlap)
    return [Rectangle(left, top, right, bottom) for top, bottom in rows for left, right in columns]


def _spans(start: int, stop: int, length: int, overlap: int) -> list[tuple[int, int]]:
    """Returns the spans of `length` that cover start … stop, evenly placed."""
    whole = stop - start
    if whole <= length:
        return [(start, stop)]
    count = -(-(whole - overlap) // (length - overlap))
    places = [start + (whole - length) * number // (count - 1) for number in range(count)]
    return [(place, place + length) for place in places]


def merge(
    found: Sequence[Detections], tiles: Sequence[Rectangle], regions: Sequence[Region], size: tuple[int, int]
) -> Detections:
    """Returns the detections of all tiles as those of the frame, best score first.

    A target that several tiles show is there once: centres that are nearer than `MIN_DISTANCE` or a fraction
    of their boxes are those of one target, and it is taken from the tile in which it lies deepest. A
    detection near the edge of a tile is left out if another tile shows its place better, and nothing there.

    Args:
        found: detections of each tile in its own pixels.
        tiles: where the tiles lie.
        regions: where detections are wanted; a centre has to lie in one of them.
        size: (width, height) of the frame.
    """
    boxes = [one.boxes + np.tile(tile[:2], 2) for one, tile in zip(found, tiles, strict=True)]
    labels = np.concatenate([one.labels for one in found])
    whole = Detections(np.concatenate(boxes), np.concatenate([one.scores for one in found]), labels)
    source = np.repeat(np.arange(len(tiles)), [len(one) for one in found])
    centres = to_centres(whole.boxes)[:, :2]
    kept = np.any([region.contains(centres) for region in regions], axis=0)
    if len(tiles) > 1 and len(whole):
        kept &= _once(whole, centres, source, _depths(centres, tiles, size))
    chosen = np.flatnonzero(kept)
    return whole[chosen[np.argsort(-whole.scores[chosen], kind="stable")]]


def _depths(centres: np.ndarray, tiles: Sequence[Rectangle], size: tuple[int, int]) -> np.ndarray:
    """Returns how deep each point lies in each tile: (N, tiles), negative outside.

    It is the distance to the nearest edge; edges of the frame do not count.
    """
    edges = np.array(tiles, np.float64)
    low, high = edges[:, :2].copy(), edges[:, 2:].copy()
    low[low <= 0] = -np.inf
    high[high >= size] = np.inf
    inside = np.minimum(centres[:, None] - low, high - centres[:, None])
    return np.minimum(inside.min(axis=2), float(max(size)))


def _once(whole: Detections, centres: np.ndarray, source: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """Returns which detections are kept, so that each target is there once: (N,) bool.

    `source` is the tile of each detection, `depths` (N, tiles) how deep its centre lies in each tile.
    """
    own = depths[np.arange(len(whole)), source]
    reach = np.linalg.norm(whole.boxes[:, 2:] - whole.boxes[:, :2], axis=1)
    kept = np.ones(len(whole), bool)
    shared = np.flatnonzero((depths > -np.maximum(MIN_DISTANCE, reach)[:, None]).sum(axis=1) > 1)
    taken = np.zeros(len(whole), bool)
    margin = np.maximum(MIN_DISTANCE, 2 * DIAGONALS * reach)  # how far tiles may disagree about its place
    order = shared[np.lexsort((source[shared], -whole.scores[shared], -own[shared]))]
    for row in order:
        if taken[row]:
            continue
        taken[row] = True
        left = shared[~taken[shared] & (source[shared] != source[row])]
        distances = np.linalg.norm(centres[left] - centres[row], axis=1)
        near = distances <= np.maximum(MIN_DISTANCE, DIAGONALS * (reach[left] + reach[row]))
        left, distances = left[near], distances[near]
        others: set[int] = set()
        for place in np.lexsort((distances, whole.labels[left] != whole.labels[row])):
            if source[left[place]] not in others:  # of each other tile one
                others.add(int(source[left[place]]))
                taken[left[place]], kept[left[place]] = True, False
                margin[row] = max(margin[row], distances[place])
    return kept & (own + margin >= depths.max(axis=1))
