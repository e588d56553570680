"""Encoder of DSTransNet: three kinds of convolution in parallel at each resolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.networks.layers.deformable import DeformableConv
from detectors.networks.segmenters.dstransnet.wavelet import WaveletConv

CENTRAL_SHARE = 0.7
"""Share of the response to the centre pixel that a central difference convolution subtracts."""


class DeformableBranch(DeformableConv):
    """Deformable 5×5 convolution, batch norm, LeakyReLU."""

    def __init__(self, cin: int, cout: int):
        super().__init__(cin, cout, 5)
        self.bn = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) → (B, cout, h, w)."""
        return F.leaky_relu(self.bn(super().forward(x)))


class CentralDifference(nn.Module):
    """Central difference convolution: 3×3 minus a share of 1×1 with the sum of the 3×3 weights."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) → (B, cout, h, w)."""
        weight, bias = self.conv.weight, self.conv.bias
        assert bias is not None
        centre = F.pad(weight.sum((2, 3), keepdim=True), (1, 1, 1, 1))
        # the published layer adds the bias to both terms
        return F.conv2d(x, weight - CENTRAL_SHARE * centre, (1 - CENTRAL_SHARE) * bias, padding=1)


class WaveletBranch(nn.Module):
    """Residual block of a wavelet convolution, a 1×1 convolution and batch norm."""

    def __init__(self, cin: int, cout: int, levels: int):
        super().__init__()
        self.depth_wise_wavelet_conv1 = WaveletConv(cin, levels)
        self.point_wise_conv1 = nn.Conv2d(cin, cout, 1)
        self.bn1 = nn.BatchNorm2d(cout)
        self.shortcut = nn.Sequential()
        if cin != cout:
            self.shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1), nn.BatchNorm2d(cout))
        # unused second stage; published checkpoints contain it
        self.depth_wise_wavelet_conv2 = WaveletConv(cout, levels)
        self.point_wise_conv2 = nn.Conv2d(cout, cout, 1)
        self.bn2 = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) → (B, cout, h, w)."""
        mixed = self.bn1(self.point_wise_conv1(self.depth_wise_wavelet_conv1(x)))
        return F.leaky_relu(mixed + self.shortcut(x))


class EncoderBlock(nn.Module):
    """Deformable, central-difference and wavelet branches, fused by a 3×3 convolution."""

    def __init__(self, cin: int, cout: int, levels: int):
        super().__init__()
        self.conv_layer = nn.Sequential(DeformableBranch(cin, cout))
        difference = CentralDifference(cin, cout)
        self.cdc_layer = nn.Sequential(difference, nn.BatchNorm2d(cout), nn.ReLU(inplace=True))
        self.dconv_layer = nn.Sequential(WaveletBranch(cin, cout, levels))
        join = nn.Conv2d(3 * cout, cout, 3, padding=1)
        self.final_layer = nn.Sequential(join, nn.BatchNorm2d(cout), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) → (B, cout, h, w)."""
        branches = [self.conv_layer(x), self.cdc_layer(x), self.dconv_layer(x)]
        return self.final_layer(torch.cat(branches, dim=1))


class ResidualBlock(nn.Module):
    """Unused parameters of the plain encoder, which published checkpoints contain."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(cin, cout, 3, padding=1), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = nn.Conv2d(cout, cout, 3, padding=1), nn.BatchNorm2d(cout)
        if cin != cout:
            self.shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1), nn.BatchNorm2d(cout))
