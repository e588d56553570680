"""Sparse optical flow between two pictures: points spread over the frame, followed forwards and backwards.

Points are followed by the pyramidal method of Lucas and Kanade (Bouguet, "Pyramidal implementation of the
Lucas Kanade feature tracker", 2000) in small, smooth pictures: the noise and the fixed pattern of an infrared
sensor have structures of a pixel, the background has larger ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

MAX_SIDE = 200
"""Maximum of the longer side of the small pictures, in pixels: it bounds the cost."""
MIN_SIDE = 24
"""Minimum of the shorter side; smaller pictures hold too few windows."""
SHARP, SMOOTH = 0.8, 2.0
"""Standard deviation in pixels of the Gaussian filter of the small pictures, for scenes with fine detail and
for others: there it leaves what is larger than the pattern of the sensor."""
DETAIL_SIGMA, DETAIL_CELL = 1.5, 12
"""Structures below this standard deviation are fine detail; it is measured in cells of this side."""
MIN_DETAIL = 2.0
"""Minimum ratio of the detail of the upper quarter of the cells to that of the lowest tenth, which is noise
and pattern, in scenes with fine detail. In infrared videos of ground it is 3 and more."""
WINDOW = 13
"""Side of the window in which a point is compared, in pixels."""
LEVELS = 2
"""Number of further levels of the pyramid: displacements of up to four windows are found."""
CELL = 16
"""Side of the cells of which each has one point, in pixels."""
MAX_WEIGHT = 4.0
"""Maximum weight of a point, in medians of all."""
MAX_GAIN = 24.0
"""Maximum number of levels of a small picture per grey level of the frame, of 255."""
MAX_RETURN_ERROR = 0.3
"""Maximum distance in pixels of a point that was followed forwards and backwards from where it began."""
MAX_STEPS, MIN_STEP = 10, 0.03
"""Maximum number of steps at each level, and size in pixels of a step after which no other one follows."""


class SmallPictures:
    """Reduces the frames of one source to small pictures.

    Args:
        width: of the frames in pixels.
        height: of the frames in pixels.
    """

    def __init__(self, width: int, height: int):
        factor = max(1, -(-max(width, height) // MAX_SIDE))
        self.size = max(1, round(width / factor)), max(1, round(height / factor))
        """(width, height) of the small pictures."""
        self.scale = np.array([width / self.size[0], height / self.size[1]])
        """(2,) float64: pixels of a frame per pixel of a small picture, along x and y."""

    @property
    def usable(self) -> bool:
        """True if the pictures are large enough for points to be followed."""
        return min(self.size) >= MIN_SIDE

    def in_frame(self, motion: np.ndarray) -> np.ndarray:
        """Converts a motion (2, 3) of indices of pixels in small pictures to pixel coordinates of frames."""
        linear = motion[:, :2] * self.scale[:, None] / self.scale
        shift = self.scale * (motion[:, 2] + 0.5) - linear @ (self.scale / 2)
        return np.column_stack([linear, shift])

    def reduce(self, image: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
        """Returns the small picture of an image (H, W) or (H, W, 3), (h, w) float32, not yet smooth.

        `levels` of the image become 0 and 255.
        """
        if image.ndim == 3:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        small = cv2.resize(image, self.size, interpolation=cv2.INTER_AREA).astype(np.float32)
        low, high = levels
        np.clip(small, low, high, out=small)
        small -= np.float32(low)
        small *= np.float32(255 / (high - low))
        return small


def smoothing(small: np.ndarray) -> float:
    """Returns the standard deviation of the filter that suits a small picture (h, w) float32."""
    fine = small - cv2.GaussianBlur(small, (0, 0), DETAIL_SIGMA)
    cells = max(1, small.shape[1] // DETAIL_CELL), max(1, small.shape[0] // DETAIL_CELL)
    power = cv2.resize(np.square(fine), cells, interpolation=cv2.INTER_AREA)
    noise, detail = np.sqrt(np.percentile(power, (10, 75))).tolist()
    return SHARP if detail >= MIN_DETAIL * noise else SMOOTH


@dataclass(frozen=True)
class Contrast:
    """Conversion of smooth pictures to 8 bits."""

    middle: float
    """Level of the smooth picture that becomes 128."""
    gain: float
    """Levels of 8 bits per level of the smooth picture."""

    @classmethod
    def of(cls, smooth: np.ndarray) -> Contrast:
        """Returns the contrast that shows a smooth picture (h, w) float32 well."""
        low, high = np.percentile(smooth[::2, ::2], (1, 99)).tolist()
        return cls((low + high) / 2, min(240 / max(high - low, 1e-6), MAX_GAIN))

    def __call__(self, smooth: np.ndarray, offset: float = 0.0) -> np.ndarray:
        """Returns a smooth picture, less `offset`, as (h, w) uint8."""
        shift = 128 - self.gain * (self.middle + offset)
        return cv2.addWeighted(smooth, self.gain, smooth, 0, shift, dtype=cv2.CV_8U)


def levels_at(smooth: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Returns the levels (N,) of a picture (h, w) float32 at the pixels nearest to points (N, 2) x y."""
    columns, rows = np.rint(points).astype(int).T
    height, width = smooth.shape
    return smooth[rows.clip(0, height - 1), columns.clip(0, width - 1)]


