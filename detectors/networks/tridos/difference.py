"""Temporal differences of consecutive frames: the temporal domain of Tridos (TDEM)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from detectors.networks.layers.blocks import PReLUConv, PReLUResidual


def _upsample_2x(x: Tensor) -> Tensor:
    """Bilinear, corners aligned as published checkpoints require: (B, C, h, w) → (B, C, 2h, 2w)."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)


class TemporalDifference(nn.Module):
    """Motion features from the differences of `frames` consecutive feature maps."""

    def __init__(self, channels: int, *, frames: int):
        super().__init__()
        self.feat_diff = PReLUConv(channels, channels // 2)
        self.conv1 = PReLUConv((frames - 1) * (channels // 2), channels)
        self.res_feat1 = nn.Sequential(PReLUResidual(channels), PReLUConv(channels, channels))
        self.res_feat2 = nn.Sequential(PReLUResidual(channels), PReLUConv(channels, channels))

    def pair(self, older: Tensor, newer: Tensor) -> Tensor:
        """Features of a pair of consecutive frames: two (B, C, h, w) → (B, C / 2, h / 2, w / 2)."""
        return F.avg_pool2d(self.feat_diff(older - newer), 2)

    def forward(self, pairs: Tensor, key: Tensor) -> Tensor:
        """Pairs (B, T − 1, C / 2, h / 2, w / 2), oldest first, and key frame (B, C, h, w) → (B, C, h, w)."""
        mixed = self.conv1(pairs.flatten(1, 2))
        motion = _upsample_2x(self.res_feat1(mixed))
        guided = self.res_feat2(0.5 * key + 0.5 * _upsample_2x(mixed))
        return 0.5 * guided + 0.5 * motion
