"""Feature selection of DSTransNet: channel attention over encoder features of all resolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCHES = (16, 8, 4, 2)
"""Side of a token on the feature maps of strides 1, 2, 4, 8; all give the same number of tokens."""
LAYERS = 4
"""Layers of the encoder."""
EXPANSION = 2.66
"""Hidden width of a feed-forward network as a multiple of its width."""
POSITIONS = 256
"""Entries of the position tables, which are unused."""


def pointwise(cin: int, cout: int) -> nn.Conv2d:
    """1×1 convolution without bias."""
    return nn.Conv2d(cin, cout, 1, bias=False)


def spatial(channels: int, kernel: int, *, groups: int) -> nn.Conv2d:
    """Grouped convolution without bias, of constant size."""
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=groups, bias=False)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each token."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape."""
        return self.body(x.movedim(1, -1)).movedim(-1, 1)


def attention(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Attention weights of `queries` (B, q, N) and `keys` (B, k, N): (B, q, k), rows sum to 1.

    Products of unit queries with unnormalised keys, times `scale`, are normalised over the matrix of each
    sample. The epsilon of the norm is not small compared to such products, so the scale has an effect.
    """
    products = F.normalize(queries, dim=-1) @ keys.mT
    return torch.softmax(F.layer_norm(products * scale, products.shape[1:]), dim=-1)


class ChannelAttention(nn.Module):
    """Attention among all channels, then of the channels of each resolution to the result."""

    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        total = sum(widths)
        self.levels = range(1, len(widths) + 1)
        self.scale = total**-0.5
        for level, width in zip(self.levels, widths, strict=True):
            self.add_module(f"mhead{level}", pointwise(width, width))
            self.add_module(f"q{level}", spatial(width, 3, groups=width // 2))
            self.add_module(f"project_out{level}", pointwise(width, width))
        for role in "qkv":
            self.add_module(f"mhead{role}_C", pointwise(total, total))
            self.add_module(f"{role}_C", spatial(total, 3, groups=total))

    def forward(self, parts: list[Tensor], joined: Tensor) -> list[Tensor]:
        """Normalised tokens (B, C_i, h, w) of each level, and (B, ΣC_i, h, w) of all → as the levels."""
        queries, keys, values = (
            self.get_submodule(f"{role}_C")(self.get_submodule(f"mhead{role}_C")(joined)).flatten(2)
            for role in "qkv"
        )
        mixed = attention(queries, F.normalize(keys, dim=-1), self.scale) @ values
        found = []
        for level, part in zip(self.levels, parts, strict=True):
            query = self.get_submodule(f"q{level}")(self.get_submodule(f"mhead{level}")(part))
            chosen = attention(query.flatten(2), mixed, self.scale) @ mixed
            found.append(self.get_submodule(f"project_out{level}")(chosen.view_as(part)))
        return found


class ChannelGate(nn.Module):
    """Channel attention from a convolution along the channels of the averages over the map."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(1, 1, 3, padding=1, bias=False), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape."""
        return x * self.conv(x.mean((2, 3))[:, None])[:, 0, :, None, None]


class FeedForward(nn.Module):
    """Expansion whose halves pass depthwise 3×3 and 5×5 convolutions, and channel attention."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = int(EXPANSION * channels)
        self.project_in = pointwise(channels, 2 * hidden)
        self.dwconv3x3 = spatial(hidden, 3, groups=hidden)
        self.dwconv5x5 = spatial(hidden, 5, groups=hidden)
        self.project_out = pointwise(2 * hidden, channels)
        self.eca = ChannelGate()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape."""
        near, far = self.project_in(x).chunk(2, dim=1)
        wide = torch.cat([self.dwconv3x3(near), self.dwconv5x5(far)], dim=1).relu_()
        return self.eca(self.project_out(wide))


class Layer(nn.Module):
    """Pre-norm residual layer of channel attention and feed-forward networks."""

    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        self.attn_norm = ChannelNorm(sum(widths))
        self.channel_attn = ChannelAttention(widths)
        for level, width in enumerate(widths, start=1):
            self.add_module(f"attn_norm{level}", ChannelNorm(width))
            self.add_module(f"ffn_norm{level}", ChannelNorm(width))
            self.add_module(f"ffn{level}", FeedForward(width))

    def forward(self, tokens: list[Tensor]) -> list[Tensor]:
        """Tokens (B, C_i, h, w) of each level → same shapes."""
        joined = self.attn_norm(torch.cat(tokens, dim=1))
        parts = [self.get_submodule(f"attn_norm{i}")(token) for i, token in enumerate(tokens, start=1)]
        found = self.channel_attn(parts, joined)
        tokens = [token + change for token, change in zip(tokens, found, strict=True)]
        for i, token in enumerate(tokens, start=1):
            tokens[i - 1] = token + self.get_submodule(f"ffn{i}")(self.get_submodule(f"ffn_norm{i}")(token))
        return tokens


class Encoder(nn.Module):
    """Stack of layers with a final norm for each level."""

    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        self.layer = nn.ModuleList(Layer(widths) for _ in range(LAYERS))
        for level, width in enumerate(widths, start=1):
            self.add_module(f"encoder_norm{level}", ChannelNorm(width))

    def forward(self, tokens: list[Tensor]) -> list[Tensor]:
        """Tokens (B, C_i, h, w) of each level → same shapes."""
        for layer in self.layer:
            tokens = layer(tokens)
        return [self.get_submodule(f"encoder_norm{i}")(token) for i, token in enumerate(tokens, start=1)]


class Embedding(nn.Module):
    """Patch embedding."""

    def __init__(self, channels: int, patch: int):
        super().__init__()
        self.patch_embeddings = nn.Conv2d(channels, channels, patch, stride=patch)
        self.position_embeddings = nn.Parameter(torch.zeros(1, POSITIONS, channels))  # unused

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H / patch, W / patch)."""
        return self.patch_embeddings(x)


class Reconstruction(nn.Module):
    """Bilinear upsampling of tokens to a map, 1×1 convolution, batch norm, ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, C, h, w) → (B, C, *size)."""
        # the 1×1 convolution commutes with interpolation, and the tokens are far fewer
        wide = F.interpolate(self.conv(tokens), size, mode="bilinear", align_corners=False)
        return torch.relu(self.norm(wide))


class Selection(nn.Module):
    """Enhances the features of four resolutions by attention among all of them."""

    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        for level, (width, patch) in enumerate(zip(widths, PATCHES, strict=True), start=1):
            self.add_module(f"embeddings_{level}", Embedding(width, patch))
            self.add_module(f"reconstruct_{level}", Reconstruction(width))
        self.encoder = Encoder(widths)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Maps (B, C_i, H_i, W_i) of strides 1, 2, 4, 8 → same shapes."""
        levels = range(1, len(features) + 1)
        tokens = [self.get_submodule(f"embeddings_{i}")(x) for i, x in zip(levels, features, strict=True)]
        return [
            self.get_submodule(f"reconstruct_{i}")(token, x.shape[-2:]) + x
            for i, token, x in zip(levels, self.encoder(tokens), features, strict=True)
        ]
