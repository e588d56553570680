"""Frames made ready for what follows: unevenness and bad pixels of the sensor mended, levels declared.

Only what the configuration asks for is done; else frames pass as they came.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from pipeline.config import SourceConfig
from pipeline.errors import UsageError
from pipeline.frame import Frame, SourceInfo
from pipeline.pictures import read_image, with_channels
from pipeline.reading.request import SourceLost
from pipeline.scaling import parse_scaling

AUTO = "auto"
MOST_BAD = 0.05
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


class Preparation:
    """All that is done to each frame of a source, in order: offset, bad pixels, levels."""

    def __init__(self, config: SourceConfig, info: SourceInfo):
        """Raises UsageError for corrections that do not fit the frames, SourceError for unreadable ones."""
        self._scaling = parse_scaling(config.scaling)
        self._stages = []
        if (config.offset or config.bad_pixels) and info.channels != 1:
            raise UsageError(f"{info.name} has colours; bad_pixels and offset are for grey sources")
        if config.offset:
            self._stages.append(OffsetCorrection(_reference(config.offset, "offset", info), info.bit_depth))
        if config.bad_pixels == AUTO:
            self._stages.append(SpikeReplacement())
        elif config.bad_pixels:
            mask = _reference(config.bad_pixels, "bad_pixels", info)
            self._stages.append(PixelReplacement(mask > mask.max() / 2, config.bad_pixels))
        self._declared = config.bits

    def __call__(self, frame: Frame) -> Frame:
        """The frame, corrected and with its levels; SourceLost for samples beyond the declared bits."""
        image = frame.image
        if self._declared and (peak := int(image.max())) >> frame.bit_depth:
            raise SourceLost(
                f"{frame.source}: frame {frame.index} holds {peak}, more than {frame.bit_depth} bits can; "
                "set source.bits"
            )
        for stage in self._stages:
            image = stage(image)
        levels = self._scaling(image)
        if image is frame.image and levels is None:
            return frame
        return replace(frame, image=image, levels=levels)


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
        if share > MOST_BAD or bad.size - bad.sum() < NEIGHBOURS:
            allowed = f"{100 * MOST_BAD:g} % are allowed"
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
        if self._count < count <= MOST_BAD * image.size:
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


def _reference(path: str, key: str, info: SourceInfo) -> np.ndarray:
    """The picture that a correction names, grey and of the size of the frames."""
    picture = with_channels(read_image(Path(path)), grey=True)
    if picture.shape != (info.height, info.width):
        size = f"{picture.shape[1]}x{picture.shape[0]}"
        raise UsageError(
            f"{key} = {path} is {size}, the frames of {info.name} are {info.width}x{info.height}"
        )
    if key == "offset" and (picture.itemsize > 1) != (info.bit_depth > 8):
        depth = f"{8 * picture.itemsize} bits"
        raise UsageError(f"offset = {path} has {depth}, the frames of {info.name} {info.bit_depth}")
    return picture
