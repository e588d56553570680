"""Sequences under a declared scaling: the numbers that a run on the same source computes with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from datasets.sequences.clips import VideoSequence
from pipeline.imaging.geometry import Geometry
from pipeline.imaging.intensity_scaling import FullRange, parse_scaling
from pipeline.imaging.intensity_scaling import scaled as scaled_picture
from pipeline.structures.annotations import VideoRecord

BORDER = 128
"""Grey level round the picture in 8 bits; in a letterboxed mask only what is lighter is target."""


class ScaledFrames:
    """Frames (T, H, W) of a sequence, brought to their levels when they are indexed."""

    def __init__(self, frames, levels: list[tuple[float, float]]):
        self._frames, self._levels = frames, levels
        self.shape = frames.shape
        """Frames, rows, columns."""
        self.dtype = np.dtype(np.uint16)
        """Whatever the frames are stored as."""

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, key) -> np.ndarray:
        chosen, positions = self._frames[key], np.arange(len(self))[key]
        if chosen.ndim == 2:
            return scaled_picture(chosen, self._levels[positions])
        return np.stack([scaled_picture(f, self._levels[p]) for f, p in zip(chosen, positions, strict=True)])


def scaled(sequence: VideoSequence, scaling: str) -> VideoSequence:
    """The sequence under a scaling as `source.scaling` names it; itself where that is full-range.

    Every frame is looked at once, in order. Raises ValueError for what is no scaling.
    """
    levels_of = parse_scaling(scaling)
    if isinstance(levels_of, FullRange):
        return sequence
    return replace(sequence, frames=ScaledFrames(sequence.frames, [levels_of(f) for f in sequence.frames]))


class ResizedFrames:
    """Frames (T, h, w) of a sequence, fitted into (T, H, W) when they are indexed."""

    def __init__(self, frames, geometry: Geometry):
        self._frames, self._geometry = frames, geometry
        self.shape = (len(frames), *geometry.network[::-1])
        """Frames, rows, columns."""
        self.dtype = frames.dtype
        """uint8 or uint16."""

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, key) -> np.ndarray:
        chosen = self._frames[key]
        if chosen.ndim == 2:
            return self._fitted(chosen)
        return np.stack([self._fitted(frame) for frame in chosen])

    def _fitted(self, frame: np.ndarray) -> np.ndarray:
        fitted = self._geometry.apply(frame, full_scale=int(np.iinfo(self.dtype).max))
        return fitted.round().astype(self.dtype, copy=False)


def resized(sequence: VideoSequence, geometry: Geometry) -> VideoSequence:
    """The sequence in the network pixels of a geometry whose source are its frames."""
    return replace(
        sequence,
        frames=ResizedFrames(sequence.frames, geometry),
        boxes=_moved(sequence.boxes, geometry),
        masks=tuple(geometry.apply(mask.astype(np.uint8) * 255) > BORDER for mask in sequence.masks),
    )


def resized_record(record: VideoRecord, geometry: Geometry) -> VideoRecord:
    """The ground truth of a sequence that is `resized`."""
    width, height = geometry.network
    return replace(record, width=width, height=height, boxes=_moved(record.boxes, geometry))


def _moved(boxes: tuple[np.ndarray, ...], geometry: Geometry) -> tuple[np.ndarray, ...]:
    return tuple(geometry.to_network(row).astype(np.float32) for row in boxes)
