"""Per-frame features of Tridos, and what its streams require of a network."""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeVar

from torch import Tensor

FRAMES = 5
"""Number of frames in the temporal window; the last one, index 4, is the key frame to be detected in."""


class FrameFeatures(NamedTuple):
    """Everything that one frame contributes to the windows that contain it."""

    spatial: Tensor
    """(B, C, h, w) backbone output."""
    frequency: Tensor
    """(B, C, h, w) output of the frequency block."""
    qkv: Tensor
    """(B, h, w, 3C) queries, keys and values of the first window-attention layer."""


class FusedFeatures(NamedTuple):
    """Features of a frame in the optimised network, which computes the attention projections per window."""

    spatial: Tensor
    """(B, C, h, w) backbone output."""
    frequency: Tensor
    """(B, C, h, w) output of the frequency block."""


class PixelFeatures(NamedTuple):
    """Features of a frame in networks that stack frames: its pixels."""

    spatial: Tensor
    """(B, 1, H, W) normalised grey values."""


Features = TypeVar("Features", FrameFeatures, FusedFeatures, PixelFeatures)


class WindowedNetwork(Protocol[Features]):
    """A network over windows of frames, split by what one frame, a pair and a whole window determine."""

    frames: int
    """Number of frames in the temporal window."""
    training: bool
    """Whether the network is in training mode."""

    @property
    def features(self) -> type[Features]:
        """Type of the per-frame features."""

    def frame_features(self, images: Tensor) -> Features:
        """Returns the features of normalised images (B, 3, H, W)."""

    def pair_features(self, older: Tensor, newer: Tensor) -> Tensor:
        """Returns the features of consecutive frames from their spatial features, (B, C, h, w) each."""

    def join(self, window: Features, pairs: Tensor) -> Tensor:
        """Returns the raw output (B, 5 + classes, h, w) of windows (B, T, …) and pairs (B, T − 1, …)."""
