"""Zones, lines and masks in the pixels of a source: which points lie in them, and which moves cross them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np

from pipeline.config.events_section import ALL_MASKS, EventsConfig, RuleConfig
from pipeline.imaging.image_files import read_image
from pipeline.structures.frame import SourceInfo
from pipeline.system.errors import SourceError, UsageError

Point = tuple[float, float]
"""x and y."""


def contains(corners: Sequence[Point], point: Point) -> bool:
    """Returns whether a point lies in a polygon.

    A ray from the point to the left crosses an odd number of sides. Of two polygons that share a side exactly
    one holds a point on it.
    """
    x, y = point
    inside = False
    for (ax, ay), (bx, by) in pairwise([corners[-1], *corners]):
        if (ay > y) != (by > y) and x < ax + (bx - ax) * (y - ay) / (by - ay):
            inside = not inside
    return inside


def crossing_side(points: Sequence[Point], start: Point, end: Point) -> int:
    """Returns how a straight move crosses a line of several points.

    A point on the line counts as right of it, so that a move up to the line and the one away from it are
    together one crossing, or none if it turns back.

    Args:
        points: the line, two or more points.
        start, end: ends of the move.

    Returns:
        1 if the move leads to the right side of somebody who walks along the line in the picture, -1 if it
        leads to the left side, 0 if it does not cross the line or ends on the side where it began.
    """
    total = 0
    for a, b in pairwise(points):
        was, now = _is_right(a, b, start), _is_right(a, b, end)
        if was != now and _is_right(start, end, a) != _is_right(start, end, b):
            total += 1 if now else -1
    return (total > 0) - (total < 0)


def _is_right(a: Point, b: Point, point: Point) -> bool:
    """Returns whether a point lies to the right of the way from a to b in the picture, or on it."""
    return _turn(a, b, point) >= 0


def _turn(a: Point, b: Point, c: Point) -> float:
    """Returns twice the area of a triangle; positive if its corners go clockwise in the picture."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def area(corners: Sequence[Point]) -> float:
    """Returns the area of a polygon in the square of the units of its corners."""
    return abs(sum(ax * by - bx * ay for (ax, ay), (bx, by) in pairwise([corners[-1], *corners]))) / 2


def crosses_itself(corners: Sequence[Point]) -> bool:
    """Returns whether two sides of a polygon that are no neighbours cross each other."""
    sides = list(pairwise([*corners, corners[0]]))
    for (i, (a, b)), (k, (c, d)) in combinations(enumerate(sides), 2):
        if k - i in (1, len(sides) - 1):
            continue
        if _turn(a, b, c) * _turn(a, b, d) < 0 and _turn(c, d, a) * _turn(c, d, b) < 0:
            return True
    return False


@dataclass(frozen=True)
class Places:
    """The zones, lines and masks of one source that its rules use, in pixels."""

    zones: Mapping[str, tuple[Point, ...]]
    """Corners by name."""
    lines: Mapping[str, tuple[Point, ...]]
    """Points by name."""
    masks: Mapping[str, tuple[Point, ...] | np.ndarray]
    """Corners, or (H, W) bool that is True on ignored pixels, by name."""

    def is_masked(self, names: Sequence[str], point: Point) -> bool:
        """Returns whether a point lies in one of the masks."""
        return any(_covers(self.masks[name], point) for name in names)

    def zone_of(self, names: Sequence[str], point: Point) -> str | None:
        """Returns the first of the zones that holds a point; None if none does."""
        return next((name for name in names if contains(self.zones[name], point)), None)

    def crossed(self, names: Sequence[str], start: Point, end: Point, *, side: int) -> str | None:
        """Returns the first of the lines that a move crosses to a side: 1 right, -1 left, 0 either."""
        for name in names:
            found = crossing_side(self.lines[name], start, end)
            if found and found in (side or found,):
                return name
        return None


def _covers(mask: tuple[Point, ...] | np.ndarray, point: Point) -> bool:
    if not isinstance(mask, np.ndarray):
        return contains(mask, point)
    row, column = int(np.floor(point[1])), int(np.floor(point[0]))
    inside = 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]
    return inside and bool(mask[row, column])


