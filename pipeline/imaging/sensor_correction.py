"""Frames made ready for what follows: unevenness and bad pixels of the sensor mended, levels declared.

Only what the configuration asks for is done; else frames pass as they came.
"""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.system.errors import UsageError

AUTO = "auto"
MAX_BAD = 0.05
"""Share of pixels that a mask may mark; more is a mask the wrong way round."""
NEIGHBOURS = 4
"""Good pixels, the nearest ones, whose mean replaces a bad one."""
SPIKE = 20
"""Deviations of the noise by which a pixel stands out from those around it to be suspected."""
LONELY = 0.2
"""Share of its height that a spike leaves to the pixels beside it at most. The optics spread even a point
over several pixels: with a Gaussian of 0.6 pixels or more, those beside the middle have more than this."""
SETTLING, MEMORY = 16, 64
"""Frames before anything is judged, and frames that are remembered."""
CERTAIN = 0.9
"""Share of the frames in which a bad pixel stands out."""


class OffsetCorrection:
    """Takes off each pixel what it shows above or below the middle of a picture of an even surface."""

    def __init__(self, reference: np.ndarray, bit_depth: int):
        """`reference` (H, W), uint8 or uint16, in the levels of the frames."""
        self._offset = reference.astype(np.int32) - round(float(np.median(reference)))
        self._peak = (1 << bit_depth) - 1

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W) of the same type, cut to 0 and the full scale."""
        return (image - self._offset).clip(0, self._peak).astype(image.dtype)


class PixelReplacement:
    """Replaces known pixels by the mean of the nearest good ones."""

    def __init__(self, bad: np.ndarray, name: str):
        """`bad` (H, W) bool. Raises UsageError, which calls the mask `name`, for a mask of too many."""
        from scipy.spatial import cKDTree

        share = float(bad.mean())
        if share > MAX_BAD or bad.size - bad.sum() < NEIGHBOURS:
            allowed = f"{100 * MAX_BAD:g} % are allowed"
            raise UsageError(
                f"{name} marks {100 * share:.1f} % of the pixels as bad; {allowed}; bad ones are light"
            )
        self._bad = np.flatnonzero(bad)
        self._sources = np.zeros((0, NEIGHBOURS), np.int64)
        if len(self._bad):
            _, nearest = cKDTree(np.argwhere(~bad)).query(np.argwhere(bad), k=NEIGHBOURS)
            self._sources = np.flatnonzero(~bad)[nearest]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W) of the same type."""
        mended = image.copy()
        means = image.reshape(-1)[self._sources].mean(axis=1, dtype=np.float64)
        mended.reshape(-1)[self._bad] = np.rint(means).astype(image.dtype)
        return mended


class SpikeReplacement:
    """Finds pixels that stand far out, each alone, in frame after frame, and replaces them from then on.

    It looks for the faults that hurt most, and takes care not to take a target for one; weak faults and
    clusters need a mask.
    """

    def __init__(self):
        self._seen = 0
        self._share: np.ndarray | None = (
            None  # (H, W) float32: of the last frames, in which a pixel stood out
        )
        self._replace: PixelReplacement | None = None
        self._count = 0

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W) of the same type; the image itself as long as nothing is found."""
        standing = spikes(image)
        if self._share is None:
            self._share = np.zeros(image.shape, np.float32)
            self._bad = np.zeros(image.shape, bool)
        self._seen += 1
        self._share += (standing - self._share) / min(self._seen, MEMORY)
        if self._seen >= SETTLING:
            self._bad |= self._share >= CERTAIN  # once bad, always bad: a pixel does not heal
        count = np.count_nonzero(self._bad)
        if self._count < count <= MAX_BAD * image.size:
            self._count, self._replace = count, PixelReplacement(self._bad, AUTO)
        return image if self._replace is None else self._replace(image)


def spikes(image: np.ndarray) -> np.ndarray:
    """(H, W) float32: 1 for pixels that stand far out from those around them, and alone; 0 for others."""
    above = image.astype(np.float32) - cv2.medianBlur(image, 3)
    height = np.abs(above)
    noise = float(np.median(height[height > 0])) / 0.6745 if height.any() else 0.0
    ring = np.ones((3, 3), np.uint8)
    ring[1, 1] = 0
    beside = cv2.dilate(height, ring)
    return ((height > SPIKE * max(noise, 1)) & (beside <= LONELY * height)).astype(np.float32)