def corners(picture: np.ndarray, blocked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the best point of each cell of a picture (h, w) uint8, and its weight.

    Points are (N, 2) float32, x y of pixel indices, weights (N,) float64. The weight is the contrast, up to
    `MAX_WEIGHT` times the usual one: the background is stronger than the pattern of a sensor in an empty sky,
    and burnt-in text is stronger than both.

    The best is the one whose window has the largest lesser eigenvalue of the structure tensor (Shi and
    Tomasi, "Good features to track", 1994). None lies where `blocked` (h, w) bool is True, or near the edge.
    """
    quality = cv2.cornerMinEigenVal(picture, WINDOW)
    quality[blocked] = 0
    margin = WINDOW // 2
    inner = quality[margin:-margin, margin:-margin]
    rows, columns = (max(1, side // CELL) for side in inner.shape)
    height, width = inner.shape[0] // rows, inner.shape[1] // columns
    cells = inner[: rows * height, : columns * width].reshape(rows, height, columns, width)
    flat = cells.transpose(0, 2, 1, 3).reshape(rows * columns, height * width)
    best = flat.argmax(axis=1)
    cell = np.arange(rows * columns)
    y = cell // columns * height + best // width + margin
    x = cell % columns * width + best % width + margin
    contrast = np.sqrt(np.maximum(flat[cell, best], 0))
    usable = contrast > 0
    points, contrast = np.stack([x, y], axis=1)[usable], contrast[usable].astype(np.float64)
    most = MAX_WEIGHT * np.median(contrast) if len(contrast) else 0.0
    return points.astype(np.float32), np.minimum(contrast, most)


def follow(
    before: np.ndarray, now: np.ndarray, points: np.ndarray, guess: np.ndarray, *, near: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Follows points from one picture to another, both (h, w) uint8.

    `points` (N, 2) float32 are indices x y in the first picture, `guess` (N, 2) where they are expected in
    the second; `near` says that they are at most a few pixels from there, which takes a third of the time.
    Returns where they are, (N, 2) float64, and which of them were followed, (N,) bool.
    """
    if not len(points):
        return np.zeros((0, 2)), np.zeros(0, bool)
    found, there = _flow(before, now, points, guess.astype(np.float32), levels=0 if near else LEVELS)
    returned, back = _flow(now, before, found, points, levels=0)
    distance = np.linalg.norm(returned - points, axis=1)
    return found.astype(np.float64), there & back & (distance <= MAX_RETURN_ERROR)


def _flow(
    before: np.ndarray, now: np.ndarray, points: np.ndarray, guess: np.ndarray, *, levels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns where points (N, 2) float32 are in the second picture, and which were found, (N,) bool."""
    stop = cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, MAX_STEPS, MIN_STEP
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        before,
        now,
        points,
        guess.copy(),  # it is written to
        winSize=(WINDOW, WINDOW),
        maxLevel=levels,
        criteria=stop,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    return found, status[:, 0] > 0