def masks_of(rule: RuleConfig, config: EventsConfig) -> tuple[str, ...]:
    """Returns the names of the masks that a rule uses."""
    return tuple(config.masks) if ALL_MASKS in rule.masks else rule.masks


def resolve_places(config: EventsConfig, rules: Sequence[RuleConfig], info: SourceInfo) -> Places:
    """Returns the places that the rules of a source use.

    Raises UsageError if one of them does not fit the frames of the source.
    """
    zones = dict.fromkeys(name for rule in rules for name in rule.zones)
    lines = dict.fromkeys(name for rule in rules for name in rule.lines)
    masks = dict.fromkeys(name for rule in rules for name in masks_of(rule, config))
    return Places(
        {name: _polygon(f"zones.{name}", config.zones[name], config, info) for name in zones},
        {name: _line(f"lines.{name}", config.lines[name], config, info) for name in lines},
        {name: _mask(name, config, info) for name in masks},
    )


def _points(key: str, points: Sequence[Point], config: EventsConfig, info: SourceInfo) -> tuple[Point, ...]:
    """Returns the points of a place in pixels. Raises UsageError for those outside of the frame."""
    shares = config.units == "shares"
    size = (info.width, info.height)
    limits = (1, 1) if shares else size
    for point in points:
        if not all(0 <= value <= limit for value, limit in zip(point, limits, strict=True)):
            inside = "0 to 1 (units = shares)" if shares else f"the {size[0]}x{size[1]} pixels of {info.name}"
            remedy = "" if shares or max(point) > 1 else "; or set events.units = shares"
            raise UsageError(f"events.{key} has the point {list(point)}, expected points in {inside}{remedy}")
    scale = size if shares else (1, 1)
    scaled = [(float(x) * scale[0], float(y) * scale[1]) for x, y in points]
    return tuple(point for place, point in enumerate(scaled) if not place or point != scaled[place - 1])


def _line(key: str, points: Sequence[Point], config: EventsConfig, info: SourceInfo) -> tuple[Point, ...]:
    """Returns the points of a line in pixels. Raises UsageError if they are all the same."""
    found = _points(key, points, config, info)
    if len(found) < 2:
        raise UsageError(f"events.{key} has no length, expected two or more different points")
    return found


def _polygon(key: str, points: Sequence[Point], config: EventsConfig, info: SourceInfo) -> tuple[Point, ...]:
    """Returns the corners of an area in pixels. Raises UsageError for corners that enclose none."""
    corners = _points(key, points, config, info)
    if corners[0] == corners[-1]:
        corners = corners[:-1]
    if crosses_itself(corners):
        raise UsageError(f"events.{key} has sides that cross, expected corners in their order around an area")
    if len(corners) < 3 or area(corners) < 1:
        small = "shares" if config.units == "pixels" and max(map(max, points)) <= 1 else ""
        remedy = f"; or set events.units = {small}" if small else ""
        raise UsageError(f"events.{key} encloses less than a pixel, expected the corners of an area{remedy}")
    return corners


def _mask(name: str, config: EventsConfig, info: SourceInfo) -> tuple[Point, ...] | np.ndarray:
    """Returns a mask: corners, or the light pixels of an image. Raises UsageError if it does not fit."""
    given = config.masks[name]
    if not isinstance(given, str):
        return _polygon(f"masks.{name}", given, config, info)
    try:
        picture = read_image(Path(given))
    except SourceError as error:
        raise UsageError(f"events.masks.{name}: {error}") from error
    levels = picture if picture.ndim == 2 else picture.max(axis=2)
    mask = levels > int(levels.max()) / 2
    if mask.shape != (info.height, info.width):
        found, expected = f"{mask.shape[1]}x{mask.shape[0]}", f"{info.width}x{info.height}"
        raise UsageError(f"events.masks.{name} = '{given}' is {found}, expected {expected} as {info.name}")
    if mask.all() or not levels.any():
        raise UsageError(
            f"events.masks.{name} = '{given}' is of one colour; paint ignored areas white on black"
        )
    return mask
