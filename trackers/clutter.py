"""Clutter measured while a tracker runs: how often false alarms of each score occur, and where they recur.

Both are learned from the detections that belong to no confirmed track, and forget with time. They are small
arrays of fixed size, whatever the length of the run.
"""

from __future__ import annotations

import math

import numpy as np

MEMORY = 300.0
"""Frame intervals after which what was learned counts 1/e as much."""
BINS = 20
"""Number of intervals of the score in which false alarms are counted."""
PRIOR_FRAMES = 30.0
"""Weight of the density that is assumed before anything was learned, in frames."""
PRIOR_DENSITY, PRIOR_DECAY, PRIOR_FLOOR = 6.0, 8.0, 0.1
"""That density for scores near 0, how fast it decays with the score, and its floor, in false alarms per frame
and unit of score."""
PRIOR_COUNT = 200.0
"""Weight of the distribution of their scores that is assumed before, in detections."""
FAINTEST = 0.05
"""Score from which detectors report detections."""
NEIGHBOURS = 0.1
"""Detections of one frame whose scores differ by at most this much tell of the same burst of clutter."""
PARTS = 12
"""Rows and columns of parts of the picture in `Crowds`."""
CROWD_MEMORY, CROWD_PRIOR = 60.0, 5.0
"""Frame intervals after which what `Crowds` learned counts 1/e as much, and the weight of an even
distribution, in detections for each part."""
CELLS = 256
"""Rows and columns of a `PlaceMap`."""
MIN_CELL = 3.0
"""Minimum side of a cell of a `PlaceMap` in pixels."""
MARGIN = 1.2
"""The side of a `PlaceMap` as a multiple of the longer side of the frame, at least."""
HALF_KNOWN = 10.0
"""Number of detections near a place after which persistent clutter there is as probable as none."""

_CENTRES = (np.arange(BINS) + 0.5) / BINS
_PRIOR_SHARE = PRIOR_DECAY * np.exp(-PRIOR_DECAY * (_CENTRES - FAINTEST))


class ScoreDensity:
    """Density of false alarms by score: their expected number per frame and unit of score.

    It is a mean over about `MEMORY` frames, or that of the current frame if it is higher. Scores need not be
    calibrated: only how often they occur matters.
    """

    def __init__(self) -> None:
        self._prior = PRIOR_DENSITY * np.exp(-PRIOR_DECAY * _CENTRES) + PRIOR_FLOOR
        self.clear()

    def clear(self) -> None:
        """Forgets what was learned."""
        self._sum = np.zeros(BINS)
        self._frames = 0.0
        self._current = np.zeros(0)

    def observe(self, scores: np.ndarray, elapsed: float) -> None:
        """Learns the `scores` (M,) of one frame, `elapsed` frame intervals after the one before.

        They include those of targets without a confirmed track, which are few.
        """
        kept = math.exp(-elapsed / MEMORY)
        bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
        counts = np.bincount(bins, minlength=BINS) * float(BINS)
        counts = np.concatenate([counts[:1], counts, counts[-1:]])
        smooth = (counts[:-2] + 2 * counts[1:-1] + counts[2:]) / 4
        self._sum = self._sum * kept + smooth
        self._frames = self._frames * kept + 1
        self._current = np.sort(scores)

    def at(self, scores: np.ndarray) -> np.ndarray:
        """Returns the density (K,) at the `scores` (K,) of detections of the frame observed last.

        In the current frame a detection does not count itself, and the number of the others is lowered by its
        standard deviation, so that two or three detections are no burst.
        """
        weights = PRIOR_FRAMES * self._prior + self._sum
        mean = np.interp(scores, _CENTRES, weights / (PRIOR_FRAMES + self._frames))
        low, high = np.maximum(scores - NEIGHBOURS, 0), np.minimum(scores + NEIGHBOURS, 1)
        others = np.searchsorted(self._current, high, "right") - np.searchsorted(self._current, low) - 1
        others = np.maximum(others, 0)
        return np.maximum(mean, (others - np.sqrt(others)) / (high - low))

    def log_share(self, scores: np.ndarray) -> np.ndarray:
        """Returns the logarithm of the share (K,) of false alarms with `scores` (K,), per unit of score.

        What is assumed before anything was learned counts like `PRIOR_COUNT` detections. Never less is
        returned: many false alarms of low scores do not make those of high scores rare.
        """
        share = (PRIOR_COUNT * _PRIOR_SHARE + self._sum) / (PRIOR_COUNT + self._sum.mean())
        return np.interp(scores, _CENTRES, np.log(np.maximum(share, _PRIOR_SHARE)))


