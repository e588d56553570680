"""Motion of the camera between successive frames, from points of the background.

Points of a key frame are followed into each later frame, so that errors do not add up, and a camera that
stands is known as such: the points stay where they are. A shift is fitted to most of them, or a shift with
rotation and zoom if that explains clearly more. Targets, which move on their own, are outvoted, because each
part of the frame has one point. Burnt-in text and the fixed pattern of the sensor stay where they are while
the camera moves: such places are remembered and left out of later key frames.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Literal

import cv2
import numpy as np

from pipeline.imaging.affine import IDENTITY, apply, compose, farthest, fit_motion, invert, squared_errors
from pipeline.imaging.sparse_flow import (
    MAX_WEIGHT,
    Contrast,
    SmallPictures,
    corners,
    follow,
    levels_at,
    smoothing,
)
from pipeline.stages.gaps import GapMarker
from pipeline.structures.frame import Frame, Gap

MIN_POINTS, MIN_SHARE = 8, 0.3
"""Minimum number of points that agree on the motion, and their minimum share of those that were followed."""
MIN_SPREAD = 0.7
"""Minimum sum of width and height of their surroundings, as fractions of the frame: a tree in a corner that
waves is no background."""
START_DISTANCE = 0.25
"""Distance in pixels of the small pictures from its usual place at which a standing camera moves."""
SURE_DISTANCE, UNANIMOUS = 0.6, 0.78
"""Up to the first of these distances it only moves if at least this share of the points are nearer to where
its motion puts them than to where they are if it stands: clouds may be most of a picture, and drift."""
SMALL_STEP = 0.5
"""Distance in these pixels up to which a step of a moving camera needs no vote."""
STOP_RANGE = 0.2
"""Maximum range of the places of a camera over `HISTORY` frames, in these pixels, that counts as standing."""
VOTE_CELL, VOTE_RATIO, MIN_VOTES, VOTE_MAJORITY = 12, 0.8, 6, 2.0
"""Cells of this side (in these pixels) vote for a motion that begins if it reduces their difference from the
key frame to this ratio, and against it if it raises the difference by as much; minimum number of votes for
it, and of their weight per weight against it."""
WIDE = 15
"""Side of the mean that is subtracted before: the shading of a lens stays where it is."""
HISTORY = 30
"""Number of recent frames whose places are compared."""
MAX_LOSS = 0.5
"""Fraction of the points of a key frame that must be left; otherwise there is a new key frame."""
MAX_SHIFT = 0.2
"""Maximum shift from the key frame, as a fraction of the side; one frame further there is a new key frame."""
MAX_BEND = 0.03
"""Maximum displacement of a corner by rotation and zoom, as a fraction of the side; likewise."""
KEY_FRAMES = 300
"""Maximum number of frames that are compared with one key frame, because scenes change slowly."""
MAX_JUMP = 6.0
"""Change of the offset between two frames, in levels of 8 bits of the small pictures, after which points are
followed again with the new offset, since Lucas and Kanade assume equal levels."""
NEAR, FORGETTING = 1.5, 0.7
"""Points are only looked for near where they are expected if the greatest recent distance of the motion from
the expected one is this at most, in these pixels; and the factor by which this distance decreases in each
frame."""
KEPT = 0.8
"""Minimum number of points that agree there, as a fraction of those of the last frame; otherwise they are
looked for farther away."""
FIXED_SHIFT, FIXED_RADIUS = 1.5, 0.4
"""A point is fixed in the sensor if it stays within this radius although the camera moved by this distance,
both in pixels of the small pictures."""
FIXED_SIDE = 9
"""Side of the square around such a point in which later key frames have none."""
FIXED_FRAMES = 900
"""Number of frames for which such a place is remembered."""
DECIMALS = 6
"""Decimals of the motion: a ten-thousandth of a pixel, and a short line in results.jsonl."""


class CameraMotion:
    """Attaches the motion of the camera to the frames of one source, in order.

    `Frame.motion` stays None while the camera stands: it begins to move when its place differs clearly from
    that of the last frames, and stands when its place has not changed for `HISTORY` frames. It is also None
    for the first frame, after discontinuities that make frames incomparable, while the shutter of the camera
    is closed, and where too few points agree, as in a sky without detail.
    """

    _key: KeyFrame | None
    _total: np.ndarray
    """(2, 3) motion from the first frame to the last."""
    _places: deque[np.ndarray]
    _moving: bool

    def __init__(self) -> None:
        self._small: SmallPictures | None = None
        self._size = 0, 0
        self._sigma = 0.0
        self._clock = 0  # number of frames
        self._restart()

    def __call__(self, frame: Frame) -> Frame:
        """Returns the frame with its motion set."""
        if frame.shutter_closed:
            return frame
        small = self._of_size(frame.width, frame.height)
        if not small.usable:
            return frame
        if frame.gap is not None and is_break(frame.gap):
            self._restart()
        self._clock += 1
        picture = small.reduce(frame.image, frame.levels or (0, 2**frame.bit_depth - 1))
        if self._key is None:
            self._sigma = smoothing(picture)
        smooth = Smooth(cv2.GaussianBlur(picture, (0, 0), self._sigma))
        step = self._find_step(smooth)
        if self._moving and step is not None and not self._is_plausible(step, smooth):
            step = None
        self._last = smooth
        if step is None:
            self._restart()
            self._places.append(self._corners)
        if self._key is None or self._key.is_outdated(self._clock):
            self._key = self._key_frame(smooth)
        if step is None or not self._moves(step, smooth):
            return frame
        return replace(frame, motion=np.round(small.in_frame(step), DECIMALS))

    def _of_size(self, width: int, height: int) -> SmallPictures:
        """Returns the reduction of frames of a size; another size than before starts anew."""
        if self._small is None or self._size != (width, height):
            self._small, self._size = SmallPictures(width, height), (width, height)
            columns, rows = self._small.size
            self._corners = np.array([(0, 0), (columns, 0), (0, rows), (columns, rows)], np.float64)
            self._fixed_until = np.zeros((rows, columns), np.int64)
            self._restart()
        return self._small

    def _restart(self) -> None:
        """Forgets the frames so far; what is fixed in the sensor stays known."""
        self._key = None
        self._total = IDENTITY
        self._places = deque(maxlen=HISTORY)
        self._moving = False

    def _key_frame(self, smooth: Smooth) -> KeyFrame | None:
        """Returns the key frame of a smooth picture; None if it has too few points."""
        key = KeyFrame(smooth, self._fixed_until > self._clock, self._clock)
        return key if len(key.points) >= MIN_POINTS else None

    def _find_step(self, smooth: Smooth) -> np.ndarray | None:
        """Returns the motion (2, 3) from the last frame to this smooth picture; None if it is not certain."""
        if self._key is None:
            return None
        step = self._key.step(smooth)
        if step is None and self._key.clock < self._clock - 1:  # the last frame may be nearer
            self._key = self._key_frame(self._last)
            step = None if self._key is None else self._key.step(smooth)
        if step is not None and self._key is not None:
            half = FIXED_SIDE // 2
            for x, y in self._key.remove_fixed(smooth).astype(int):
                rows, columns = (slice(max(n - half, 0), n + half + 1) for n in (y, x))
                self._fixed_until[rows, columns] = self._clock + FIXED_FRAMES
        return step

    def _is_plausible(self, step: np.ndarray, smooth: Smooth) -> bool:
        """Returns whether a motion from the last picture to this smooth one is small, or explains it."""
        if farthest(step, IDENTITY, self._corners) <= SMALL_STEP:
            return True
        return brings_nearer(step, self._last.detail, smooth.detail)

    def _moves(self, step: np.ndarray, smooth: Smooth) -> bool:
        """Returns whether the camera moves; `step` is the motion to this smooth picture."""
        self._total = compose(step, self._total)
        place = apply(self._total, self._corners)
        if self._moving:
            ranges = np.ptp(np.stack([*self._places, place]), axis=0)
            self._moving = len(self._places) < HISTORY or bool((ranges > STOP_RANGE).any())
        else:
            way = place - median(np.array(self._places))
            distance = math.sqrt(np.square(way).sum(axis=1).max())
            self._moving = bool(
                distance > START_DISTANCE
                and self._key
                and (distance > SURE_DISTANCE or self._key.agrees_on(way.mean(axis=0)) >= UNANIMOUS)
                and self._key.explains(smooth)
            )
        self._places.append(place)
        return self._moving


class Smooth:
    """A smooth picture, (h, w) float32."""

    def __init__(self, levels: np.ndarray):
        self.levels = levels

    @cached_property
    def detail(self) -> np.ndarray:
        """The picture without wide structures, (h, w) float32: equal whatever offset the levels have."""
        return self.levels - cv2.blur(self.levels, (WIDE, WIDE))


class KeyFrame:
    """A frame with whose points later ones are compared.

    Args:
        smooth: its picture by `SmallPictures.reduce`, smooth.
        blocked: where it must have no points, (h, w) bool.
        clock: number of the frame.
    """

    def __init__(self, smooth: Smooth, blocked: np.ndarray, clock: int):
        self.clock = clock
        self._smooth = smooth
        self._contrast = Contrast.of(smooth.levels)
        self._picture = self._contrast(smooth.levels)
        self.points, self._weights = corners(self._picture, blocked)
        """(N, 2) float32: x y of pixel indices."""
        self._levels = levels_at(smooth.levels, self.points)
        self._offset = 0.0  # of the levels of the last frame against this one
        self._pose = IDENTITY  # from this frame to the last one
        self._expected = [IDENTITY, IDENTITY]  # where the next frame may be: as the last one; moving on
        self._misses = [math.inf, math.inf]  # how far off these were of late
        rows, columns = smooth.levels.shape
        self._corners = np.array([(0, 0), (columns, 0), (0, rows), (columns, rows)], np.float64)
        self._agree = np.zeros(len(self.points), bool)
        self._pairs = self.points, self.points  # those that were followed: here and in the last frame
        self._agreed: int | None = None  # in the first frame after this one

    def step(self, smooth: Smooth) -> np.ndarray | None:
        """Returns the motion (2, 3) from the last frame to a smooth picture; None if it is not certain."""
        for _ in range(2):
            fitted = self._fit(smooth)
            if fitted is None:
                return None
            pose, agree = fitted
            levels = levels_at(smooth.levels, apply(pose, self.points[agree]))
            offset = float(median(levels - self._levels[agree]))
            jump, self._offset = abs(offset - self._offset), offset
            if jump * self._contrast.gain <= MAX_JUMP:  # otherwise the levels differed
                break
        self._agree = agree
        if self._agreed is None:
            self._agreed = int(np.count_nonzero(agree))
        step = compose(pose, invert(self._pose))
        missed = [farthest(pose, expected, self._corners) for expected in self._expected]
        self._misses = [
            now if before == math.inf else max(now, FORGETTING * before)
            for now, before in zip(missed, self._misses, strict=True)
        ]
        self._pose, self._expected = pose, [pose, compose(step, pose)]
        return step

    def _fit(self, smooth: Smooth) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns the motion from this frame to a smooth picture, and which points agree, (N,) bool."""
        picture, miss = self._contrast(smooth.levels, self._offset), min(self._misses)
        if miss <= NEAR:
            fitted = self._fit_from(self._expected[self._misses.index(miss)], picture, near=True)
            if fitted and np.count_nonzero(fitted[1]) >= KEPT * np.count_nonzero(self._agree):
                return fitted
        return self._fit_from(self._pose, picture)

    def _fit_from(
        self, guess: np.ndarray, picture: np.ndarray, *, near: bool = False
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns what `_fit` does, with points that are followed from where a motion puts them."""
        found, followed = follow(self._picture, picture, self.points, apply(guess, self.points), near=near)
        if np.count_nonzero(followed) < MIN_POINTS:
            return None
        weights = self._weights[followed]
        pose, agree = fit_motion(
            self.points[followed], found[followed], weights, last=self._pose, corners=self._corners
        )
        if np.count_nonzero(agree) < MIN_POINTS or weights[agree].sum() < MIN_SHARE * weights.sum():
            return None
        self._pairs = self.points[followed], found[followed]
        followed[followed] = agree
        places = self.points[followed]
        if np.sum((places.max(axis=0) - places.min(axis=0)) / self._corners[-1]) < MIN_SPREAD:
            return None
        return pose, followed

    def remove_fixed(self, smooth: Smooth) -> np.ndarray:
        """Removes the points that stay where they are although the camera moved; returns them, (K, 2).

        `smooth` is the picture of the last step.
        """
        shift = squared_errors(self._pose, self.points, self.points)
        suspects = np.flatnonzero(~self._agree & (shift >= FIXED_SHIFT**2))
        places = self.points[suspects]
        if not len(places):
            return places
        picture = self._contrast(smooth.levels, self._offset)
        found, followed = follow(self._picture, picture, places, places, near=True)
        fixed = suspects[followed & (np.linalg.norm(found - places, axis=1) <= FIXED_RADIUS)]
        removed, kept = self.points[fixed], np.ones(len(self.points), bool)
        kept[fixed] = False
        if len(removed):
            self.points, self._weights = self.points[kept], self._weights[kept]
            self._levels, self._agree = self._levels[kept], self._agree[kept]
        return removed

    def explains(self, smooth: Smooth) -> bool:
        """Returns whether the motion up to a smooth picture, that of the last step, makes it like this."""
        return brings_nearer(self._pose, self._smooth.detail, smooth.detail)

    def agrees_on(self, shift: np.ndarray) -> float:
        """Returns the share of the points that took part in the last step which want its last `shift` (2,).

        They are nearer to where the motion puts them than to where it would without this shift.
        """
        before, now = self._pairs
        without = self._pose - np.column_stack([np.zeros((2, 2)), shift])
        return float(np.mean(squared_errors(self._pose, before, now) < squared_errors(without, before, now)))

    def is_outdated(self, clock: int) -> bool:
        """Returns whether this frame has too little in common with the last one, whose number is `clock`."""
        if self._agreed is None:
            return False
        size, change = self._corners[-1], self._pose - IDENTITY
        shift = np.abs(apply(change, size / 2))  # that of the middle
        bent = np.abs(change[:, :2]) @ (size / 2)
        distant = bool((shift > MAX_SHIFT * size).any() or (bent > MAX_BEND * size).any())
        few = np.count_nonzero(self._agree) < MAX_LOSS * self._agreed
        return distant or bool(few) or clock - self.clock >= KEY_FRAMES


def median(values: np.ndarray) -> np.ndarray:
    """Returns the median of values (N, …) along the first axis; for few of them faster than that of numpy."""
    count = len(values)
    ordered = np.sort(values, axis=0)
    return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2


def brings_nearer(motion: np.ndarray, before: np.ndarray, now: np.ndarray) -> bool:
    """Returns whether a motion (2, 3) explains the difference of two pictures without wide structures.

    Both are `Smooth.detail`. The second one is moved back by it. Of the cells in which this makes a clear
    difference, those that come nearer to the first picture must outweigh the others: clouds, large targets
    and noise change few cells, or as many for the worse. Each counts by the difference, up to a few times the
    usual one.
    """
    size = before.shape[1::-1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    back = cv2.warpAffine(now, motion, size, flags=flags, borderValue=np.inf)
    cells = size[0] // VOTE_CELL, size[1] // VOTE_CELL
    stays, moves = (
        cv2.resize(cv2.absdiff(picture, before), cells, interpolation=cv2.INTER_AREA)
        for picture in (now, back)
    )
    inside = np.isfinite(moves)
    stays, moves = stays[inside], moves[inside]
    if not len(stays):
        return False
    most = MAX_WEIGHT * median(np.maximum(stays, moves))
    better, worse = moves < VOTE_RATIO * stays, stays < VOTE_RATIO * moves
    gain, loss = np.minimum(stays[better], most).sum(), np.minimum(moves[worse], most).sum()
    return bool(np.count_nonzero(better) >= MIN_VOTES and gain >= VOTE_MAJORITY * loss)


def marking(mark_gaps: GapMarker, mode: Literal["auto", "off"]) -> Callable[[Frame], Frame]:
    """Returns a function that sets gap and time of the next frame, and its motion unless `mode` is "off"."""
    if mode == "off":
        return mark_gaps
    follow_camera = CameraMotion()
    return lambda frame: follow_camera(mark_gaps(frame))


def is_break(gap: Gap) -> bool:
    """Returns whether the frames before and after a gap are not comparable."""
    return not gap.elapsed_known or gap.event in ("reconnect", "resize", "cut")
