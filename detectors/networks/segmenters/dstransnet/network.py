"""The whole network, its loss and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.networks.layers.blocks import ConvUnit
from detectors.networks.segmenters.base import Segmenter, exact_sigmoid, inverse_sigmoid
from detectors.networks.segmenters.dstransnet.encoder import EncoderBlock, ResidualBlock
from detectors.networks.segmenters.dstransnet.selection import Selection

WIDTHS = (32, 64, 128, 256, 256)
"""Channels at strides 1, 2, 4, 8, 16."""
WAVELET_LEVELS = (7, 6, 5, 4, 3)
STATISTICS: dict[str, tuple[float, float]] = {
    "NUAA-SIRST": (0.442, 0.111),
    "NUDT-SIRST": (0.424, 0.130),
    "IRSTD-1K": (0.343, 0.157),
    "SIRST-Aug": (0.290, 0.194),
}
"""Data set → mean and standard deviation of its grey values, as its published weights expect them."""


class Gate(nn.Module):
    """Keeps of the encoder's feature what it and the decoder's agree on, by channel and by place."""

    def __init__(self, channels: int):
        super().__init__()
        self.mlp_up = nn.Sequential(nn.Flatten(), nn.Linear(channels, channels))
        self.mlp_skip = nn.Sequential(nn.Flatten(), nn.Linear(channels, channels))
        self.spatial_attention_conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, up: Tensor, skip: Tensor) -> Tensor:
        """Decoder and encoder feature (B, C, H, W) → what is kept of the latter (B, C, H, W)."""
        averages = self.mlp_up(up.mean((2, 3))) + self.mlp_skip(skip.mean((2, 3)))
        maxima = torch.cat([up.amax(1, keepdim=True), skip.amax(1, keepdim=True)], dim=1)
        places = torch.sigmoid(self.spatial_attention_conv(maxima))
        return torch.relu(skip * torch.sigmoid(averages)[..., None, None] * places)


class DecoderBlock(nn.Module):
    """Upsampling to the nearest cell, the gated encoder feature beside it, two convolutions."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.coatt = Gate(cin)
        self.nConvs = nn.Sequential(ConvUnit(2 * cin, cout), ConvUnit(cout, cout))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, cin, h, w) and (B, cin, 2h, 2w) → (B, cout, 2h, 2w)."""
        up = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.nConvs(torch.cat([self.coatt(up, skip), up], dim=1))


class DSTransNet(Segmenter):
    """Probabilities for normalised frames (B, 3, H, W) with sides that are multiples of 16.

    `mode` alone, not training or evaluation, says what `forward` gives, as in the published class: "train"
    six maps (B, 1, H, W), four of deep supervision from coarse to fine, their fusion, the prediction; "test",
    or no deep supervision, the prediction alone. The sigmoid is inside. `dataset` chooses the input
    statistics, a row of `STATISTICS`.
    """

    multiple = 16

    def __init__(
        self, *, mode: Literal["train", "test"] = "train", deepsuper: bool = True, dataset: str = "NUDT-SIRST"
    ):
        super().__init__()
        if mode not in ("train", "test"):
            raise ValueError(f"{mode = }, expected 'train' or 'test'")
        if dataset not in STATISTICS:
            raise ValueError(f"{dataset = }, expected one of {', '.join(STATISTICS)}")
        mean, std = STATISTICS[dataset]
        self.mean, self.std = (mean,) * 3, (std,) * 3
        self.mode, self.deepsuper = mode, deepsuper
        inputs = (len(self.mean), *WIDTHS)
        for number, (cin, cout, levels) in enumerate(zip(inputs, WIDTHS, WAVELET_LEVELS, strict=False), 1):
            self.add_module(f"Conv{number}", EncoderBlock(cin, cout, levels))
            unused = "input_head" if number == 1 else f"down_encoder{number - 1}"
            self.add_module(unused, nn.Sequential(ResidualBlock(cin, cout)))
        self.mtc = Selection(WIDTHS[:4])
        for number, (cin, cout) in enumerate(zip(WIDTHS, (32, 32, 64, 128), strict=False), 1):
            self.add_module(f"up_decoder{number}", DecoderBlock(cin, cout))
        self.output_head = nn.Conv2d(32, 1, 1)
        if deepsuper:
            for number, width in enumerate((5, 32, 64, 128, 256)):
                self.add_module(f"gt_conv{number}", nn.Sequential(nn.Conv2d(width, 1, 1)))

    def initialise(self) -> None:
        """Start values of the authors' training; torch's defaults are there without it."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1, 0.02)
                nn.init.zeros_(module.bias)

    def _features(self, frames: Tensor) -> list[Tensor]:
        """Decoder features of strides 1, 2, 4, 8 and the encoder's of stride 16."""
        self._check(frames)
        encoded = [self.Conv1(frames)]
        for number in range(2, 6):
            encoded.append(self.get_submodule(f"Conv{number}")(F.max_pool2d(encoded[-1], 2)))
        decoded = [encoded.pop()]
        for number, skip in zip(range(4, 0, -1), reversed(self.mtc(encoded)), strict=True):
            decoded.insert(0, self.get_submodule(f"up_decoder{number}")(decoded[0], skip))
        return decoded

    def forward(self, frames: Tensor) -> tuple[Tensor, ...] | Tensor:
        """See the class."""
        if self.mode == "test" or not self.deepsuper:
            return exact_sigmoid(self.prediction(frames))
        features = self._features(frames)
        size, sides = frames.shape[-2:], []
        for number in range(4, 0, -1):
            side = self.get_submodule(f"gt_conv{number}")(features[number])
            sides.append(F.interpolate(side, size, mode="bilinear", align_corners=True))
        prediction = self.output_head(features[0])
        fused = self.gt_conv0(torch.cat([*sides, prediction], dim=1))
        return tuple(exact_sigmoid(logits) for logits in (*sides, fused, prediction))

    def prediction(self, frames: Tensor) -> Tensor:
        """Logits (B, 1, H, W) of the last map, without computing the others."""
        return self.output_head(self._features(frames)[0])

    def output_biases(self) -> list[nn.Parameter]:
        """Those of the prediction, its fusion with the side heads, and these."""
        sides = [self.get_submodule(f"gt_conv{i}")[0].bias for i in range(5)] if self.deepsuper else []
        return [self.output_head.bias, *sides]

    def logits(self, outputs: tuple[Tensor, ...] | Tensor) -> list[Tensor]:
        """Logits (B, 1, H, W) of all maps of probabilities."""
        return [inverse_sigmoid(p) for p in super().logits(outputs)]

    def loss(
        self, outputs: tuple[Tensor, ...] | Tensor, target: Tensor, frames: Tensor | None = None
    ) -> Tensor:
        """Sum over all maps of probabilities of their binary cross-entropy, mean over batch and pixels.

        Of probabilities, as published: the logarithm of one that is exactly 0 counts −100.
        """
        maps = (outputs,) if isinstance(outputs, Tensor) else outputs
        with torch.autocast(target.device.type, enabled=False):
            exact = torch.promote_types(maps[0].dtype, torch.float32)
            losses = [F.binary_cross_entropy(p.to(exact), target.to(exact)) for p in maps]
        return torch.stack(losses).sum()

    @staticmethod
    def options_from(state: Mapping[str, Tensor]) -> dict[str, Any]:
        """`deepsuper`, from whether there are side heads."""
        return {"deepsuper": "gt_conv0.0.weight" in state}


def learning_rate(epoch: float, *, epochs: int = 500, base: float = 1e-3, floor: float = 1e-5) -> float:
    """Ten epochs of warm-up from 0, one at `base`, then a cosine; constant within an epoch, counted from 0.

    The first epoch trains with rate 0, as the authors' did.
    """
    epoch = int(epoch)
    if epoch <= 10:
        return base * epoch / 10
    return floor + (base - floor) * (1 + math.cos(math.pi * (epoch - 11) / (epochs - 10))) / 2
