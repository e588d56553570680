"""Network of DSTransNet (Huang et al., IEEE TGRS 63, 2025), its loss and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.networks.layers.blocks import ConvUnit
from detectors.networks.segmenters.base import Segmenter, bias_of, exact_sigmoid, inverse_sigmoid
from detectors.networks.segmenters.dstransnet.encoder import EncoderBlock, ResidualBlock
from detectors.networks.segmenters.dstransnet.selection import Selection

WIDTHS = (32, 64, 128, 256, 256)
"""Channels at strides 1, 2, 4, 8, 16."""
WAVELET_LEVELS = (7, 6, 5, 4, 3)
"""Levels of the wavelet transforms at strides 1, 2, 4, 8, 16."""
STATISTICS: dict[str, tuple[float, float]] = {
    "NUAA-SIRST": (0.442, 0.111),
    "NUDT-SIRST": (0.424, 0.130),
    "IRSTD-1K": (0.343, 0.157),
    "SIRST-Aug": (0.290, 0.194),
}
"""Dataset → mean and standard deviation of its grey values, as expected by its published weights."""


class Gate(nn.Module):
    """Channel and spatial attention on encoder features from encoder and decoder features."""

    def __init__(self, channels: int):
        super().__init__()
        self.mlp_up = nn.Sequential(nn.Flatten(), nn.Linear(channels, channels))
        self.mlp_skip = nn.Sequential(nn.Flatten(), nn.Linear(channels, channels))
        self.spatial_attention_conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, up: Tensor, skip: Tensor) -> Tensor:
        """Decoder and encoder feature (B, C, H, W) → gated encoder feature (B, C, H, W)."""
        averages = self.mlp_up(up.mean((2, 3))) + self.mlp_skip(skip.mean((2, 3)))
        maxima = torch.cat([up.amax(1, keepdim=True), skip.amax(1, keepdim=True)], dim=1)
        places = torch.sigmoid(self.spatial_attention_conv(maxima))
        return torch.relu(skip * torch.sigmoid(averages)[..., None, None] * places)


class DecoderBlock(nn.Module):
    """Nearest-neighbour upsampling, concatenation with the gated encoder feature, two convolutions."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.coatt = Gate(cin)
        self.nConvs = nn.Sequential(ConvUnit(2 * cin, cout), ConvUnit(cout, cout))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, cin, h, w) and (B, cin, 2h, 2w) → (B, cout, 2h, 2w)."""
        up = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.nConvs(torch.cat([self.coatt(up, skip), up], dim=1))


class DSTransNet(Segmenter):
    """DSTransNet: normalised frames (B, 3, H, W), H and W multiples of 16 → probabilities.

    As in the published class, `mode` determines the outputs of `forward`, in training and evaluation mode.
    With "train" they are six maps (B, 1, H, W): four of deep supervision from coarse to fine, their fusion,
    and the prediction. With "test" or `deepsuper=False` it is only the prediction. `dataset` selects the
    input statistics from `STATISTICS`.
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
        """Initialises the weights as the authors do, in place of torch's defaults."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1, 0.02)
                nn.init.zeros_(module.bias)

    def _features(self, frames: Tensor) -> list[Tensor]:
        """Returns the decoder features of strides 1, 2, 4, 8 and the encoder features of stride 16."""
        self._check(frames)
        encoded = [self.get_submodule("Conv1")(frames)]
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
        fused = self.get_submodule("gt_conv0")(torch.cat([*sides, prediction], dim=1))
        return tuple(exact_sigmoid(logits) for logits in (*sides, fused, prediction))

    def prediction(self, frames: Tensor) -> Tensor:
        """Logits (B, 1, H, W) of the prediction; side heads are not computed."""
        return self.output_head(self._features(frames)[0])

    def output_biases(self) -> list[nn.Parameter]:
        """Returns the biases of the prediction, of its fusion with the side heads, and of these."""
        names = [f"gt_conv{number}.0" for number in range(5)] if self.deepsuper else []
        return [bias_of(self.output_head), *(bias_of(self.get_submodule(name)) for name in names)]

    def logits(self, outputs: tuple[Tensor, ...] | Tensor) -> list[Tensor]:
        """Outputs of `forward` → logits (B, 1, H, W) of all maps."""
        return [inverse_sigmoid(p) for p in super().logits(outputs)]

    def loss(
        self, outputs: tuple[Tensor, ...] | Tensor, target: Tensor, frames: Tensor | None = None
    ) -> Tensor:
        """Sum over all maps of the mean binary cross-entropy over batch and pixels.

        Computed from probabilities as published, with logarithms clamped to −100.
        """
        maps = (outputs,) if isinstance(outputs, Tensor) else outputs
        with torch.autocast(target.device.type, enabled=False):
            exact = torch.promote_types(maps[0].dtype, torch.float32)
            losses = [F.binary_cross_entropy(p.to(exact), target.to(exact)) for p in maps]
        return torch.stack(losses).sum()

    @staticmethod
    def infer_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Infers `deepsuper` from the presence of side heads."""
        return {"deepsuper": "gt_conv0.0.weight" in state}


def learning_rate(epoch: float, *, epochs: int = 500, base: float = 1e-3, floor: float = 1e-5) -> float:
    """Published learning rate: ten epochs of warm-up from 0, one at `base`, then a cosine.

    Constant within an epoch; epochs count from 0. As in the published code, the first epoch has rate 0.
    """
    epoch = int(epoch)
    if epoch <= 10:
        return base * epoch / 10
    return floor + (base - floor) * (1 + math.cos(math.pi * (epoch - 11) / (epochs - 10))) / 2
