"""Intensity scaling: which grey levels become 0 and 1 in the network input, in training and in use.

A scaling is called with the frames of one sequence in order and returns the levels of each; it may keep state
from frame to frame. Scaled images are 16-bit, so that frames stored for training equal frames just decoded.
Images for display are scaled by `pipeline.drawing.tone_mapping` instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from pipeline.structures.frame import Frame

FULL_SCALE = 65535
"""Maximum of scaled images."""
SCALINGS = ("auto", "full-range", "fixed", "percentile", "running")
DEEP_SCALING = "percentile"
"""Scaling that "auto" stands for if frames have more than 8 bits; for 8 bits it is full-range. Cameras with
more bits rarely use their full scale: a scene of a radiometric one is a hundredth of it. For measurements see
`docs/scaling.md`."""
LOW_PERCENTILE, HIGH_PERCENTILE = 0.1, 99.9
"""Default percentiles. A target of a few pixels may lie above the high one: it is clipped to white."""
MIN_SPAN = 32
"""Minimum number of grey levels from 0 to 1."""
MIN_NOISE_SPAN = 32
"""Minimum distance from 0 to 1 in standard deviations of the noise of a pixel. Otherwise the noise of an
empty sky would fill the scale, and a target, which lies above the high percentile, would be no brighter."""
SAMPLED_PIXELS = 20_000
"""Pixels from which percentiles are computed: exact to a hundredth of the range, cheap at any image size."""
MIN_FRACTION_IN_USE = 1 / 8
"""Minimum fraction of the scale that frames should use, from percentile to percentile."""
NUM_OBSERVED = 16
"""Number of frames whose levels are observed for that: the first ones."""
SMOOTHING = 0.05
"""Weight of a new frame in the running levels."""


class Scaling(Protocol):
    """Computes the levels of frames of one sequence, in order."""

    def __call__(self, image: np.ndarray) -> tuple[float, float] | None:
        """Returns the levels that become 0 and 1 in the next frame, (H, W) or (H, W, 3).

        None stands for 0 and the full scale of the frame.
        """


class FullRange:
    """No scaling: each frame keeps its full scale."""

    def __call__(self, image: np.ndarray) -> None:
        """Returns None for any frame."""


class FixedLevels:
    """The same levels for every frame."""

    def __init__(self, low: float, high: float):
        self._levels = low, high

    def __call__(self, image: np.ndarray) -> tuple[float, float]:
        """Returns the levels given to the constructor."""
        return self._levels


class Percentiles:
    """Two percentiles of each frame."""

    def __init__(self, low: float = LOW_PERCENTILE, high: float = HIGH_PERCENTILE):
        self._percentiles = low, high

    def __call__(self, image: np.ndarray) -> tuple[float, float]:
        """Returns the percentiles of (H, W) or (H, W, 3), moved apart about their mean if they are too close.

        Their distance is at least `MIN_SPAN` grey levels and `MIN_NOISE_SPAN` standard deviations of noise.
        """
        low, high = self.exact(image)
        lacking = max(0.0, max(MIN_SPAN, MIN_NOISE_SPAN * pixel_noise(image)) - (high - low)) / 2
        return low - lacking, high + lacking

    def exact(self, image: np.ndarray) -> tuple[float, float]:
        """Returns the percentiles of (H, W) or (H, W, 3) as they are."""
        step = _step(image)
        low, high = np.percentile(image[::step, ::step], self._percentiles).tolist()
        return low, high


def pixel_noise(image: np.ndarray) -> float:
    """Returns the standard deviation of the noise of a pixel of (H, W) or (H, W, 3), in grey levels.

    It is estimated from the median of the absolute differences between neighbours in a row, in which targets
    and edges do not count; fine texture over half of the picture is taken for noise.
    """
    step = _step(image)
    rows = image[::step]
    left, right = rows[:, :-1:step].astype(np.float32), rows[:, 1::step].astype(np.float32)
    differences = np.abs(left - right)
    return normal_sigma(differences) / math.sqrt(2) if differences.size else 0.0  # both pixels have noise


def normal_sigma(deviations: np.ndarray) -> float:
    """Returns the standard deviation of noise from its absolute deviations, of any shape but not empty.

    It is that of a normal distribution of the same median; a few large deviations do not change it.
    """
    return float(np.median(deviations)) / 0.6745


def _step(image: np.ndarray) -> int:
    """Returns the step between the pixels of an image from which statistics are computed."""
    return max(1, int((image.shape[0] * image.shape[1] / SAMPLED_PIXELS) ** 0.5))


class RunningPercentiles:
    """Percentiles smoothed over time, so that objects that enter or leave do not shift the scale.

    If the range of a frame does not overlap the running one, the levels are reset to those of the frame.
    """

    def __init__(
        self,
        low: float = LOW_PERCENTILE,
        high: float = HIGH_PERCENTILE,
        *,
        smoothing: float = SMOOTHING,
    ):
        """Raises ValueError if `smoothing`, the weight of a new frame, is not in (0, 1]."""
        if not 0 < smoothing <= 1:
            raise ValueError(f"{smoothing = }, expected above 0 and at most 1")
        self._percentiles, self._smoothing = Percentiles(low, high), smoothing
        self._levels: tuple[float, float] | None = None

    def reset(self) -> None:
        """Starts a new sequence."""
        self._levels = None

    def __call__(self, image: np.ndarray) -> tuple[float, float]:
        """Returns the levels after this frame; those of the first frame are its own percentiles."""
        (low, high), old = self._percentiles(image), self._levels
        if old is not None and high >= old[0] and low <= old[1]:
            low, high = (
                was + self._smoothing * (now - was) for was, now in zip(old, (low, high), strict=True)
            )
        self._levels = low, high
        return self._levels


class LevelsInUse:
    """The grey levels that the first frames of a source use, from the lowest to the highest percentile."""

    low, high = math.inf, -math.inf

    def __init__(self) -> None:
        self._percentiles, self._count = Percentiles(), 0

    def add(self, image: np.ndarray) -> bool:
        """Observes an image (H, W) or (H, W, 3); returns whether `NUM_OBSERVED` were observed."""
        low, high = self._percentiles.exact(image)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._count += 1
        return self._count >= NUM_OBSERVED

    def fraction(self, low: float, high: float) -> float:
        """Returns the fraction of a scale that is in use, 0 to 1; 1 before the first frame."""
        if not self._count:
            return 1.0
        return max(0.0, min(self.high, high) - max(self.low, low)) / (high - low)


def resolve_scaling(text: str, bit_depth: int) -> str:
    """Returns the scaling that "auto" stands for, for frames of `bit_depth` bits; other texts unchanged."""
    if text.split() != ["auto"]:
        return text
    return "full-range" if bit_depth <= 8 else DEEP_SCALING


def parse_scaling(text: str, bit_depth: int = 8) -> Scaling:
    """Returns a new scaling for one sequence from its description, such as "fixed 1000 5000".

    `bit_depth` determines what "auto" stands for. Raises ValueError if the name is unknown or its numbers do
    not fit.
    """
    name, *words = resolve_scaling(text, bit_depth).split() or [""]
    expected = "expected auto, full-range, fixed LO HI, percentile [LO HI] or running [LO HI]"
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
    kinds: dict[str, Callable[..., Scaling]] = {
        "full-range": FullRange,
        "fixed": FixedLevels,
        "percentile": Percentiles,
        "running": RunningPercentiles,
    }
    return kinds[name](*numbers)


def network_images(frames: Sequence[Frame]) -> tuple[list[np.ndarray], int]:
    """Returns the images of frames of one source as networks read them, and their full scale.

    Images are (H, W) or (H, W, 3), uint8 or uint16; those of frames without levels are unchanged.
    """
    if frames[0].levels is None:
        return [_seen(frame) for frame in frames], 2 ** frames[0].bit_depth - 1
    images = []
    for frame in frames:
        assert frame.levels is not None  # one scaling applies to all frames of a source
        images.append(apply_levels(_seen(frame), frame.levels))
    return images, FULL_SCALE


def _seen(frame: Frame) -> np.ndarray:
    """Returns the image of a frame, or the last one before the shutter of the camera closed."""
    return frame.image if frame.seen is None else frame.seen


def apply_levels(image: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    """Maps `levels` of an image (H, W) or (H, W, 3) to 0 and `FULL_SCALE`, clipped; returns uint16."""
    low, high = levels
    values = (image.astype(np.float32) - np.float32(low)) * np.float32(FULL_SCALE / (high - low))
    return np.rint(values).clip(0, FULL_SCALE).astype(np.uint16)
