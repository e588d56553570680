"""DATransNet: dynamic attention transformer network (Hu et al., IEEE GRSL 2025).

doi 10.1109/LGRS.2025.3557021. Attribute names are those of the published checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.networks.layers.blocks import ConvUnit
from detectors.networks.layers.max_pool import max_pool_2x2
from detectors.networks.segmenters.base import Segmenter, bias_of, exact_sigmoid, inverse_sigmoid
from detectors.networks.segmenters.soft_iou import soft_iou_loss

EPSILON = 1e-12
"""Minimum norm of rows of queries and keys."""


class Residual(nn.Module):
    """Residual block of two 3×3 convolutions with batch norm; LeakyReLU of slope 0.01."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(cin, cout, 3, padding=1), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = nn.Conv2d(cout, cout, 3, padding=1), nn.BatchNorm2d(cout)
        if cin == cout:
            self.shortcut: nn.Module = nn.Identity()
        else:
            self.shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1), nn.BatchNorm2d(cout))

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) → (B, cout, H, W)."""
        y = F.leaky_relu(self.bn1(self.conv1(x)), 0.01)
        return F.leaky_relu(self.bn2(self.conv2(y)) + self.shortcut(x), 0.01)


def neighbour_differences(x: Tensor, weights: Tensor, shift: int) -> Tensor:
    """Weighted sums of the differences between the neighbours at distance `shift` and each pixel.

    x (B, C, H, W) and weights (N, 8·C), or (B, N, 8·C) if they differ by sample, neighbour-major
    → (B, N, H, W). The border is reflected.
    """
    batch, channels = x.shape[:2]
    around = weights.unflatten(-1, (8, channels)).transpose(-1, -2)  # (…, N, C, 8)
    centre = -around.sum(-1, keepdim=True)
    kernels = torch.cat([around[..., :4], centre, around[..., 4:]], dim=-1).unflatten(-1, (3, 3))
    padded = F.pad(x, (shift,) * 4, mode="reflect")
    if kernels.ndim == 4:
        return F.conv2d(padded, kernels, dilation=shift)
    grouped = F.conv2d(padded.flatten(0, 1), kernels.flatten(0, 1), dilation=shift, groups=batch)
    return grouped.unflatten(0, (batch, -1))


def pointwise_weight(conv: nn.Module) -> Tensor:
    """Returns the weight (N, C) of a 1×1 convolution."""
    return conv.get_parameter("weight").flatten(1)


class DirectionalAttention(nn.Module):
    """Channel attention with keys and values from the differences of each pixel to its eight neighbours.

    For every shift r there are C·8 difference maps at distance r, neighbour-major, borders reflected. A 1×1
    convolution of them equals a dilated 3×3 convolution of the map whose centre is the negative sum of the
    other weights, so neither differences nor values are stored.
    """

    def __init__(self, channels: int, *, inner: int, shifts: tuple[int, ...], divisor: float):
        super().__init__()
        width = inner // len(shifts)
        self.shifts, self.divisor = shifts, divisor
        self.query_convs = nn.ModuleList(nn.Conv2d(channels, width, 1, bias=False) for _ in shifts)
        wide = (8 * channels, 8 * width, 1)
        self.key_convs = nn.ModuleList(nn.Conv2d(*wide, bias=False) for _ in shifts)
        self.value_convs = nn.ModuleList(nn.Conv2d(*wide, bias=False) for _ in shifts)
        self.out_conv = nn.Sequential(
            nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )

    def scores(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → normalised scores before the softmax, (B, heads, h, 8h)."""
        heads = len(self.shifts)
        # Rows are interleaved with the shift as the fastest index before they are split into heads, so each
        # head has a part of the channels of all shifts, as published checkpoints require.
        queries = torch.stack([conv(x).flatten(2) for conv in self.query_convs], dim=2).flatten(1, 2)
        queries = F.normalize(queries, dim=-1, eps=EPSILON).unflatten(1, (heads, -1))
        products = []
        for shift, conv in zip(self.shifts, self.key_convs, strict=True):
            keys = neighbour_differences(x, pointwise_weight(conv), shift).flatten(2)
            lengths = torch.linalg.vector_norm(keys, dim=-1).clamp(min=EPSILON).unflatten(1, (heads, 1, -1))
            products.append(queries @ keys.unflatten(1, (heads, -1)).transpose(-1, -2) / lengths)
        scores = torch.stack(products, dim=-1).flatten(-2) / self.divisor
        # the divisor reduces the variance to the order of this epsilon, so it affects the result
        return F.instance_norm(scores, eps=1e-5)

    def attend(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → weighted values (B, inner, H, W)."""
        heads = len(self.shifts)
        weights = torch.softmax(self.scores(x), dim=-1).unflatten(-1, (-1, heads))
        result = x.new_zeros(())
        for index, (shift, conv) in enumerate(zip(self.shifts, self.value_convs, strict=True)):
            values = pointwise_weight(conv).unflatten(0, (heads, -1))
            result = result + neighbour_differences(x, (weights[..., index] @ values).flatten(1, 2), shift)
        return result

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → same shape."""
        # half precision is too coarse for differences of neighbours
        with torch.autocast(x.device.type, enabled=False):
            attended = self.attend(x.to(torch.promote_types(x.dtype, torch.float32)))
        return self.out_conv(attended.to(x.dtype))


class NonLocal(nn.Module):
    """Unscaled attention of all positions to pooled ones, without a skip connection."""

    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.g = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.MaxPool2d(2))
        norm = nn.BatchNorm2d(channels)
        self.W = nn.Sequential(nn.Conv2d(inner, channels, 1), norm)
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.MaxPool2d(2))
        nn.init.zeros_(norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape."""
        q, k, v = (part(x).flatten(2).transpose(1, 2)[:, None] for part in (self.theta, self.phi, self.g))
        attended = F.scaled_dot_product_attention(q, k, v, scale=1.0)[:, 0]
        return self.W(attended.transpose(1, 2).unflatten(2, x.shape[-2:]))


class ChannelWeights(nn.Module):
    """Channel attention in (0, 1) from the averages over the map."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → (B, C, 1, 1)."""
        return torch.sigmoid(self.fc1(x.mean((2, 3), keepdim=True)))


class GlobalFeatures(nn.Module):
    """Global feature extraction (GFEM): non-local features plus the coarse map under channel attention."""

    def __init__(self, channels: int):
        super().__init__()
        self.ca = ChannelWeights(channels)
        self.sp = NonLocal(channels, channels // 8)
        self.tra_conv_1 = nn.Conv2d(channels, channels, 1)
        self.tra_conv_2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.out_conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) with even h and w → same shape."""
        distant = self.sp(x)
        coarse = upsample_2x(max_pool_2x2(x) * self.ca(distant))
        return self.out_conv(self.tra_conv_1(distant) + self.tra_conv_2(coarse))


def upsample_2x(x: Tensor) -> Tensor:
    """Bilinear upsampling by two: (B, C, h, w) → (B, C, 2h, 2w)."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class Decoder(nn.Module):
    """Concatenates the attention of a level with the coarser decoder map, gated by the encoder map."""

    def __init__(self, channels: int, cout: int):
        super().__init__()
        self.nConvs = nn.Sequential(ConvUnit(2 * channels, cout), ConvUnit(cout, cout))
        self.sattn = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Sigmoid())

    def forward(self, coarse: Tensor, attended: Tensor, encoded: Tensor) -> Tensor:
        """(B, C, h, w) and two (B, C, 2h, 2w) → (B, cout, 2h, 2w)."""
        return self.nConvs(torch.cat([attended, self.sattn(encoded) * upsample_2x(coarse)], dim=1))


