"""DRTENet: dual-focus residual tensor enhancement network (IEEE TGRS 2025, doi 10.1109/TGRS.2025.3603991).

Attribute names are those of the published sources; `Conv`, `Conv1` and `conv1` are three modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.networks.layers.deformable import DeformableConv
from detectors.networks.segmenters.base import DeeplySupervised
from detectors.networks.segmenters.edge_saliency import edge_images
from detectors.networks.segmenters.madnet import DoubleConv, UpBlock, learning_rate
from detectors.networks.segmenters.resampling import resample_to_network
from pipeline.imaging.geometry import Geometry

__all__ = ["DRTENet", "learning_rate"]

WIDTH = 32
"""Channels of the first stage."""
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
"""Kernel of the Gaussian pyramid along each axis."""


def unit(cin: int, cout: int, *, dilation: int = 1) -> nn.Sequential:
    """3×3 convolution of constant size, batch norm, ReLU."""
    conv = nn.Conv2d(cin, cout, 3, padding=dilation, dilation=dilation)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), nn.ReLU(inplace=True))


class DilatedU(nn.Module):
    """U-shaped block of dilated convolutions at one resolution."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.conv1 = unit(cin, cout)
        self.dconv1 = unit(cout, cout // 2, dilation=2)
        self.dconv2 = unit(cout // 2, cout // 2, dilation=4)
        self.dconv3 = unit(cout, cout, dilation=2)
        self.conv2 = unit(2 * cout, cout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) → (B, cout, h, w)."""
        x = self.conv1(x)
        middle = self.dconv1(x)
        wide = self.dconv3(torch.cat([middle, self.dconv2(middle)], dim=1))
        return self.conv2(torch.cat([x, wide], dim=1))


class Basic(nn.Module):
    """Residual block of two 3×3 convolutions with batch norm."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape."""
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + x)


class OuterAttention(nn.Module):
    """Attention weights from the outer product of two vectors, each a linear layer of all pixels."""

    def __init__(self, channels: int, side: int):
        super().__init__()
        self.query_conv = nn.Conv2d(channels, 1, 1)
        self.key_conv = nn.Conv2d(channels, 1, 1)
        self.query_line = nn.Linear(side * side, side)
        self.key_line = nn.Linear(side * side, side)
        self.s_conv = nn.Conv2d(1, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, h) → weights (B, C, h, h) whose rows sum to 1."""
        query = self.query_line(self.query_conv(x).flatten(1))
        key = self.key_line(self.key_conv(x).flatten(1))
        return torch.softmax(self.s_conv((query[:, :, None] * key[:, None, :])[:, None]), dim=-1)


class Attention(nn.Module):
    """Sum of the input, convolved features, and convolved features with their rows mixed by attention."""

    def __init__(self, channels: int, side: int):
        super().__init__()
        plain = [unit(channels, channels) for _ in range(3)]
        dilated = [unit(channels, channels, dilation=dilation) for dilation in (2, 4, 2)]
        self.conv = nn.ModuleDict({"convs": nn.Sequential(*plain)})
        self.dconv = nn.ModuleDict({"dconvs": nn.Sequential(*dilated)})
        self.att = OuterAttention(channels, side)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, h) → same shape."""
        values = self.conv["convs"](x) + self.dconv["dconvs"](x)
        return self.gamma * (self.att(x) @ values) + values + x


class FeedForward(nn.Module):
    """Sum of a 3×3 and a 1×1 convolution, each with batch norm and ReLU."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.conv = unit(cin, cout)
        self.x_conv = nn.Sequential(nn.Conv2d(cin, cout, 1), nn.BatchNorm2d(cout), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) → (B, cout, h, w)."""
        return self.conv(x) + self.x_conv(x)


class ConvTransformer(nn.Module):
    """Attention and a convolutional feed-forward layer for maps of `side` × `side` cells."""

    def __init__(self, cin: int, cout: int, side: int):
        super().__init__()
        self.attention = Attention(cin, side)
        self.feedforward = FeedForward(cin, cout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, side, side) → (B, cout, side, side)."""
        return self.feedforward(self.attention(x))


class DFOM(nn.Module):
    """Dual-focus fusion of encoder and decoder features by their sum and their product."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_x1_sum, self.conv_x1_mul = (
            nn.Conv2d(channels, channels, 1),
            nn.Conv2d(channels, channels, 1),
        )
        self.Dcn_sum, self.Dcn_mul = (
            DeformableConv(channels, channels, 3),
            DeformableConv(channels, channels, 3),
        )
        self.value_conv_2, self.value_conv_3 = (nn.Conv2d(channels, channels, 1) for _ in range(2))
        self.conv_di2 = nn.Conv2d(2 * channels, channels, 1)
        self.conv_x2 = nn.Conv2d(channels, 2 * channels, 1)
        self.bottomup = nn.Sequential(*self._gate(channels))
        self.topdown = nn.Sequential(nn.AdaptiveAvgPool2d(1), *self._gate(channels))
        self._add_unused(channels)

    @staticmethod
    def _gate(channels: int) -> list[nn.Module]:
        narrow = channels // 4
        squeeze = [nn.Conv2d(channels, narrow, 1), nn.BatchNorm2d(narrow), nn.ReLU(inplace=True)]
        return [*squeeze, nn.Conv2d(narrow, channels, 1), nn.BatchNorm2d(channels), nn.Sigmoid()]

    def _add_unused(self, channels: int) -> None:
        """Adds unused parameters that published checkpoints contain."""
        self.query_conv, self.key_conv = (nn.Conv2d(channels, channels // 2, 1) for _ in range(2))
        self.gamma_2, self.gamma_3 = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        for name in ("conv_2", "conv_3"):
            conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            first = nn.ModuleDict({"conv": conv, "bn": nn.BatchNorm2d(channels)})
            self.add_module(name, nn.ModuleDict({"0": first, "3": nn.Conv2d(channels, channels, 1)}))
        self.conv_out = nn.ModuleDict({"1": nn.Conv2d(channels, channels, 1)})
        self.SA = nn.ModuleDict({"conv1": nn.Conv2d(2, 1, 7, padding=3, bias=False)})

    def forward(self, encoded: Tensor, decoded: Tensor) -> Tensor:
        """Two features (B, C, h, w) → (B, 2C, h, w); training needs a batch of at least two."""
        total, product = encoded + decoded, encoded * decoded
        value_sum, value_product = self.value_conv_2(total), self.value_conv_3(product)
        focus_sum = self.Dcn_sum(self.conv_x1_sum(total))
        focus_product = self.Dcn_mul(self.conv_x1_mul(product))
        # both paths share the gates and update their running statistics, so the order matters
        gate_sum = self.bottomup(self.conv_di2(torch.cat([focus_sum, value_sum], dim=1)))
        gate_product = self.bottomup(self.conv_di2(torch.cat([focus_product, value_product], dim=1)))
        weight_sum = self.topdown(encoded * gate_sum * gate_product)
        weight_product = self.topdown(value_product)
        # the published block adds each product to itself
        return self.conv_x2(2 * (weight_sum * value_sum + weight_product * value_product))


def _reduce(x: Tensor) -> Tensor:
    """Binomial filter and subsampling: (B, C, H, W) → (B, C, ceil(H / 2), ceil(W / 2)); border reflected."""
    channels = x.shape[1]
    kernel = x.new_tensor(BINOMIAL).expand(channels, 1, 1, 5)
    padded = F.pad(x, (2, 2, 2, 2), mode="reflect")
    rows = F.conv2d(padded, kernel, stride=(1, 2), groups=channels)
    return F.conv2d(rows, kernel.mT, stride=(2, 1), groups=channels)


@torch.no_grad()
def edge_pyramid(edges: Tensor) -> tuple[Tensor, Tensor]:
    """Edge images (B, 3, S, S) → edge maps for the features of strides 4 and 8.

    Gaussian reductions by 2 and by 4 are each interpolated bilinearly to half their size with aligned
    corners: one octave finer than the features, as in the published training.
    """
    half = _reduce(edges)
    levels = (half, _reduce(half))
    first, second = (
        F.interpolate(level, (edges.shape[-1] // stride,) * 2, mode="bilinear", align_corners=True)
        for level, stride in zip(levels, (4, 8), strict=True)
    )
    return first, second


def fuse(feature: Tensor, edge: Tensor, residual: Basic) -> Tensor:
    """Feature and edge feature (B, C, h, w) → feature (B, C, h, w) enhanced at edges."""
    mixed = (feature + edge) * edge
    return residual(mixed) + mixed + feature


class DRTENet(DeeplySupervised):
    """DRTENet: normalised frames (B, 3, S, S), edge images (B, 3, S, S) in [0, 1] → logits; S is `ori_h`.

    In training and evaluation mode, `forward` returns six maps (B, 1, S, S): five of deep supervision and the
    prediction; with `deep_supervision=False` only the prediction. Linear layers over all pixels fix the size:
    `ori_h` is a multiple of 16, and the number of parameters grows with its cube (64 M at 256, 303 M at 512).
    `dim` must be 32, since the edge branches of the published network fit no other width.

    Edge images are those of `detectors.networks.segmenters.edge_saliency`; the authors published neither
    images nor a method.
    """

    fixed_size: int
    """Rows and columns of every input."""
    tc1_b: nn.Conv2d
    tc2_b: nn.Conv2d
    tc3_b: nn.Conv2d
    res1_b: Basic
    res2_b: Basic
    res3_b: Basic

    multiple = 16
    min_batch = 2  # some batch norms have one value per image
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, *, ori_h: int = 256, dim: int = WIDTH, deep_supervision: bool = True):
        super().__init__()
        if dim != WIDTH:
            raise ValueError(f"{dim = }, expected {WIDTH}: the edge branches have fixed widths")
        if ori_h < 16 or ori_h % self.multiple:
            raise ValueError(f"{ori_h = }, expected a multiple of {self.multiple}")
        self.fixed_size = ori_h
        self.deep_supervision = deep_supervision
        c1, c2, c3, c4, c5 = (dim * 2**stage for stage in range(5))
        self.Conv1 = DoubleConv(len(self.mean), c1)
        self.Convtans2 = ConvTransformer(c1, c2, ori_h)
        self.Convtans3 = ConvTransformer(c2, c3, ori_h // 4)
        self.Convtans4 = ConvTransformer(c3, c4, ori_h // 8)
        self.Conv5 = DilatedU(c4, c5)
        self.Up5, self.DFOM1, self.Up_conv5 = UpBlock(c5, c4), DFOM(c4), DilatedU(c5, c4)
        self.Up4, self.DFOM2, self.Up_conv4 = UpBlock(c4, c3), DFOM(c3), DoubleConv(c4, c3)
        self.Up3, self.DFOM3, self.Up_conv3 = UpBlock(c3, c2), DFOM(c2), DoubleConv(c3, c2)
        self.Up2, self.Up_conv2 = UpBlock(c2, c1), DoubleConv(c2, c1)
        self.Conv = nn.Conv2d(c1, 1, 1)
        for number, width in enumerate((c1, c2, c3, c4, c5), start=1):
            self.add_module(f"conv{number}", nn.Conv2d(width, 1, 3, padding=1))
        self._add_edge_branches()

    def _add_edge_branches(self) -> None:
        """Adds the edge branches of width 32 (suffix b) and the unused ones of widths 16 and 64."""
        for number in (1, 2, 3):
            for suffix, factor in (("", 8), ("_l", 64), ("_b", 32)):
                width = factor * 2**number
                self.add_module(f"tc{number}{suffix}", nn.Conv2d(3, width, 1, bias=False))
                self.add_module(f"res{4 - number}{suffix or '_s'}", Basic(width))

    def _check_both(self, frames: Tensor, edges: Tensor) -> None:
        expected = (len(frames), 3, self.fixed_size, self.fixed_size)
        for name, given in (("frames", frames), ("edges", edges)):
            if given.shape != expected:
                raise ValueError(f"{name} are {tuple(given.shape)}, expected {expected}")

    def _features(self, frames: Tensor, edges: Tensor) -> list[Tensor]:
        """Returns the decoder features of strides 1, 2, 4, 8 and the encoder features of stride 16."""
        self._check_both(frames, edges)
        second, third = edge_pyramid(edges)
        e1 = self.Conv1(frames)
        e2 = fuse(self.Convtans2(e1), self.tc1_b(edges), self.res3_b)
        e2 = F.max_pool2d(e2, 2)  # pooled before the skip connection, and again before the next stage
        e3 = fuse(self.Convtans3(F.max_pool2d(e2, 2)), self.tc2_b(second), self.res2_b)
        e4 = fuse(self.Convtans4(F.max_pool2d(e3, 2)), self.tc3_b(third), self.res1_b)
        e5 = self.Conv5(F.max_pool2d(e4, 2))
        d5 = self.Up_conv5(self.DFOM1(e4, self.Up5(e5)))
        d4 = self.Up_conv4(self.DFOM2(e3, self.Up4(d5)))
        d3 = self.Up_conv3(self.DFOM3(e2, self.Up3(d4)))
        d2 = self.Up_conv2(torch.cat([e1, self.Up2(d3)], dim=1))
        return [d2, d3, d4, d5, e5]

    def forward(self, frames: Tensor, edges: Tensor) -> list[Tensor] | Tensor:
        """See the class."""
        return self._maps(self._features(frames, edges))

    def prediction(self, frames: Tensor, edges: Tensor) -> Tensor:
        """Logits (B, 1, S, S) of the prediction; side heads are not computed."""
        return self.Conv(self._features(frames, edges)[0])

    def geometry(self, size: tuple[int, int], *, enlarge: float = 1.0) -> Geometry:
        """Returns the geometry that stretches images of any (width, height) to the size of the network."""
        return Geometry.stretch(size, (self.fixed_size, self.fixed_size))

    def inputs(self, images: Tensor, geometry: Geometry) -> tuple[Tensor, ...]:
        """See `Segmenter`; edge images are computed in source pixels and resampled like the frames."""
        edges = edge_images(list(images[:, 0].float().cpu().numpy())).to(images)
        return *super().inputs(images, geometry), resample_to_network(edges, geometry)

    @staticmethod
    def infer_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Infers `ori_h` from the first linear layer."""
        rows = state.get("Convtans2.attention.att.query_line.bias")
        return {} if rows is None else {"ori_h": len(rows)}
