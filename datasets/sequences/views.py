"""Views of sequences whose frames are transformed when they are indexed.

`scale_intensity` applies a declared intensity scaling and `resize_sequence` the geometry of the network
input, so training and evaluation compute with the same numbers as a run on the same source. The original
frames stay where they are, in memory or in a store.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from datasets.sequences.clips import FrameArray, VideoSequence
from pipeline.imaging.geometry import Geometry
from pipeline.imaging.intensity_scaling import FullRange, apply_levels, parse_scaling
from pipeline.structures.annotations import VideoRecord

MASK_THRESHOLD = 128
"""Grey level above which a resized mask, 0 to 255, marks targets; letterbox borders are at this level."""


class FrameView(ABC):
    """Frames (T, H, W) made from the frames of another array when they are indexed along the first axis."""

    def __init__(self, frames: FrameArray, *, shape: tuple[int, ...], dtype: np.dtype):
        self._frames = frames
        self.shape = shape
        """Frames, rows, columns."""
        self.dtype = dtype
        """uint8 or uint16."""

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[np.ndarray]:
        for position in range(len(self)):
            yield self[position]

    def __getitem__(self, key: Any) -> np.ndarray:
        chosen, positions = self._frames[key], np.arange(len(self))[key]
        if chosen.ndim == 2:
            return self._transform(chosen, positions)
        return np.stack([self._transform(f, position) for f, position in zip(chosen, positions, strict=True)])

    @abstractmethod
    def _transform(self, frame: np.ndarray, position: int) -> np.ndarray:
        """Returns the frame of the view for the original frame at a position."""


class ScaledFrames(FrameView):
    """Frames with a pair of grey levels for each, which become 0 and full scale; uint16 for any input."""

    def __init__(self, frames: FrameArray, levels: list[tuple[float, float]]):
        super().__init__(frames, shape=frames.shape, dtype=np.dtype(np.uint16))
        self._levels = levels

    def _transform(self, frame: np.ndarray, position: int) -> np.ndarray:
        return apply_levels(frame, self._levels[position])


class ResizedFrames(FrameView):
    """Frames (T, h, w) mapped to the (H, W) network pixels of a geometry; the dtype stays."""

    def __init__(self, frames: FrameArray, geometry: Geometry):
        super().__init__(frames, shape=(len(frames), *geometry.network[::-1]), dtype=frames.dtype)
        self._geometry = geometry

    def _transform(self, frame: np.ndarray, position: int) -> np.ndarray:
        resized = self._geometry.apply(frame, full_scale=int(np.iinfo(self.dtype).max))
        return resized.round().astype(self.dtype, copy=False)


def scale_intensity(sequence: VideoSequence, scaling: str) -> VideoSequence:
    """Returns the sequence with a scaling as in `source.scaling`; the sequence itself for full-range.

    Every frame is read once, in order. The scaling "auto" takes the bit depth from the dtype of the frames.
    Raises ValueError if `scaling` is no scaling.
    """
    find_levels = parse_scaling(scaling, 8 * sequence.frames.dtype.itemsize)
    if isinstance(find_levels, FullRange):
        return sequence
    levels = []
    for frame in sequence.frames:
        found = find_levels(frame)
        assert found is not None  # only FullRange returns None
        levels.append(found)
    return replace(sequence, frames=ScaledFrames(sequence.frames, levels))


def resize_sequence(sequence: VideoSequence, geometry: Geometry) -> VideoSequence:
    """Returns the sequence in the network pixels of a geometry whose source size is that of its frames."""
    return replace(
        sequence,
        frames=ResizedFrames(sequence.frames, geometry),
        boxes=_resize_boxes(sequence.boxes, geometry),
        masks=tuple(geometry.apply(mask.astype(np.uint8) * 255) > MASK_THRESHOLD for mask in sequence.masks),
    )


def resize_record(record: VideoRecord, geometry: Geometry) -> VideoRecord:
    """Returns the ground truth that belongs to the result of `resize_sequence`."""
    width, height = geometry.network
    return replace(record, width=width, height=height, boxes=_resize_boxes(record.boxes, geometry))


def _resize_boxes(boxes: tuple[np.ndarray, ...], geometry: Geometry) -> tuple[np.ndarray, ...]:
    return tuple(geometry.to_network(row).astype(np.float32) for row in boxes)
