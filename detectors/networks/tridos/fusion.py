"""Residual compensation unit of Tridos: fuses two branches with channel and spatial attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelGate(nn.Module):
    """Channel attention: a factor in (0, 1) per channel from the average and maximum over the map."""

    def __init__(self, channels: int, *, reduction: int = 16):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → (B, C, 1, 1)."""
        average, maximum = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)
        return torch.sigmoid(
            self.fc2(torch.relu(self.fc1(average))) + self.fc2(torch.relu(self.fc1(maximum)))
        )


class SpatialGate(nn.Module):
    """Spatial attention: a factor in (0, 1) per position from the mean and maximum over the channels."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → (B, 1, h, w)."""
        summary = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return torch.sigmoid(self.conv1(summary))


class ResidualCompensation(nn.Module):
    """Two 3×3 convolutions, channel and spatial attention, and a 1×1 shortcut: 2C → C channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential(nn.Conv2d(2 * channels, channels, 1), nn.BatchNorm2d(channels))
        self.ca = ChannelGate(channels)
        self.sa = SpatialGate()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two (B, C, h, w) → (B, C, h, w)."""
        x = torch.cat([first, second], dim=1)
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        y = self.ca(y) * y
        y = self.sa(y) * y
        return torch.relu(y + self.shortcut(x))
