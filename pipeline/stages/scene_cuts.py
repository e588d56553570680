"""Detection of scene cuts: the whole image changes from one frame to the next, as at joined recordings.

Frames are compared as small images of block means, on the CPU. Three tests decide, each blind to one
confounder: the normalised block change (gain, offset, partial occlusion), the change relative to the recent
median (noise and constant motion), and a shift-tolerant correlation (camera motion).

An uncooled camera closes its shutter for about half a second every few minutes. A picture without detail
that follows a scene is taken for the shutter and is no scene: the next picture with detail is compared with
the last one before it.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

import cv2
import numpy as np

from pipeline.imaging.intensity_scaling import normal_sigma

COLUMNS, ROWS = 40, 32
"""Blocks across and down the image."""
SAMPLES = 16
"""Minimum number of pixels sampled across and down each block, if it has as many."""
CUT_THRESHOLD = 0.35
"""Minimum change at a cut that no shift explains. In the 283 clips of drone-ir none lies between 0.25 and
0.58: changes below stay in one view, also at joined recordings, and changes above lead to another view."""
NOISE_FACTOR = 4.0
"""Minimum change at a cut in grey levels, as a multiple of the median change of recent frames, because noise
and camera motion change every frame."""
HISTORY, MIN_HISTORY = 15, 3
"""Maximum and minimum number of recent frames for that median."""
MAX_SHIFT = 0.2
"""Maximum shift between frames, as a fraction of width and height."""
DETAIL_SIGMA = 2.0
"""Sigma in blocks of the high-pass filter before shifted images are correlated: many scenes share wide
structures such as bright ground under a dark sky."""
MIN_CONTRAST = 3.0
"""Grey levels; weaker contrasts are attenuated."""
MAX_BLANK_RANGE = 0.2
"""Maximum range of the block means of a picture without detail, as a fraction of that of the scene before it.
In drone-ir even plain skies have a range of 100 grey levels, a shutter has a few."""
MAX_BLANK_DEVIATION, MAX_BLANK_SHARE = 8.0, 0.1
"""Maximum deviation of any pixel of such a picture from its surroundings: in standard deviations of its
noise, or as a fraction of the range of the scene if that is more. Even a small target exceeds both."""
SURROUNDINGS_SIGMA = 8.0
"""Sigma in pixels of these surroundings."""
MAX_SHUTTER_FRAMES = 60
"""Default of the maximum number of frames that show the shutter; then the picture is a scene."""


class SceneCutDetector:
    """Detects scene cuts between successive frames of one source.

    `shutter_frames` is the maximum number of frames that show a closed shutter.
    """

    def __init__(self, *, shutter_frames: int = MAX_SHUTTER_FRAMES) -> None:
        self._last: np.ndarray | None = None
        self._changes: deque[float] = deque(maxlen=HISTORY)
        self._shutter_frames = shutter_frames
        self._scene: np.ndarray | None = None  # before the shutter closed
        self.closed_frames = 0
        """Number of frames so far that show the closed shutter; 0 if it is open."""

    def __call__(self, image: np.ndarray) -> bool:
        """Returns whether a cut precedes this image, (H, W) or (H, W, 3) of any size."""
        last, self._last = self._last, block_means(image)
        if self._scene is not None:
            return self._is_cut_behind_shutter(self._scene, self._last, image)
        if last is None:
            return False
        change = float(np.median(np.abs(self._last - last)))
        usual = median(self._changes) if len(self._changes) >= MIN_HISTORY else math.inf
        self._changes.append(change)
        if change <= max(NOISE_FACTOR * usual, 1):  # up to one grey level is rounding
            return False
        if not differs(last, self._last):
            return False
        if is_blank(image, self._last, scene=last):
            self._scene, self.closed_frames = last, 1
            return False
        self._changes.clear()
        return True

    def _is_cut_behind_shutter(self, scene: np.ndarray, blocks: np.ndarray, image: np.ndarray) -> bool:
        """Returns whether an image that follows the closed shutter shows another scene than before it."""
        blank = is_blank(image, blocks, scene=scene)
        if blank and self.closed_frames < self._shutter_frames:
            self.closed_frames += 1
            return False
        self._scene, self.closed_frames = None, 0
        is_cut = blank or differs(scene, blocks)
        if is_cut:
            self._changes.clear()
        return is_cut

    def restart(self) -> None:
        """Starts a new sequence."""
        self._last = self._scene = None
        self.closed_frames = 0
        self._changes.clear()


def differs(before: np.ndarray, now: np.ndarray) -> bool:
    """Returns whether block means (ROWS, COLUMNS) are those of another scene, not of the same one shifted."""
    unexplained = 1 - shift_tolerant_correlation(before, now)
    return normalised_difference(before, now) * unexplained > CUT_THRESHOLD


def is_blank(image: np.ndarray, blocks: np.ndarray, *, scene: np.ndarray) -> bool:
    """Returns whether an image, (H, W) or (H, W, 3), has no detail but noise and broad shading.

    `blocks` are its block means (ROWS, COLUMNS), `scene` those of the scene before, which had detail.
    """
    scene_range = float(np.ptp(scene))
    if float(np.ptp(blocks)) > MAX_BLANK_RANGE * scene_range:
        return False
    grey = image.astype(np.float32) if image.ndim == 2 else image.mean(axis=2, dtype=np.float32)
    smooth = cv2.blur(grey, (3, 3))  # weakens single bad pixels, not targets
    residual = np.abs(smooth - cv2.GaussianBlur(smooth, (0, 0), SURROUNDINGS_SIGMA))
    noise = normal_sigma(residual)
    return float(residual.max()) <= max(MAX_BLANK_DEVIATION * noise, MAX_BLANK_SHARE * scene_range)


def block_means(image: np.ndarray) -> np.ndarray:
    """Returns the mean of each block in grey levels, less the median of all: (ROWS, COLUMNS) float32."""
    step = max(min(image.shape[0] // (SAMPLES * ROWS), image.shape[1] // (SAMPLES * COLUMNS)), 1)
    sampled = image[::step, ::step].astype(np.float32)
    blocks = cv2.resize(sampled, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA)
    grey = blocks if blocks.ndim == 2 else blocks.mean(axis=2)
    return grey - np.median(grey)


def normalised_difference(before: np.ndarray, now: np.ndarray) -> float:
    """Returns the median absolute difference of two images (ROWS, COLUMNS), each divided by its spread.

    The spread is the median absolute value, so the result does not depend on gain.
    """
    first, second = (image / max(float(np.median(np.abs(image))), MIN_CONTRAST) for image in (before, now))
    return float(np.median(np.abs(second - first)))


def shift_tolerant_correlation(before: np.ndarray, now: np.ndarray) -> float:
    """Returns the maximum correlation of the details of two images over shifts of up to `MAX_SHIFT`.

    The images are (ROWS, COLUMNS). The result is −1 to 1, and 0 if the second image has no details.
    """
    first, second = _details(before), _details(now)
    rows, columns = round(MAX_SHIFT * ROWS), round(MAX_SHIFT * COLUMNS)
    middle = second[rows:-rows, columns:-columns]
    if not middle.any():  # OpenCV gives 1 for a template of zeros
        return 0.0
    return float(cv2.matchTemplate(first, middle, cv2.TM_CCOEFF_NORMED).max())


def _details(image: np.ndarray) -> np.ndarray:
    """Returns the image without its wide structures, normalised to the same contrast everywhere."""
    fine = image - cv2.GaussianBlur(image, (0, 0), DETAIL_SIGMA)
    contrast = np.sqrt(cv2.GaussianBlur(fine * fine, (0, 0), DETAIL_SIGMA))
    return fine / (contrast + MIN_CONTRAST)
