"""Convolution blocks shared by the networks; the attribute names are those of published checkpoints."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BaseConv(nn.Module):
    """Convolution without bias, batch norm (eps 1e-3, momentum 0.03), activation (SiLU by default).

    (B, cin, H, W) → (B, cout, ceil(H / stride), ceil(W / stride)); padding (kernel − 1) / 2.
    """

    def __init__(self, cin: int, cout: int, kernel: int, *, stride: int = 1, act: nn.Module | None = None):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, (kernel - 1) // 2, bias=False)
        self.bn = nn.BatchNorm2d(cout, eps=1e-3, momentum=0.03)
        self.act = act if act is not None else nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.act(self.bn(self.conv(x)))


class ConvUnit(nn.Module):
    """3×3 convolution, batch norm, ReLU."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 3, padding=1)
        self.norm = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) → (B, cout, H, W)."""
        return torch.relu(self.norm(self.conv(x)))


class Bottleneck(nn.Module):
    """1×1 then 3×3 convolution at constant width, with the input added when `shortcut`."""

    def __init__(self, channels: int, *, shortcut: bool):
        super().__init__()
        self.conv1 = BaseConv(channels, channels, 1)
        self.conv2 = BaseConv(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → same shape."""
        y = self.conv2(self.conv1(x))
        return y + x if self.shortcut else y


class CSPLayer(nn.Module):
    """Cross-stage partial layer: half of the width passes `depth` bottlenecks, half goes round them."""

    def __init__(self, cin: int, cout: int, *, depth: int, shortcut: bool):
        super().__init__()
        hidden = cout // 2
        self.conv1 = BaseConv(cin, hidden, 1)
        self.conv2 = BaseConv(cin, hidden, 1)
        self.conv3 = BaseConv(2 * hidden, cout, 1)
        self.m = nn.Sequential(*(Bottleneck(hidden, shortcut=shortcut) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) → (B, cout, H, W)."""
        return self.conv3(torch.cat([self.m(self.conv1(x)), self.conv2(x)], dim=1))


class Focus(nn.Module):
    """Space to depth by two, then a 3×3 BaseConv: (B, 3, H, W) → (B, cout, H / 2, W / 2)."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.conv = BaseConv(4 * cin, cout, 3)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        # (row parity, column parity) in the order that the checkpoints expect
        parts = [x[..., 0::2, 0::2], x[..., 1::2, 0::2], x[..., 0::2, 1::2], x[..., 1::2, 1::2]]
        return self.conv(torch.cat(parts, dim=1))


class SPP(nn.Module):
    """Spatial pyramid pooling: max pools of 5, 9 and 13 cells beside the input, mixed by a 1×1."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = channels // 2
        self.conv1 = BaseConv(channels, hidden, 1)
        self.conv2 = BaseConv(4 * hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → same shape."""
        x = self.conv1(x)
        # two, three stride-1 pools of 5 in a row are the pools of 9 and 13, exactly and cheaper
        five = F.max_pool2d(x, 5, 1, 2)
        nine = F.max_pool2d(five, 5, 1, 2)
        thirteen = F.max_pool2d(nine, 5, 1, 2)
        return self.conv2(torch.cat([x, five, nine, thirteen], dim=1))


class PReLUConv(nn.Module):
    """3×3 convolution with bias and a PReLU of one slope, no norm."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 3, padding=1)
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) → (B, cout, H, W)."""
        return self.act(self.conv(x))


class PReLUResidual(nn.Module):
    """Two 3×3 convolutions with bias round a skip; both activations share one slope parameter."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → same shape."""
        return self.act(self.conv2(self.act(self.conv1(x))) + x)
