"""Convolution blocks shared by several networks; attribute names are those of published checkpoints."""

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
    """1×1 and 3×3 convolution of constant width; `shortcut` adds the input."""

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
    """Cross-stage partial layer: one half of the channels passes `depth` bottlenecks, the other none."""

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
    """Space to depth by two and a 3×3 BaseConv: (B, cin, H, W) → (B, cout, H / 2, W / 2)."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.conv = BaseConv(4 * cin, cout, 3)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        # by row and column parity, in the order of published checkpoints
        parts = [x[..., 0::2, 0::2], x[..., 1::2, 0::2], x[..., 0::2, 1::2], x[..., 1::2, 1::2]]
        return self.conv(torch.cat(parts, dim=1))


class SPP(nn.Module):
    """Spatial pyramid pooling: the input and its max pools of 5, 9 and 13 cells, mixed by 1×1 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = channels // 2
        self.conv1 = BaseConv(channels, hidden, 1)
        self.conv2 = BaseConv(4 * hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → same shape."""
        x = self.conv1(x)
        # two and three max pools of 5 in a row equal those of 9 and 13 and are cheaper
        five = F.max_pool2d(x, 5, 1, 2)
        nine = F.max_pool2d(five, 5, 1, 2)
        thirteen = F.max_pool2d(nine, 5, 1, 2)
        return self.conv2(torch.cat([x, five, nine, thirteen], dim=1))


class PReLUConv(nn.Module):
    """3×3 convolution with bias and PReLU with a single slope, without norm."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 3, padding=1)
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) → (B, cout, H, W)."""
        return self.act(self.conv(x))


class PReLUResidual(nn.Module):
    """Residual block of two 3×3 convolutions with bias; both PReLUs share one slope."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → same shape."""
        return self.act(self.conv2(self.act(self.conv1(x))) + x)
