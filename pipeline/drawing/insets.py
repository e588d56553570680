"""Layout of insets, the enlarged views of small targets: which targets, what zoom, which corner.

An inset hides no target and seldom moves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.drawing.primitives import Colour
from pipeline.structures.rectangle import Rectangle
from pipeline.structures.tracks import TrackState

_MIN_SIDE = 24
"""Minimum side of an inset in pixels; a smaller one would show little more than its frame."""


@dataclass(frozen=True)
class Mark:
    """A track as it is drawn."""

    id: int
    box: Rectangle
    """The pixels that the box of the track touches."""
    centre: tuple[float, float]
    """x, y of the centre of the box in source pixels."""
    state: TrackState
    score: float
    label: int
    age: int
    colour: Colour


@dataclass(frozen=True)
class Inset:
    """An enlarged view of a target."""

    mark: Mark
    position: Rectangle
    """The pixels of the image that it covers."""
    zoom: int
    """Display pixels per source pixel."""


@dataclass
class _InsetSlot:
    """The inset of a track over several frames."""

    zoom: int
    position: Rectangle | None = None
    """None while no position is free."""


class InsetLayout:
    """Chooses which tracks have an inset, its zoom and its position, all with hysteresis.

    A track keeps its inset while it is confirmed or coasting, and small; free insets go to confirmed tracks,
    by score and age. An inset keeps its position until a target comes near, then moves to the position
    farthest from all targets; if none is free it is hidden.

    Args:
        count: maximum number of insets.
        zoom: maximum display pixels per source pixel.
        share: side of an inset as a share of the shorter side of the image.
    """

    def __init__(self, *, count: int, zoom: int, share: float):
        self._count, self._zoom, self._share = count, zoom, share
        self._slots: dict[int, _InsetSlot] = {}  # by track id

    def reset(self) -> None:
        """Forgets all insets."""
        self._slots.clear()

    def arrange(
        self,
        marks: Sequence[Mark],
        *,
        untracked: Sequence[Rectangle],
        width: int,
        height: int,
        clearance: int,
    ) -> list[Inset]:
        """Returns the insets of one frame.

        Args:
            marks: all tracks; an inset hides none of them.
            untracked: detections without a track; a new position avoids them, but they move no inset.
            width: width of the image in pixels.
            height: height of the image in pixels.
            clearance: minimum distance in pixels between an inset and the box of a track.
        """
        side = round(min(width, height) * self._share)
        if side < _MIN_SIDE:
            return []
        self._assign_slots(marks, side)
        by_id = {mark.id: mark for mark in marks}
        tiers = _candidate_positions(width=width, height=height, side=side, border=clearance)
        tracks = [mark.box for mark in marks]
        insets: list[Inset] = []
        for track_id, slot in self._slots.items():
            others = [other for other in self._slots.values() if other is not slot]
            taken = [other.position for other in others if other.position is not None]
            free = [[position for position in tier if _distance(position, taken) >= 0] for tier in tiers]
            slot.position = _choose_position(
                slot.position, free, tracks=tracks, untracked=untracked, clearance=clearance
            )
            if slot.position is not None:
                insets.append(Inset(by_id[track_id], slot.position, slot.zoom))
        return insets

    def _assign_slots(self, marks: Sequence[Mark], side: int) -> None:
        """Removes the slots of tracks that are gone or too large, and gives free ones to other tracks."""
        slots: dict[int, _InsetSlot] = {}
        established = {mark.id: mark for mark in marks if mark.state != TrackState.TENTATIVE}
        for track_id, slot in self._slots.items():
            if track_id not in established:
                continue
            slot.zoom = self._adjusted_zoom(slot.zoom, _extent(established[track_id].box), side)
            if slot.zoom >= 2:
                slots[track_id] = slot
        waiting = [m for m in established.values() if m.state == TrackState.CONFIRMED and m.id not in slots]
        waiting.sort(key=lambda mark: (-mark.score, -mark.age, mark.id))
        for mark in waiting:
            zoom = self._max_zoom(1.2 * _extent(mark.box), side)
            if zoom >= 2 and len(slots) < self._count:
                slots[mark.id] = _InsetSlot(zoom)
        self._slots = slots

    def _max_zoom(self, extent: float, side: int) -> int:
        """Returns the largest zoom at which `extent` source pixels fit into an inset of `side` pixels."""
        return min(self._zoom, int(side / extent))

    def _adjusted_zoom(self, zoom: int, extent: float, side: int) -> int:
        """Returns the old zoom while the target fits with some margin, so that it does not oscillate."""
        return min(max(zoom, self._max_zoom(1.7 * extent, side)), self._max_zoom(1.05 * extent, side))


def _extent(box: Rectangle) -> float:
    return max(box.right - box.left, box.bottom - box.top, 1)


def _candidate_positions(*, width: int, height: int, side: int, border: int) -> list[list[Rectangle]]:
    """Returns the corners, then the middles of the edges that are long enough, as tiers of preference."""
    right, bottom = width - border - side, height - border - side
    corners = [(right, border), (border, border), (right, bottom), (border, bottom)]
    middles = []
    if width >= 4 * side:
        middles += [((width - side) // 2, border), ((width - side) // 2, bottom)]
    if height >= 4 * side:
        middles += [(border, (height - side) // 2), (right, (height - side) // 2)]
    return [[Rectangle(x, y, x + side, y + side) for x, y in tier] for tier in (corners, middles)]


def _choose_position(
    old: Rectangle | None,
    tiers: Sequence[Sequence[Rectangle]],
    *,
    tracks: Sequence[Rectangle],
    untracked: Sequence[Rectangle],
    clearance: int,
) -> Rectangle | None:
    """Returns the old position or a better one; None if every free position would hide a track."""
    if old is not None and any(old in tier for tier in tiers) and _distance(old, tracks) >= clearance:
        return old
    # a hidden inset needs more space to appear again, or it would flicker
    needed = clearance if old is not None else 2 * clearance
    for tier in tiers:
        clear = [position for position in tier if _distance(position, tracks) >= needed]
        if clear:
            return max(clear, key=lambda position: _distance(position, [*tracks, *untracked]))
    return None


def _distance(position: Rectangle, obstacles: Sequence[Rectangle]) -> float:
    """Returns the distance in pixels to the nearest obstacle; negative if they overlap, inf without any."""
    return min((position.distance(box) for box in obstacles), default=math.inf)
