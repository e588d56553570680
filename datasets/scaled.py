"""Sequences under a declared scaling: the numbers that a run on the same source computes with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from datasets.clips import Sequence
from pipeline.scaling import FullRange, parse_scaling
from pipeline.scaling import scaled as scaled_picture


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


def scaled(sequence: Sequence, scaling: str) -> Sequence:
    """The sequence under a scaling as `source.scaling` names it; itself where that is full-range.

    Every frame is looked at once, in order. Raises ValueError for what is no scaling.
    """
    levels_of = parse_scaling(scaling)
    if isinstance(levels_of, FullRange):
        return sequence
    return replace(sequence, frames=ScaledFrames(sequence.frames, [levels_of(f) for f in sequence.frames]))
