"""From the camera's grey levels to the 8 bits of a display; never part of the way to the network."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.frame import Frame

_SAMPLES = 20_000
"""Pixels that the percentiles are taken from: enough for a hundredth of the range, cheap at any size."""
_SHADOWS, _LIGHTS = 0.5, 99.8
"""Percentiles shown as black and white; above them lies what is much hotter than the scene."""
_LEAST_SPAN = 32
"""Grey levels between black and white at least, or the noise of an empty sky would fill the screen."""


class ToneMapper:
    """Show frames of more than 8 bits: robust percentiles become black and white, smoothed over time.

    Eight-bit frames pass unchanged. The map is monotone within a frame and moves by the fraction `rate`
    towards each new frame's percentiles, so the picture does not flicker when something hot comes and goes;
    where the scene's range jumps clear of the old one it follows at once.
    """

    def __init__(self, *, rate: float = 0.05):
        if not 0 < rate <= 1:
            raise ValueError(f"{rate = }, expected above 0 and at most 1")
        self._rate = rate
        self._limits: np.ndarray | None = None  # (2,) float64: the levels of black and white

    def reset(self) -> None:
        """Forget the scene."""
        self._limits = None

    def __call__(self, frame: Frame) -> np.ndarray:
        """The frame for display: uint8 of the same shape; `frame.image` itself where it has 8 bits."""
        if frame.image.dtype == np.uint8 and frame.bit_depth == 8:
            return frame.image
        black, white = self._follow(frame.image)
        above = np.maximum(frame.image, black) - black
        return cv2.convertScaleAbs(above, alpha=255 / (white - black))  # saturates at 255

    def _follow(self, image: np.ndarray) -> tuple[np.generic, float]:
        """The levels of black (of the image's type) and white for this frame."""
        step = max(1, int((image.shape[0] * image.shape[1] / _SAMPLES) ** 0.5))
        seen = np.percentile(image[::step, ::step], (_SHADOWS, _LIGHTS))
        lacking = _LEAST_SPAN - (seen[1] - seen[0])
        if lacking > 0:
            seen += (-lacking / 2, lacking / 2)
        old = self._limits
        if old is None or seen[1] < old[0] or seen[0] > old[1]:
            self._limits = seen
        else:
            self._limits = old + self._rate * (seen - old)
        black = max(0, round(self._limits[0]))
        return image.dtype.type(black), max(self._limits[1], black + 1)
