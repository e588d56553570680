"""Tone mapping of deep frames to 8 bits for display; the detector does not see its result."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.imaging.intensity_scaling import RunningPercentiles
from pipeline.structures.frame import Frame

_SHADOWS, _LIGHTS = 0.5, 99.8
"""Percentiles shown as black and white; the brighter pixels are much hotter than the scene."""


class ToneMapper:
    """Maps frames of more than 8 bits to 8 bits: running percentiles become black and white.

    Eight-bit frames are unchanged. The mapping is monotone within a frame. Its limits move towards the
    percentiles of each new frame by the fraction `smoothing`, so the image does not flicker if a hot object
    comes and goes; if the range of the scene no longer overlaps the old one, they follow at once.
    """

    def __init__(self, *, smoothing: float = 0.05):
        self._limits = RunningPercentiles(_SHADOWS, _LIGHTS, smoothing=smoothing)

    def reset(self) -> None:
        """Forgets the limits, for a new scene."""
        self._limits.reset()

    def __call__(self, frame: Frame) -> np.ndarray:
        """Returns the image for display, uint8 of the same shape; `frame.image` itself if it has 8 bits."""
        if frame.image.dtype == np.uint8 and frame.bit_depth == 8:
            return frame.image
        low, high = self._limits(frame.image)
        black = max(0, round(low))
        above = np.maximum(frame.image, black) - black
        return cv2.convertScaleAbs(above, alpha=255 / (max(high, black + 1) - black))  # saturates at 255
