"""MAD-Net: memory-augmented differential network (IEEE, document 10777476).

Attribute names are those of the published sources; `Conv`, `Conv1` and `conv1` are three modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.networks.layers.max_pool import max_pool_2x2
from detectors.networks.segmenters.base import DeeplySupervised, bias_of

WINDOW = 16
"""Cells along each side of an attention window."""
SLOTS = 128
"""Entries of a memory."""
DEPTH = 4
"""Memory blocks of a module."""
DROP_RATE = 0.1
"""Stochastic depth rate of the last block of a module; rates rise linearly from 0."""
ROTATED = (3, 0, 1, 6, 4, 2, 7, 8, 5)
"""Flattened cell of a 3 by 3 kernel → the cell whose weight is subtracted there, a rotation by 45°."""


class KernelConv(nn.Module):
    """Container of the convolution from whose weights a DifferenceConv derives a kernel."""

    def __init__(self, conv: nn.Conv1d | nn.Conv2d):
        super().__init__()
        self.conv = conv


class DifferenceConv(nn.Module):
    """Four 3×3 kernels, three of them differences of neighbours, merged into one convolution."""

    gamma1: nn.Parameter
    gamma2: nn.Parameter
    gamma3: nn.Parameter
    gamma4: nn.Parameter

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = KernelConv(nn.Conv1d(channels, channels, 3))
        self.conv2 = KernelConv(nn.Conv1d(channels, channels, 3))
        self.conv3 = KernelConv(nn.Conv2d(channels, channels, 3))
        self.conv4 = nn.Conv2d(channels, channels, 3)
        for number in range(1, 5):
            self.register_parameter(f"gamma{number}", nn.Parameter(torch.ones(1)))

    def merged(self) -> tuple[Tensor, Tensor]:
        """Returns kernel (C, C, 3, 3) and bias (C,) of the merged convolution."""
        horizontal, vertical, angular = self.conv1.conv, self.conv2.conv, self.conv3.conv
        rotated = angular.weight.flatten(2)[..., ROTATED].view_as(angular.weight)
        gammas = (self.gamma1, self.gamma2, self.gamma3, self.gamma4)
        kernels = (
            torch.stack([horizontal.weight, torch.zeros_like(horizontal.weight), -horizontal.weight], dim=3),
            torch.stack([vertical.weight, torch.zeros_like(vertical.weight), -vertical.weight], dim=2),
            angular.weight - rotated,
            self.conv4.weight,
        )
        biases = (bias_of(conv) for conv in (horizontal, vertical, angular, self.conv4))
        zero = self.gamma1.new_zeros(())
        kernel = sum((gamma * kernel for gamma, kernel in zip(gammas, kernels, strict=True)), zero)
        return kernel, sum((gamma * bias for gamma, bias in zip(gammas, biases, strict=True)), zero)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → same shape."""
        kernel, bias = self.merged()
        return F.conv2d(x, kernel, bias, padding=1)


