"""Background estimator of DCONet: a U-Net with dilated mixtures and attention between tokens.

doi 10.1109/LGRS.2025.3597969. Attribute names are those of the published checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.networks.layers.max_pool import max_pool_2x2

WIDTHS = (16, 32, 64, 128, 256, 512)
"""Channels of the background estimator at strides 1 to 32."""
DILATIONS = (2, 8, 12, 18)
"""Dilations of the four groups of channels in `DilatedMixture`."""


class AxialConv(nn.Module):
    """The input plus a vertical and a horizontal depthwise convolution of 7 cells."""

    def __init__(self, channels: int):
        super().__init__()
        self.dw_h = nn.Conv2d(channels, channels, (7, 1), padding=(3, 0), groups=channels)
        self.dw_w = nn.Conv2d(channels, channels, (1, 7), padding=(0, 3), groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → same shape."""
        return x + self.dw_h(x) + self.dw_w(x)


class Encoder(nn.Module):
    """Axial convolution and batch norm, the skip; then 1×1 convolution, 2×2 max pooling and GELU."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.dw = AxialConv(cin)
        self.bn = nn.BatchNorm2d(cin)
        self.pw = nn.Conv2d(cin, cout, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, cin, H, W) → (B, cout, H / 2, W / 2) and the skip (B, cin, H, W)."""
        skip = self.bn(self.dw(x))
        return F.gelu(max_pool_2x2(self.pw(skip))), skip


class Decoder(nn.Module):
    """Concatenates the upsampled map and the skip: 1×1, batch norm, axial, 1×1 convolution, GELU."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.pw = nn.Conv2d(cin + cout, cout, 1)
        self.bn = nn.BatchNorm2d(cout)
        self.dw = AxialConv(cout)
        self.pw2 = nn.Conv2d(cout, cout, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, cin, h, w) and (B, cout, 2h, 2w) → (B, cout, 2h, 2w)."""
        joined = torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skip], dim=1)
        return F.gelu(self.pw2(self.dw(self.bn(self.pw(joined)))))


class ConvNormReLU(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, cin: int, cout: int, kernel: int, *, dilation: int = 1, groups: int = 1):
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(cin, cout, kernel, padding=padding, dilation=dilation, groups=groups)
        self.norm = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) → (B, cout, H, W)."""
        return torch.relu(self.norm(self.conv(x)))


class DilatedMixture(nn.Module):
    """Multi-dilation channel refiner (MDCR): each quarter of the channels at another dilation, then mixed."""

    def __init__(self, channels: int):
        super().__init__()
        quarter = channels // 4
        for number, dilation in enumerate(DILATIONS, start=1):
            block = ConvNormReLU(quarter, quarter, 3, dilation=dilation, groups=quarter)
            self.add_module(f"block{number}", block)
        self.out_s = ConvNormReLU(4, 4, 1)
        self.out = ConvNormReLU(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape."""
        parts = [self.get_submodule(f"block{i}")(part) for i, part in enumerate(x.chunk(4, dim=1), start=1)]
        groups = torch.stack(parts, dim=2)  # (B, C / 4, 4, h, w): group q holds channel q of each quarter
        return self.out(self.mix(groups).flatten(1, 2))

    def mix(self, groups: Tensor) -> Tensor:
        """Applies the block `out_s` to all groups (B, G, 4, h, w), in the order 0 to G − 1 → same shape.

        The published network calls the block once per group. In training, each call uses the statistics of
        its own group and updates the running statistics, which the last groups therefore dominate; trained
        networks depend on it. One batch norm of 4·G channels is equivalent.
        """
        batch, count = groups.shape[:2]
        if not self.training:
            return self.out_s(groups.flatten(0, 1)).unflatten(0, (batch, count))
        norm = self.out_s.norm
        mixed = self.out_s.conv(groups.flatten(0, 1)).unflatten(0, (batch, count)).flatten(1, 2)
        scale, offset = norm.weight.repeat(count), norm.bias.repeat(count)
        mean, var = offset.new_zeros(offset.shape), offset.new_zeros(offset.shape)
        # momentum 1 writes the statistics of this batch, with the unbiased variance, to the buffers
        mixed = F.batch_norm(mixed, mean, var, scale, offset, training=True, momentum=1.0, eps=norm.eps)
        self._update_statistics(mean.view(count, 4), var.view(count, 4))
        return torch.relu(mixed).unflatten(1, (count, 4))

    @torch.no_grad()
    def _update_statistics(self, means: Tensor, variances: Tensor) -> None:
        """Updates the running statistics of `out_s` by those of its groups (G, 4), one after another."""
        norm, count = self.out_s.norm, len(means)
        momentum, mean, var, batches = (
            norm.momentum,
            norm.running_mean,
            norm.running_var,
            norm.num_batches_tracked,
        )
        assert momentum is not None
        assert mean is not None
        assert var is not None
        assert batches is not None
        keep = 1 - momentum
        weights = momentum * keep ** torch.arange(count - 1, -1, -1).to(means)
        for running, observed in ((mean, means), (var, variances)):
            running.mul_(keep**count).add_(weights @ observed)
        batches += count


