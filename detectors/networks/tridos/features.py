"""detectors.networks.tridos.features."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

FRAMES = 5
"""Frames of a window; the newest, index 4, is the key frame that the detections belong to."""


class FrameFeatures(NamedTuple):
    """All that one frame contributes to every window it is part of."""

    spatial: Tensor
    """(B, C, h, w) backbone output."""
    frequency: Tensor
    """(B, C, h, w) output of the frequency block."""
    qkv: Tensor
    """(B, h, w, 3C) queries, keys and values of the first window-attention layer."""