class PixelAttention(nn.Module):
    """Attention map in (0, 1) from a depthwise 7×7 convolution with reflected borders."""

    def __init__(self, channels: int):
        super().__init__()
        self.pa2 = nn.Conv2d(channels, channels, 7, padding=3, padding_mode="reflect", groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → same shape."""
        return torch.sigmoid(self.pa2(x))


class AdaDCM(nn.Module):
    """Adaptive difference convolution module: a convolution plus an edge branch under pixel attention."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(cin, cout, 3, padding=1))
        self.conv1 = DifferenceConv(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        self.pa = PixelAttention(cout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) → (B, cout, H, W)."""
        plain = self.conv(x)
        edges = self.conv2(torch.relu(self.conv1(plain)) + plain)
        return torch.addcmul(plain, edges, self.pa(edges))


class StochasticDepth(nn.Module):
    """Stochastic depth: in training drops a residual branch per sample with probability `rate`."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """(B, …) → same shape."""
        if not self.training or not self.rate:
            return branch
        shape = (len(branch), *(1 for _ in branch.shape[1:]))
        return branch * (branch.new_empty(shape).bernoulli_(1 - self.rate) / (1 - self.rate))


class MemoryAttention(nn.Module):
    """Channel attention of each window from a learned memory, addressed by the mean token of the window."""

    def __init__(self, channels: int):
        super().__init__()
        inner = channels // 8
        self.mb = nn.Parameter(torch.randn(inner, SLOTS))
        self.subnet = nn.Sequential(nn.Linear(channels, inner))
        self.upnet = nn.Sequential(nn.Linear(inner, channels), nn.Sigmoid())
        self.proj = nn.Linear(channels, channels)

    def gate(self, means: Tensor) -> Tensor:
        """Mean tokens (…, C) → channel weights (…, C) in (0, 1)."""
        query = self.subnet(means)
        recall = torch.softmax(query @ self.mb * query.shape[-1] ** -0.5, dim=-1)
        return self.upnet(recall @ self.mb.T)

    def forward(self, tokens: Tensor, *, shift: int) -> Tensor:
        """(B, H, W, C), H and W multiples of the window → same shape; windows are shifted cyclically."""
        rolled = tokens.roll((-shift, -shift), (1, 2)) if shift else tokens
        windows = rolled.unflatten(2, (-1, WINDOW)).unflatten(1, (-1, WINDOW))
        gates = self.gate(windows.mean((2, 4)))[:, :, None, :, None]
        gated = (windows * gates).flatten(3, 4).flatten(1, 2)
        # the projection is per token, so it commutes with rolling back
        return self.proj(gated.roll((shift, shift), (1, 2)) if shift else gated)


class Perceptron(nn.Module):
    """Two linear layers with twice the width and an exact GELU in between."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Linear(channels, 2 * channels)
        self.fc2 = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) → same shape."""
        return self.fc2(F.gelu(self.fc1(x)))


class MemoryBlock(nn.Module):
    """Pre-norm residual block of memory attention and a perceptron."""

    def __init__(self, channels: int, *, shift: int, drop_rate: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Perceptron(channels)
        self.attns = MemoryAttention(channels)
        self.drop_path = StochasticDepth(drop_rate)
        self.shift = shift

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H, W, C) → same shape."""
        tokens = tokens + self.drop_path(self.attns(self.norm1(tokens), shift=self.shift))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class MemModule(nn.Module):
    """3×3 convolution, batch norm, ReLU, and memory blocks, every second one with shifted windows."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(cin, cout, 3, padding=1), nn.BatchNorm2d(cout), nn.ReLU())
        self.mema2m = nn.Sequential(
            *(
                MemoryBlock(cout, shift=i % 2 * WINDOW // 2, drop_rate=DROP_RATE * i / (DEPTH - 1))
                for i in range(DEPTH)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W), H and W multiples of the window → (B, cout, H, W)."""
        return self.mema2m(self.conv1(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()


class UpBlock(nn.Module):
    """Bilinear upsampling by two, 3×3 convolution, batch norm, ReLU."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(cin, cout, 3, padding=1),
            nn.BatchNorm2d(cout),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) → (B, cout, 2H, 2W)."""
        return self.up(x)


class DoubleConv(nn.Module):
    """Twice: 3×3 convolution, batch norm, ReLU."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(cin, cout, 3, padding=1),
            nn.BatchNorm2d(cout),
            nn.ReLU(inplace=True),
            nn.Conv2d(cout, cout, 3, padding=1),
            nn.BatchNorm2d(cout),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) → (B, cout, H, W)."""
        return self.conv(x)


class MADNet(DeeplySupervised):
    """MAD-Net: normalised frames (B, 3, H, W), H and W multiples of 256 → logits.

    In training and evaluation mode, `forward` returns six maps (B, 1, H, W): five of deep supervision and the
    prediction; with `deep_supervision=False` only the prediction. `dim` is the width of the first stage: 16
    in every published configuration, although the default of the authors' class is 64.
    """

    multiple = 256  # windows of 16 cells at stride 16
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, *, dim: int = 16, deep_supervision: bool = True):
        super().__init__()
        if dim < 1:
            raise ValueError(f"{dim = }, expected 1 or more")
        self.dim, self.deep_supervision = dim, deep_supervision
        c1, c2, c3, c4, c5 = (dim * 2**stage for stage in range(5))
        self.Conv1, self.Convtans2 = AdaDCM(len(self.mean), c1), AdaDCM(c1, c2)
        self.Convtans3, self.Convtans4 = AdaDCM(c2, c3), AdaDCM(c3, c4)
        self.Conv5 = MemModule(c4, c5)
        self.Up5, self.Up_conv5 = UpBlock(c5, c4), MemModule(c5, c4)
        self.Up4, self.Up_conv4 = UpBlock(c4, c3), DoubleConv(c4, c3)
        self.Up3, self.Up_conv3 = UpBlock(c3, c2), DoubleConv(c3, c2)
        self.Up2, self.Up_conv2 = UpBlock(c2, c1), DoubleConv(c2, c1)
        self.Conv = nn.Conv2d(c1, 1, 1)
        for number, width in enumerate((c1, c2, c3, c4, c5), start=1):
            self.add_module(f"conv{number}", nn.Conv2d(width, 1, 3, padding=1))

    def _features(self, frames: Tensor) -> list[Tensor]:
        """Returns the decoder features of strides 1, 2, 4, 8 and the encoder features of stride 16."""
        self._check(frames)
        encoded = [self.Conv1(frames)]
        for stage in (self.Convtans2, self.Convtans3, self.Convtans4, self.Conv5):
            encoded.append(stage(max_pool_2x2(encoded[-1])))
        decoded = [encoded.pop()]
        for level in range(5, 1, -1):
            up = self.get_submodule(f"Up{level}")(decoded[0])
            joined = torch.cat([encoded.pop(), up], dim=1)
            decoded.insert(0, self.get_submodule(f"Up_conv{level}")(joined))
        return decoded

    def forward(self, frames: Tensor) -> list[Tensor] | Tensor:
        """See the class."""
        return self._maps(self._features(frames))

    def prediction(self, frames: Tensor) -> Tensor:
        """Logits (B, 1, H, W) of the prediction; side heads are not computed."""
        return self.Conv(self._features(frames)[0])

    @staticmethod
    def infer_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Infers `dim` from the first convolution."""
        first = state.get("Conv1.conv.0.weight")
        return {} if first is None else {"dim": len(first)}


def learning_rate(epoch: float, *, epochs: int = 1500, base: float = 1e-4) -> float:
    """Published learning rate: five epochs of warm-up, then polynomial decay, constant within an epoch.

    Epochs count from 0. As in the published code, the first two epochs have the same rate and the last rate
    is not 0.
    """
    epoch = int(epoch)
    if epoch <= 5:
        return base * max(epoch, 1) / 5
    return base * (1 - (epoch - 5) / epochs) ** 0.9
