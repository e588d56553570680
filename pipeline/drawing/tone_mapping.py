"""From the camera's grey levels to the 8 bits of a display; never part of the way to the network."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.imaging.intensity_scaling import RunningPercentiles
from pipeline.structures.frame import Frame

_SHADOWS, _LIGHTS = 0.5, 99.8
"""Percentiles shown as black and white; above them lies what is much hotter than the scene."""


class ToneMapper:
    """Show frames of more than 8 bits: robust percentiles become black and white, smoothed over time.

    Eight-bit frames pass unchanged. The map is monotone within a frame and moves by the fraction `smoothing`
    towards each new frame's percentiles, so the picture does not flicker when something hot comes and goes;
    where the scene's range jumps clear of the old one it follows at once.
    """

    def __init__(self, *, smoothing: float = 0.05):
        self._limits = RunningPercentiles(_SHADOWS, _LIGHTS, smoothing=smoothing)

    def reset(self) -> None:
        """Forget the scene."""
        self._limits.reset()

    def __call__(self, frame: Frame) -> np.ndarray:
        """The frame for display: uint8 of the same shape; `frame.image` itself where it has 8 bits."""
        if frame.image.dtype == np.uint8 and frame.bit_depth == 8:
            return frame.image
        low, high = self._limits(frame.image)
        black = max(0, round(low))
        above = np.maximum(frame.image, black) - black
        return cv2.convertScaleAbs(above, alpha=255 / (max(high, black + 1) - black))  # saturates at 255