class TokenAttention(nn.Module):
    """Token attention (SOA) with squared deviations as queries and keys; linear in the number of tokens."""

    def __init__(self, channels: int):
        super().__init__()
        self.lnqkv = nn.Linear(channels, 3 * channels)
        self.ln = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape."""
        tokens = x.flatten(2).transpose(1, 2)
        query, key, value = self.lnqkv(tokens).chunk(3, dim=-1)
        joined = value + attend(query, key, value) + tokens
        return self.ln(joined).transpose(1, 2).unflatten(2, x.shape[-2:])


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Linear attention of (B, N, C) each → (B, N, C), in at least float32 because squares are small."""
    exact = torch.promote_types(value.dtype, torch.float32)
    with torch.autocast(value.device.type, enabled=False):
        query, key = deviation(query.to(exact)), deviation(key.to(exact))
        # queries are normalised along the channels, keys along the tokens
        memory = F.normalize(key, dim=1).transpose(1, 2) @ value.to(exact)
        attended = F.normalize(query, dim=2) @ memory * value.shape[1] ** -0.5
    return attended.to(value.dtype)


def deviation(tokens: Tensor) -> Tensor:
    """Squared deviations from the mean of each token, normalised to a sum of 1: (B, N, C) → same shape."""
    squares = (tokens - tokens.mean(-1, keepdim=True)).square()
    return squares / (squares.sum(-1, keepdim=True) + 1e-7)


class Bottleneck(nn.Module):
    """Dilated mixture and token attention."""

    def __init__(self, channels: int):
        super().__init__()
        self.att = TokenAttention(channels)
        self.mdcr = DilatedMixture(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape."""
        return self.att(self.mdcr(x))


class UNet(nn.Module):
    """U-Net that estimates the background of an image."""

    def __init__(self):
        super().__init__()
        self.conv_in = nn.Conv2d(1, WIDTHS[0], 7, padding=3)
        for level in range(1, len(WIDTHS)):
            self.add_module(f"e{level}", Encoder(WIDTHS[level - 1], WIDTHS[level]))
            self.add_module(f"d{level}", Decoder(WIDTHS[level], WIDTHS[level - 1]))
        self.b5 = Bottleneck(WIDTHS[-1])
        self.conv_out = nn.Conv2d(WIDTHS[0], 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, H, W), H and W multiples of 32 → same shape."""
        x, skips = self.conv_in(image), []
        for level in range(1, len(WIDTHS)):
            x, skip = self.get_submodule(f"e{level}")(x)
            skips.append(skip)
        x = self.b5(x)
        for level in range(len(WIDTHS) - 1, 0, -1):
            x = self.get_submodule(f"d{level}")(x, skips.pop())
        return self.conv_out(x)
