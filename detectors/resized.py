"""Sequences in frames of another size: letterboxed, or enlarged for targets of a few pixels.

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


def resized(sequence: Sequence, geometry: Geometry) -> Sequence:
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
