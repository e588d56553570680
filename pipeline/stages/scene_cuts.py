"""Cuts in the picture: all of it is another from one frame to the next, as where recordings were joined.

Frames are compared as small pictures of block means, on the CPU. A cut is told from what happens to one scene
by three measures: one hardly sees gain, offset and what covers a part of the picture, one not a scene that is
restless anyway, one not a camera that moves.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

import cv2
import numpy as np

COLUMNS, ROWS = 40, 32
"""Blocks across and down the picture."""
SAMPLES = 16
"""Pixels of a block, across and down, that its mean is taken of at least, where it has more."""
CUT = 0.35
"""Least change of a cut that no movement explains. In the 283 clips of drone-ir none lies between 0.25 and
0.58: what is below stays in one view, also where recordings were joined, what is above goes to another."""
RESTLESS = 4.0
"""Times the usual change of the last frames, in grey levels, that a cut exceeds: noise and a moving camera
change every frame."""
RECENT, LEAST_RECENT = 15, 3
"""Frames whose change is what is usual, and how many must be known."""
REACH = 0.2
"""How far the picture may move from frame to frame, as a share of its width and height."""
DETAIL = 2.0
"""Blocks; what is wider is left out where moved pictures are compared: a light ground under a dark sky is in
many scenes."""
FAINT = 3.0
"""Grey levels; fainter contrasts count less."""


class SceneCutDetector:
    """Looks at the frames of one source in their order."""

    def __init__(self):
        self._last: np.ndarray | None = None
        self._changes: deque[float] = deque(maxlen=RECENT)

    def __call__(self, image: np.ndarray) -> bool:
        """Whether a cut lies between the frame before and this one, (H, W) or (H, W, 3) of any size."""
        last, self._last = self._last, block_means(image)
        if last is None:
            return False
        change = float(np.median(np.abs(self._last - last)))
        usual = median(self._changes) if len(self._changes) >= LEAST_RECENT else math.inf
        self._changes.append(change)
        if change <= max(RESTLESS * usual, 1):  # of one grey level: no more than rounding
            return False
        found = (
            normalised_difference(last, self._last) * (1 - shift_tolerant_correlation(last, self._last)) > CUT
        )
        if found:
            self._changes.clear()
        return found

    def restart(self) -> None:
        """The next frame is the first of a sequence."""
        self._last = None
        self._changes.clear()


def block_means(image: np.ndarray) -> np.ndarray:
    """The mean of each block in grey levels, (ROWS, COLUMNS) float32, less the median of all."""
    step = max(min(image.shape[0] // (SAMPLES * ROWS), image.shape[1] // (SAMPLES * COLUMNS)), 1)
    taken = image[::step, ::step].astype(np.float32)
    small = cv2.resize(taken, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA)
    grey = small if small.ndim == 2 else small.mean(axis=2)
    return grey - np.median(grey)


def normalised_difference(before: np.ndarray, now: np.ndarray) -> float:
    """Median change of the blocks, each picture in its own spread: a gain makes no difference."""
    first, second = (picture / max(float(np.median(np.abs(picture))), FAINT) for picture in (before, now))
    return float(np.median(np.abs(second - first)))


def shift_tolerant_correlation(before: np.ndarray, now: np.ndarray) -> float:
    """Correlation of the details of two pictures, one of them moved by up to `REACH` to where it fits best.

    −1 to 1; of a picture without any details 0.
    """
    first, second = _details(before), _details(now)
    rows, columns = round(REACH * ROWS), round(REACH * COLUMNS)
    middle = second[rows:-rows, columns:-columns]
    if not middle.any():  # OpenCV takes nothing for like everything
        return 0.0
    return float(cv2.matchTemplate(first, middle, cv2.TM_CCOEFF_NORMED).max())


def _details(picture: np.ndarray) -> np.ndarray:
    """The picture less its wide structures, of the same contrast everywhere."""
    fine = picture - cv2.GaussianBlur(picture, (0, 0), DETAIL)
    contrast = np.sqrt(cv2.GaussianBlur(fine * fine, (0, 0), DETAIL))
    return fine / (contrast + FAINT)