class Inception(nn.Module):
    """Inception depthwise convolution: identity, 3×3, 1×11 and 11×1, a quarter of the channels each."""

    def __init__(self, channels: int):
        super().__init__()
        part = channels // 4
        self.dwconv_hw = nn.Conv2d(part, part, 3, padding=1, groups=part)
        self.dwconv_w = nn.Conv2d(part, part, (1, 11), padding=(0, 5), groups=part)
        self.dwconv_h = nn.Conv2d(part, part, (11, 1), padding=(5, 0), groups=part)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → same shape."""
        same, square, row, column = x.chunk(4, dim=1)
        return torch.cat([same, self.dwconv_hw(square), self.dwconv_w(row), self.dwconv_h(column)], dim=1)


class DATransNet(Segmenter):
    """DATransNet: grey frames (B, 1, H, W) in [0, 1], H and W multiples of 32 → probability (B, 1, H, W).

    `img_size` is the side of the training images, not of the input: it determines divisors of the attention
    scores. It cannot be inferred from a state dict, so it must be given for weights trained at another size
    (published: NUDT-SIRST 256, IRSTD-1K 512).
    """

    multiple = 32

    def __init__(self, *, img_size: int = 256):
        super().__init__()
        if img_size <= 0:
            raise ValueError(f"{img_size = }, expected more than 0")
        self.img_size = img_size
        self.inc = nn.Sequential(Residual(1, 16))
        self.encoder1, self.encoder2 = nn.Sequential(Residual(16, 32)), nn.Sequential(Residual(32, 64))
        self.encoder3, self.encoder4 = nn.Sequential(Residual(64, 128)), nn.Sequential(Residual(128, 128))
        self.contras1 = DirectionalAttention(16, inner=16, shifts=(1, 3), divisor=img_size)
        self.contras2 = DirectionalAttention(32, inner=32, shifts=(1, 3), divisor=img_size / 2)
        self.contras3 = DirectionalAttention(64, inner=32, shifts=(1, 3), divisor=img_size / 4)
        self.contras4 = DirectionalAttention(128, inner=32, shifts=(1,), divisor=img_size / 8)
        self.GFEM = GlobalFeatures(128)
        self.decoder4, self.decoder3 = Decoder(128, 64), Decoder(64, 32)
        self.decoder2, self.decoder1 = Decoder(32, 16), Decoder(16, 16)
        self.outc = nn.Sequential(Inception(16), nn.Conv2d(16, 1, 1))
        # Unused; published checkpoints contain them, and strict loading requires them.
        self.encoder5, self.decoder5 = nn.Sequential(Residual(128, 128)), Decoder(128, 128)

    def prediction(self, frames: Tensor) -> Tensor:
        """Logits (B, 1, H, W)."""
        self._check(frames)
        encoded = [self.inc(frames)]
        for stage in (self.encoder1, self.encoder2, self.encoder3, self.encoder4):
            encoded.append(stage(max_pool_2x2(encoded[-1])))
        x = self.GFEM(encoded.pop())
        contrasts = (self.contras4, self.contras3, self.contras2, self.contras1)
        decoders = (self.decoder4, self.decoder3, self.decoder2, self.decoder1)
        for contrast, decoder in zip(contrasts, decoders, strict=True):
            level = encoded.pop()
            x = decoder(x, contrast(level), level)
        return self.outc(x)

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        return exact_sigmoid(self.prediction(frames))

    def output_biases(self) -> list[nn.Parameter]:
        """Returns the bias of the last convolution."""
        return [bias_of(self.outc[-1])]

    def logits(self, outputs: Tensor) -> list[Tensor]:
        """Probabilities (B, 1, H, W) → logits of the same shape."""
        return [inverse_sigmoid(outputs)]

    def loss(self, outputs: Tensor, target: Tensor, frames: Tensor | None = None) -> Tensor:
        """Soft IoU loss of probabilities (B, 1, H, W) over the whole batch."""
        return soft_iou_loss(outputs, target, per_image=False)


def learning_rate(epoch: float, *, epochs: int = 400, base: float = 5e-4) -> float:
    """Published learning rate: divided by 10 after 1/2 and 3/4 of the epochs, which count from 0."""
    drops = (int(epoch) >= epochs / 2) + (int(epoch) >= epochs * 3 / 4)
    return base * 0.1**drops
