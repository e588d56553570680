"""RDIAN: receptive-field and direction induced attention network (Sun et al., IEEE TGRS 61, 2023).

Attribute names are those of the published checkpoint.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.networks.segmenters.base import Segmenter, bias_of
from detectors.networks.segmenters.soft_iou import soft_iou_loss

WIDTH = 32
NEIGHBOURS = ((0, 0), (0, 2), (0, 4), (2, 4), (4, 4), (4, 2), (4, 0), (2, 0))
"""Row and column of the -1 in the 5 by 5 kernels d11 … d18; the centre is +1."""


def unit(cin: int, cout: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, LeakyReLU of slope 0.01."""
    conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), nn.LeakyReLU(0.01, inplace=True))


def direction(row: int, column: int) -> nn.Conv2d:
    """Returns the fixed 5×5 convolution of one channel: centre minus the cell at (row, column)."""
    conv = nn.Conv2d(1, 1, 5, padding=2, bias=False).requires_grad_(False)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[..., 2, 2], conv.weight[..., row, column] = 1, -1
    return conv


class Residual(nn.Module):
    """Residual block of two units of one kernel size with half the width in between."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.layer1 = unit(channels, channels // 2, kernel)
        self.layer2 = unit(channels // 2, channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape."""
        return self.layer2(self.layer1(x)) + x


class ChannelGate(nn.Module):
    """Channel attention from the averages and maxima over the map."""

    def __init__(self, channels: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(channels, 1), nn.ReLU(), nn.Linear(1, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape."""
        weights = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        return x * torch.sigmoid(weights)[..., None, None]


class ConvNorm(nn.Module):
    """7×7 convolution to one channel without bias, batch norm (momentum 0.01)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, 1, 7, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → (B, 1, h, w)."""
        return self.bn(self.conv(x))


class SpatialGate(nn.Module):
    """Spatial attention from the maximum and mean over the channels."""

    def __init__(self):
        super().__init__()
        self.spatial = ConvNorm(2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape."""
        summary = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.spatial(summary))


class Head(nn.Module):
    """3×3 convolution to a quarter of the width, dropout 0.1, 1×1 convolution to one logit."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = channels // 4
        self.block = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(0.1),
            nn.Conv2d(hidden, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, 1, H, W)."""
        return self.block(x)


class RDIAN(Segmenter):
    """RDIAN: normalised frames (B, 1, H, W) of at least 16×16 pixels → logits (B, 1, H, W)."""

    mean, std = (-0.1246,), (1.0923,)

    def __init__(self):
        super().__init__()
        self.conv1 = unit(1, WIDTH // 2, 3)
        self.conv2 = unit(WIDTH // 2, WIDTH, 3, stride=2)
        self.residual_block0 = nn.Sequential(Residual(WIDTH, 1))
        self.residual_block1 = nn.Sequential(Residual(WIDTH, 3), Residual(WIDTH, 3))
        self.residual_block2 = nn.Sequential(Residual(WIDTH, 5), Residual(WIDTH, 5))
        self.residual_block3 = nn.Sequential(Residual(WIDTH, 7), Residual(WIDTH, 7))
        gates = OrderedDict(ChannelGate=ChannelGate(WIDTH), SpatialGate=SpatialGate())
        self.cbam = nn.Sequential(gates)
        self.conv_cat = unit(4 * WIDTH, WIDTH, 3)
        self.conv_res = unit(WIDTH // 2, WIDTH, 1)
        for number, cell in enumerate(NEIGHBOURS, start=11):
            self.add_module(f"d{number}", direction(*cell))
        self.head = Head(WIDTH)

    def initialise(self) -> None:
        """Initialises the weights as the authors do, in place of torch's defaults."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.weight.requires_grad:
                nn.init.normal_(module.weight, 0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1, 0.02)
                nn.init.normal_(module.bias, 0, 1)  # the authors set only the mean; 1 is torch's default

    def output_biases(self) -> list[nn.Parameter]:
        """Returns the bias of the head."""
        return [bias_of(self.head.block[-1])]

    def direction_map(self, frames: Tensor) -> Tensor:
        """Map in (0, 1) of pixels that differ equally from opposite neighbours: (B, 1, H, W) → same shape."""
        # kernels as stored, since those of a checkpoint may differ from the constructor's; one convolution
        kernels = torch.cat([self.get_parameter(f"d{number}.weight") for number in range(11, 19)])
        one_way, other_way = F.conv2d(frames, kernels, padding=2).chunk(2, dim=1)
        return torch.sigmoid((one_way * other_way).sum(1, keepdim=True))

    def forward(self, frames: Tensor) -> Tensor:
        """See the class; equal in training and evaluation mode but for batch norm and dropout."""
        return self._logits(frames, torch.contiguous_format)

    def prediction(self, frames: Tensor) -> Tensor:
        """Logits (B, 1, H, W), equal to `forward` up to rounding."""
        # channels last takes a fifth less time on a CPU
        return self._logits(frames, torch.channels_last)

    def _logits(self, frames: Tensor, layout: torch.memory_format) -> Tensor:
        self._check(frames)
        fine = self.conv1(frames).contiguous(memory_format=layout)
        coarse = self.conv2(fine + fine * self.direction_map(frames))
        chains = (self.residual_block0, self.residual_block1, self.residual_block2, self.residual_block3)
        gated = self.cbam(self.conv_cat(torch.cat([chain(coarse) for chain in chains], dim=1)))
        wide = F.interpolate(gated, frames.shape[-2:], mode="bilinear", align_corners=False)
        return self.head(wide.add_(self.conv_res(fine)).relu_())

    def loss(self, outputs: Tensor, target: Tensor, frames: Tensor | None = None) -> Tensor:
        """Mean over the images of the soft IoU loss of logits (B, 1, H, W) and masks."""
        return soft_iou_loss(torch.sigmoid(outputs), target, per_image=True)


def learning_rate(epoch: float, *, epochs: int = 300, base: float = 0.005, floor: float = 1e-6) -> float:
    """Published learning rate: polynomial decay, constant within an epoch; epochs count from 0."""
    return (base - floor) * (1 - int(epoch) / (epochs + 1)) ** 0.9 + floor
