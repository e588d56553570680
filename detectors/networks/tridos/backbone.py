"""Backbone of Tridos: YOLOX's CSPDarknet with a top-down feature pyramid, output stride 8."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.networks.layers.blocks import SPP, BaseConv, CSPLayer, Focus


class Darknet(nn.Module):
    """CSPDarknet; `base` is the number of channels of the stem, 32 in the published network."""

    def __init__(self, base: int):
        super().__init__()
        self.stem = Focus(3, base)
        self.dark2 = self._level(base, 2 * base, CSPLayer(2 * base, 2 * base, depth=1, shortcut=True))
        self.dark3 = self._level(2 * base, 4 * base, CSPLayer(4 * base, 4 * base, depth=3, shortcut=True))
        self.dark4 = self._level(4 * base, 8 * base, CSPLayer(8 * base, 8 * base, depth=3, shortcut=True))
        last = CSPLayer(16 * base, 16 * base, depth=1, shortcut=False)
        self.dark5 = self._level(8 * base, 16 * base, SPP(16 * base), last)

    @staticmethod
    def _level(cin: int, cout: int, *layers: nn.Module) -> nn.Sequential:
        return nn.Sequential(BaseConv(cin, cout, 3, stride=2), *layers)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) → features at stride 8 (4·base channels), 16 (8·base), 32 (16·base)."""
        f1 = self.dark3(self.dark2(self.stem(images)))
        f2 = self.dark4(f1)
        return f1, f2, self.dark5(f2)


class Backbone(nn.Module):
    """Darknet and top-down pyramid with one output of 4·base channels at stride 8."""

    def __init__(self, base: int):
        super().__init__()
        self.backbone = Darknet(base)
        self.lateral_conv0 = BaseConv(16 * base, 8 * base, 1)
        self.C3_p4 = CSPLayer(16 * base, 8 * base, depth=1, shortcut=False)
        self.reduce_conv1 = BaseConv(8 * base, 4 * base, 1)
        self.C3_p3 = CSPLayer(8 * base, 4 * base, depth=1, shortcut=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) with H and W multiples of 32 → (B, 4·base, H / 8, W / 8)."""
        f1, f2, f3 = self.backbone(images)
        up = F.interpolate(self.lateral_conv0(f3), scale_factor=2.0, mode="nearest")
        middle = self.C3_p4(torch.cat([up, f2], dim=1))
        up = F.interpolate(self.reduce_conv1(middle), scale_factor=2.0, mode="nearest")
        return self.C3_p3(torch.cat([up, f1], dim=1))
