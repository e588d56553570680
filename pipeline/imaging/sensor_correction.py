"""Correction of sensor faults: fixed-pattern offset and bad pixels.

Each correction is optional; `pipeline.sources.preparation` applies those that the configuration names.
"""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.imaging.intensity_scaling import normal_sigma
from pipeline.system.errors import UsageError

AUTO = "auto"
"""Value of `source.bad_pixels` that selects `SpikeReplacement`."""
MAX_BAD_FRACTION = 0.05
"""Maximum fraction of bad pixels in a mask; a mask with more is probably inverted."""
NUM_NEIGHBOURS = 4
"""Number of nearest good pixels whose mean replaces a bad one."""
SPIKE_THRESHOLD = 20
"""Minimum height of a spike above its surroundings, in standard deviations of the noise."""
MAX_NEIGHBOUR_RATIO = 0.2
"""Maximum height of the pixels beside a spike, relative to it. The optics spread even a point over several
pixels: with a Gaussian of sigma 0.6 pixels or more, the pixels beside the peak exceed this."""
MIN_FRAMES, MAX_FRAMES = 16, 64
"""Frames before any pixel is classified, and frames over which the spike rate is averaged."""
MIN_SPIKE_RATE = 0.9
"""Minimum fraction of frames in which a bad pixel is a spike."""


class OffsetCorrection:
    """Subtracts the fixed-pattern offset measured on an image of a uniform surface (flat-field image)."""

    def __init__(self, reference: np.ndarray, bit_depth: int):
        """`reference` is the flat-field image (H, W), uint8 or uint16, in the grey levels of the frames."""
        self._offset = reference.astype(np.int32) - round(float(np.median(reference)))
        self._peak = (1 << bit_depth) - 1

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Returns the corrected image (H, W), of the same dtype, clipped to 0 and the full scale."""
        return (image - self._offset).clip(0, self._peak).astype(image.dtype)


class PixelReplacement:
    """Replaces known bad pixels by the mean of the nearest good ones."""

    def __init__(self, bad: np.ndarray, name: str):
        """`bad` is a mask (H, W) bool, and `name` its name in messages.

        Raises UsageError if the mask marks too many pixels.
        """
        from scipy.spatial import cKDTree

        fraction = float(bad.mean())
        if fraction > MAX_BAD_FRACTION or bad.size - bad.sum() < NUM_NEIGHBOURS:
            allowed = f"{100 * MAX_BAD_FRACTION:g} % are allowed"
            raise UsageError(
                f"{name} marks {100 * fraction:.1f} % of the pixels as bad; {allowed}; bad pixels are white"
            )
        self._bad = np.flatnonzero(bad)
        self._sources = np.zeros((0, NUM_NEIGHBOURS), np.int64)
        if len(self._bad):
            _, nearest = cKDTree(np.argwhere(~bad)).query(np.argwhere(bad), k=NUM_NEIGHBOURS)
            self._sources = np.flatnonzero(~bad)[nearest]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Returns a corrected copy of the image (H, W), of the same dtype."""
        corrected = image.copy()
        means = image.reshape(-1)[self._sources].mean(axis=1, dtype=np.float64)
        corrected.reshape(-1)[self._bad] = np.rint(means).astype(image.dtype)
        return corrected


class SpikeReplacement:
    """Detects isolated pixels that stick out in nearly every frame, and replaces them from then on.

    The criteria are strict so that no target is taken for a bad pixel; weak faults and clusters need a mask.
    """

    def __init__(self) -> None:
        self._seen = 0
        self._spike_rate: np.ndarray | None = None  # (H, W) float32: fraction of the recent frames
        self._bad = np.zeros((0, 0), bool)  # (H, W)
        self._replace: PixelReplacement | None = None
        self._count = 0

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Returns the corrected image (H, W), same dtype; `image` itself until a bad pixel is found."""
        spikes = detect_spikes(image)
        if self._spike_rate is None:
            self._spike_rate = np.zeros(image.shape, np.float32)
            self._bad = np.zeros(image.shape, bool)
        self._seen += 1
        self._spike_rate += (spikes - self._spike_rate) / min(self._seen, MAX_FRAMES)
        if self._seen >= MIN_FRAMES:
            self._bad |= self._spike_rate >= MIN_SPIKE_RATE  # never unset: a bad pixel does not recover
        count = int(np.count_nonzero(self._bad))
        if self._count < count <= MAX_BAD_FRACTION * image.size:
            self._count, self._replace = count, PixelReplacement(self._bad, AUTO)
        return image if self._replace is None else self._replace(image)


def detect_spikes(image: np.ndarray) -> np.ndarray:
    """Returns (H, W) float32: 1 for isolated pixels far above or below their surroundings, 0 for others."""
    difference = image.astype(np.float32) - cv2.medianBlur(image, 3)
    height = np.abs(difference)
    noise = normal_sigma(height[height > 0]) if height.any() else 0.0
    ring = np.ones((3, 3), np.uint8)
    ring[1, 1] = 0
    beside = cv2.dilate(height, ring)
    isolated = beside <= MAX_NEIGHBOUR_RATIO * height
    return ((height > SPIKE_THRESHOLD * max(noise, 1)) & isolated).astype(np.float32)
