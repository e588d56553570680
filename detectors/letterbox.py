"""Sequences fitted into frames of one size, as networks with a fixed input are trained.

Boxes go along, also those of the ground truth that is measured against: intersection over union is the same
in either picture.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from datasets.clips import Sequence
from datasets.records import VideoRecord
from pipeline.geometry import Geometry

BORDER = 128
"""Grey level round the picture in 8 bits; in a letterboxed mask only what is lighter is target."""


class LetterboxedFrames:
    """Frames (T, h, w) of a sequence, fitted into (T, H, W) when they are indexed, on grey."""

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


def letterboxed(sequence: Sequence, size: tuple[int, int]) -> Sequence:
    """The sequence in frames of `size` (width, height)."""
    geometry = Geometry.letterbox(sequence.frames.shape[:0:-1], size)
    return replace(
        sequence,
        frames=LetterboxedFrames(sequence.frames, geometry),
        boxes=_moved(sequence.boxes, geometry),
        masks=tuple(geometry.apply(mask.astype(np.uint8) * 255) > BORDER for mask in sequence.masks),
    )


def letterboxed_record(record: VideoRecord, size: tuple[int, int]) -> VideoRecord:
    """The ground truth of a sequence whose frames are letterboxed to `size`."""
    geometry = Geometry.letterbox((record.width, record.height), size)
    return replace(record, width=size[0], height=size[1], boxes=_moved(record.boxes, geometry))


def _moved(boxes: tuple[np.ndarray, ...], geometry: Geometry) -> tuple[np.ndarray, ...]:
    return tuple(geometry.to_network(row).astype(np.float32) for row in boxes)
