"""Where to put enlarged views of small targets: in a corner that hides none of them, and stays there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.drawing.primitives import Colour
from pipeline.structures.rectangle import Rectangle
from pipeline.structures.tracks import TrackState

_MIN_SIDE = 24
"""Pixels; a smaller view would show its frame more than its content."""


@dataclass(frozen=True)
class Mark:
    """One track as the picture shows it."""

    id: int
    box: Rectangle
    """The pixels that the track's box touches."""
    centre: tuple[float, float]
    """x, y of the box's centre, source pixels."""
    state: TrackState
    score: float
    label: int
    age: int
    colour: Colour


@dataclass(frozen=True)
class Inset:
    """One enlarged view."""

    mark: Mark
    place: Rectangle
    """Where it lies in the picture."""
    zoom: int
    """Display pixels per source pixel."""


@dataclass
class _Seat:
    """What is remembered of a track that has a view."""

    zoom: int
    place: Rectangle | None = None  # None: at the moment no place is free


class InsetLayout:
    """Chooses which tracks get a view, how much it is enlarged and where it goes, without restlessness.

    A track that has a view keeps it while it is believed and small; views that become free go to confirmed
    tracks by score and age. A view keeps its place until a target comes near, then moves to the place
    farthest from all targets; where none is free it is not shown.
    """

    def __init__(self, *, count: int, zoom: int, share: float):
        self._count, self._zoom, self._share = count, zoom, share
        self._seats: dict[int, _Seat] = {}

    def reset(self) -> None:
        """Forget all views."""
        self._seats.clear()

    def arrange(
        self, marks: Sequence[Mark], *, loose: Sequence[Rectangle], width: int, height: int, clearance: int
    ) -> list[Inset]:
        """Lay out the views for one frame.

        Args:
            marks: all tracks, none of which a view may hide.
            loose: detections without a track; avoided when a place is chosen, no reason to leave one.
            width: of the picture, pixels.
            height: of the picture, pixels.
            clearance: pixels to keep free around the boxes of tracks.
        """
        side = round(min(width, height) * self._share)
        if side < _MIN_SIDE:
            return []
        self._choose(marks, side)
        by_id = {mark.id: mark for mark in marks}
        tiers = _places(width=width, height=height, side=side, border=clearance)
        tracks = [mark.box for mark in marks]
        insets: list[Inset] = []
        for track_id, seat in self._seats.items():
            taken = [s.place for s in self._seats.values() if s is not seat and s.place is not None]
            free = [[place for place in tier if _distance(place, taken) >= 0] for tier in tiers]
            seat.place = _settle(seat.place, free, tracks=tracks, loose=loose, clearance=clearance)
            if seat.place is not None:
                insets.append(Inset(by_id[track_id], seat.place, seat.zoom))
        return insets

    def _choose(self, marks: Sequence[Mark], side: int) -> None:
        """Bring the seats up to date: who leaves, who stays, who is new."""
        seats: dict[int, _Seat] = {}
        believed = {mark.id: mark for mark in marks if mark.state != TrackState.TENTATIVE}
        for track_id, seat in self._seats.items():
            if track_id not in believed:
                continue
            seat.zoom = self._adjust(seat.zoom, _extent(believed[track_id].box), side)
            if seat.zoom >= 2:
                seats[track_id] = seat
        waiting = [m for m in believed.values() if m.state == TrackState.CONFIRMED and m.id not in seats]
        waiting.sort(key=lambda mark: (-mark.score, -mark.age, mark.id))
        for mark in waiting:
            zoom = self._fitting(1.2 * _extent(mark.box), side)
            if zoom >= 2 and len(seats) < self._count:
                seats[mark.id] = _Seat(zoom)
        self._seats = seats

    def _fitting(self, extent: float, side: int) -> int:
        """Largest zoom at which `extent` source pixels fit into a view of `side` pixels."""
        return min(self._zoom, int(side / extent))

    def _adjust(self, zoom: int, extent: float, side: int) -> int:
        """Keep the zoom while the target fits with some air around it, so that it does not pump."""
        return min(max(zoom, self._fitting(1.7 * extent, side)), self._fitting(1.05 * extent, side))


def _extent(box: Rectangle) -> float:
    return max(box.right - box.left, box.bottom - box.top, 1)


def _places(*, width: int, height: int, side: int, border: int) -> list[list[Rectangle]]:
    """The four corners, and the middles of those edges that are long enough."""
    right, bottom = width - border - side, height - border - side
    corners = [(right, border), (border, border), (right, bottom), (border, bottom)]
    middles = []
    if width >= 4 * side:
        middles += [((width - side) // 2, border), ((width - side) // 2, bottom)]
    if height >= 4 * side:
        middles += [(border, (height - side) // 2), (right, (height - side) // 2)]
    return [[Rectangle(x, y, x + side, y + side) for x, y in tier] for tier in (corners, middles)]


def _settle(
    old: Rectangle | None,
    tiers: Sequence[Sequence[Rectangle]],
    *,
    tracks: Sequence[Rectangle],
    loose: Sequence[Rectangle],
    clearance: int,
) -> Rectangle | None:
    """The place to stay at or to go to; None where every free one would hide a track."""
    if any(old in tier for tier in tiers) and _distance(old, tracks) >= clearance:
        return old
    # a view that was hidden comes back only when there is ample space, or it would blink
    needed = clearance if old is not None else 2 * clearance
    for tier in tiers:
        clear = [place for place in tier if _distance(place, tracks) >= needed]
        if clear:
            return max(clear, key=lambda place: _distance(place, [*tracks, *loose]))
    return None


def _distance(place: Rectangle, obstacles: Sequence[Rectangle]) -> float:
    return min((place.gap(box) for box in obstacles), default=math.inf)
