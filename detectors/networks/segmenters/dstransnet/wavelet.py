"""Wavelet convolution of DSTransNet: small kernels on the levels of a Haar transform."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HAAR = (((1, 1), (1, 1)), ((1, 1), (-1, -1)), ((1, -1), (1, -1)), ((1, -1), (-1, 1)))
"""Haar filters times 2, two by two each: low-pass, rows, columns, diagonal."""
KERNEL = 5
"""Side of the depthwise kernels."""


class Scale(nn.Module):
    """Container of one factor per channel."""

    def __init__(self, channels: int, start: float):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, channels, 1, 1), start))


def _scaled(conv: nn.Conv2d, scale: Scale, x: Tensor) -> Tensor:
    """Depthwise convolution of x with the factors of `scale` folded into the kernel."""
    factor = scale.weight.view(-1)
    bias = None if conv.bias is None else conv.bias * factor
    kernel = conv.weight * factor.view(-1, 1, 1, 1)
    return F.conv2d(x, kernel, bias, padding=conv.padding, groups=conv.groups)


def _depthwise(channels: int, *, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, KERNEL, padding=KERNEL // 2, groups=channels, bias=bias)


class WaveletConv(nn.Module):
    """Sum of depthwise 5×5 convolutions of a map and of each level of its wavelet transform."""

    def __init__(self, channels: int, levels: int):
        super().__init__()
        filters = torch.tensor(HAAR).div(2).repeat(channels, 1, 1)[:, None]  # (4·channels, 1, 2, 2)
        # not trained; stored in checkpoints, whose values may differ
        self.wt_filter = nn.Parameter(filters, requires_grad=False)
        self.iwt_filter = nn.Parameter(filters.clone(), requires_grad=False)
        self.base_conv, self.base_scale = _depthwise(channels, bias=True), Scale(channels, 1.0)
        self.wavelet_convs = nn.ModuleList(_depthwise(4 * channels, bias=False) for _ in range(levels))
        self.wavelet_scale = nn.ModuleList(Scale(4 * channels, 0.1) for _ in range(levels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) of any size → same shape."""
        channels, low = x.shape[1], x
        sizes, details = [], []
        for conv, scale in zip(self.wavelet_convs, self.wavelet_scale, strict=True):
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(scale, Scale)
            height, width = low.shape[-2:]
            sizes.append((height, width))
            if height % 2 or width % 2:
                low = F.pad(low, (0, width % 2, 0, height % 2))
            level = F.conv2d(low, self.wt_filter, stride=2, groups=channels)  # (B, C·4, h, w)
            details.append(_scaled(conv, scale, level))
            low = level[:, ::4]
        restored: Tensor | None = None
        for detail, (height, width) in zip(reversed(details), reversed(sizes), strict=True):
            if restored is not None:
                detail[:, ::4] += restored
            restored = F.conv_transpose2d(detail, self.iwt_filter, stride=2, groups=channels)
            restored = restored[..., :height, :width]
        assert restored is not None
        return _scaled(self.base_conv, self.base_scale, x) + restored
