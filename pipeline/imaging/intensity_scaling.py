"""Which grey levels the networks take for 0 and 1: declared once, the same in training and in use.

A scaling looks at the frames of one sequence in order and gives the levels of each; what it needs of them it
remembers. Scaled pictures are 16-bit, so that frames kept for training and frames just decoded are the same
numbers. Pictures that are drawn are none of its business: see `pipeline.drawing.tone_mapping`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from pipeline.structures.frame import Frame

FULL_SCALE = 65535
"""Of scaled pictures."""
SCALINGS = ("full-range", "fixed", "percentile", "running")
SHADOWS, LIGHTS = 0.1, 99.9
"""Percentiles unless others are given: a target of a few pixels may lie above, with nothing beside it."""
MIN_SPAN = 32
"""Grey levels between 0 and 1 at least, or the noise of an empty sky would fill the scale."""
SAMPLES = 20_000
"""Pixels that percentiles are taken from: enough for a hundredth of the range, cheap at any size."""
RATE = 0.05
"""Share by which running levels move towards those of a new frame."""


class Scaling(Protocol):
    """Gives the levels of frames, one after the other."""

    def __call__(self, image: np.ndarray) -> tuple[float, float] | None:
        """Levels of 0 and 1 for the next frame, (H, W) or (H, W, 3); None: 0 and its full scale."""


class FullRange:
    """Nothing is scaled."""

    def __call__(self, image: np.ndarray) -> None:
        """Any frame keeps its own full scale."""


class Fixed:
    """The same levels for every frame."""

    def __init__(self, low: float, high: float):
        self._levels = low, high

    def __call__(self, image: np.ndarray) -> tuple[float, float]:
        """The declared levels."""
        return self._levels


class Percentiles:
    """Two percentiles of each frame by itself."""

    def __init__(self, low: float = SHADOWS, high: float = LIGHTS):
        self._shares = low, high

    def __call__(self, image: np.ndarray) -> tuple[float, float]:
        """The levels of these percentiles, spread about their middle where they are close to each other."""
        step = max(1, int((image.shape[0] * image.shape[1] / SAMPLES) ** 0.5))
        low, high = np.percentile(image[::step, ::step], self._shares).tolist()
        lacking = max(0.0, MIN_SPAN - (high - low)) / 2
        return low - lacking, high + lacking


class Running:
    """The percentiles of each frame, smoothed over time, so that what comes and goes shifts no scale.

    Where the scene's range jumps clear of the old one the levels follow at once.
    """

    def __init__(self, low: float = SHADOWS, high: float = LIGHTS, *, rate: float = RATE):
        if not 0 < rate <= 1:
            raise ValueError(f"{rate = }, expected above 0 and at most 1")
        self._seen, self._rate = Percentiles(low, high), rate
        self._levels: tuple[float, float] | None = None

    def reset(self) -> None:
        """Forget the scene."""
        self._levels = None

    def __call__(self, image: np.ndarray) -> tuple[float, float]:
        """The levels after this frame; those of the first frame are its own percentiles."""
        seen, old = self._seen(image), self._levels
        if old is None or seen[1] < old[0] or seen[0] > old[1]:
            self._levels = seen
        else:
            self._levels = tuple(was + self._rate * (now - was) for was, now in zip(old, seen, strict=True))
        return self._levels


def parse_scaling(text: str) -> Scaling:
    """'fixed 1000 5000' → a new scaling for one sequence. Raises ValueError for what is none."""
    name, *words = text.split() or [""]
    expected = "expected full-range, fixed LO HI, percentile [LO HI] or running [LO HI]"
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = [math.nan]
    counts = {"full-range": (0,), "fixed": (2,)}.get(name, (0, 2))
    if name not in SCALINGS or len(numbers) not in counts or not all(map(math.isfinite, numbers)):
        raise ValueError(f"scaling = '{text}', {expected}")
    if numbers and not numbers[0] < numbers[1]:
        raise ValueError(f"scaling = '{text}', expected LO to be less than HI")
    if name in ("percentile", "running") and numbers and not (numbers[0] >= 0 and numbers[1] <= 100):
        raise ValueError(f"scaling = '{text}', expected percentiles from 0 to 100")
    kinds = {"full-range": FullRange, "fixed": Fixed, "percentile": Percentiles, "running": Running}
    return kinds[name](*numbers)


def network_pictures(frames: Sequence[Frame]) -> tuple[list[np.ndarray], int]:
    """The frames of one source as networks read them, uint8 or uint16, and their full scale.

    Frames without levels are themselves, sample for sample.
    """
    if frames[0].levels is None:
        return [frame.image for frame in frames], 2 ** frames[0].bit_depth - 1
    return [scaled(frame.image, frame.levels) for frame in frames], FULL_SCALE


def scaled(image: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    """The picture with `levels` at 0 and at `FULL_SCALE`, what lies beyond them cut off; uint16."""
    low, high = levels
    values = (image.astype(np.float32) - np.float32(low)) * np.float32(FULL_SCALE / (high - low))
    return np.rint(values).clip(0, FULL_SCALE).astype(np.uint16)