class Crowds:
    """Parts of the picture with more false alarms than others, such as trees below a clear sky.

    The picture is divided into `PARTS`×`PARTS` parts.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forgets what was learned."""
        self._hits = np.zeros((PARTS, PARTS))
        self._size = np.ones(2)

    def fit(self, width: int, height: int) -> None:
        """Adapts the parts to frames of a size in pixels."""
        self._size = np.array([width, height], dtype=np.float64)

    def observe(self, centres: np.ndarray, elapsed: float) -> None:
        """Learns the `centres` (M, 2), x y in pixels, of detections of one frame."""
        self._hits *= math.exp(-elapsed / CROWD_MEMORY)
        columns, rows = self._parts(centres)
        np.add.at(self._hits, (rows, columns), 1)

    def at(self, points: np.ndarray) -> np.ndarray:
        """Returns how many times as dense as on average false alarms are at `points` (K, 2), at least 1.

        A detection does not count itself; what is assumed before anything was learned counts like
        `CROWD_PRIOR` detections in each part.
        """
        hits = np.maximum(self._hits - 1, 0) + CROWD_PRIOR
        columns, rows = self._parts(points)
        return np.maximum(hits[rows, columns] / hits.mean(), 1)

    def _parts(self, points: np.ndarray) -> np.ndarray:
        """Returns columns and rows (2, K) of the parts with `points` (K, 2)."""
        return np.clip(points / self._size * PARTS, 0, PARTS - 1).astype(np.int64).T


class PlaceMap:
    """Places where detections recur without becoming a track, such as lamps, hot pixels and burnt-in text.

    A grid of `CELLS`×`CELLS` cells, repeated without end in both directions, so that the picture may move
    over it: a place has the cell of all places that lie a multiple of its side further.
    """

    def __init__(self) -> None:
        self._cell = MIN_CELL
        self.clear()

    def clear(self) -> None:
        """Forgets all places."""
        self._hits = np.zeros((CELLS, CELLS), np.float32)
        self._used = False

    def fit(self, width: int, height: int) -> None:
        """Adapts the size of the cells to frames of a size in pixels; forgets all places if it changes."""
        cell = max(MIN_CELL, MARGIN * max(width, height) / CELLS)
        if cell != self._cell:
            self._cell = cell
            self.clear()

    def forget(self, elapsed: float) -> None:
        """Lets `elapsed` frame intervals pass."""
        if self._used:
            self._hits *= np.float32(math.exp(-elapsed / MEMORY))

    def add(self, points: np.ndarray) -> None:
        """Counts detections at `points` (K, 2) x y in pixels."""
        columns, rows = self._cells(points)
        np.add.at(self._hits, (rows % CELLS, columns % CELLS), 1)
        self._used = True

    def probability(self, points: np.ndarray) -> np.ndarray:
        """Returns the probability (K,) of persistent clutter at `points` (K, 2) x y in pixels."""
        hits = np.zeros(len(points))
        if not self._used:
            return hits
        columns, rows = self._cells(points)
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                hits += self._hits[(rows + down) % CELLS, (columns + right) % CELLS]
        return hits / (hits + HALF_KNOWN)

    def _cells(self, points: np.ndarray) -> np.ndarray:
        """Returns columns and rows (2, K) of cells, before they are repeated."""
        return np.floor(points / self._cell).astype(np.int64).T
