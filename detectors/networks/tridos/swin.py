"""Video Swin Transformer of two layers, the global branch of Tridos' frequency domain (LGFM).

Liu et al., "Video Swin Transformer", CVPR 2022, with Tridos' windows of 5 frames × 4 columns × 4 rows and
tokens in the order frame, column, row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.networks.tridos.learned_attention import attend

WINDOW = 4
"""Cells of a window along each spatial axis."""
HEADS = 4
"""Number of attention heads."""


def relative_position_index(frames: int) -> Tensor:
    """Returns (N, N) int64 rows of the bias table for each pair of the N = frames·16 tokens of a window."""
    axes = torch.meshgrid(*(torch.arange(n) for n in (frames, WINDOW, WINDOW)), indexing="ij")
    places = torch.stack(axes).flatten(1)  # (3, N): frame, column, row
    difference = places[:, :, None] - places[:, None, :]
    span = 2 * WINDOW - 1
    t, c, r = difference[0] + frames - 1, difference[1] + WINDOW - 1, difference[2] + WINDOW - 1
    return t * span * span + c * span + r


def _to_windows(x: Tensor) -> Tensor:
    """(B, T, h, w, C) → (B, windows, T·16, C), tokens in the order frame, column, row."""
    b, t, h, w, c = x.shape
    x = x.reshape(b, t, h // WINDOW, WINDOW, w // WINDOW, WINDOW, c)
    return x.permute(0, 2, 4, 1, 5, 3, 6).reshape(b, -1, t * WINDOW * WINDOW, c)


def _from_windows(x: Tensor, shape: torch.Size) -> Tensor:
    """Inverse of `_to_windows` for a map of shape (B, T, h, w, C)."""
    b, t, h, w, _ = shape
    x = x.reshape(b, h // WINDOW, w // WINDOW, t, WINDOW, WINDOW, x.shape[-1])
    return x.permute(0, 3, 1, 5, 2, 4, 6).reshape(b, t, h, w, x.shape[-1])


def shift_mask(shape: Sequence[int], shift: Sequence[int], like: Tensor) -> Tensor:
    """Returns (windows, N, N) of 0 and −100, which masks tokens that only the cyclic shift made neighbours.

    `shape` is (B, T, h, w, C) of the map; dtype and device are those of `like`.
    """
    _, t, h, w, _ = shape
    labels = torch.zeros(1, t, h, w, 1, device=like.device)
    for axis, (length, amount) in zip((2, 3), ((h, shift[0]), (w, shift[1])), strict=True):
        if amount:
            places = torch.arange(length, device=like.device)
            region = (places >= length - WINDOW).float() + (places >= length - amount).float()
            view = [1] * 5
            view[axis] = length
            labels = 3 * labels + region.view(view)
    windows = _to_windows(labels)[0, :, :, 0]  # (windows, N)
    return -100.0 * (windows[:, :, None] != windows[:, None, :]).to(like.dtype)


class WindowAttention(nn.Module):
    """Multi-head attention within windows, with a learned bias per relative position."""

    relative_position_index: Tensor
    chunked = False
    """Compute gradients on a CPU a few windows at a time: faster, and equal up to rounding."""

    def __init__(self, channels: int, *, frames: int):
        super().__init__()
        span = 2 * WINDOW - 1
        table = torch.empty((2 * frames - 1) * span * span, HEADS)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        self.register_buffer("relative_position_index", relative_position_index(frames))
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)

    def forward(self, qkv: Tensor, mask: Tensor | None) -> Tensor:
        """Projected tokens (B, windows, N, 3C), mask (windows, N, N) or None → (B, windows, N, C)."""
        b, windows, tokens, channels = qkv.shape
        channels //= 3
        q, k, v = qkv.reshape(b * windows, tokens, 3, HEADS, channels // HEADS).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        # (1, heads, N, N), contiguous while it is small: else the kernel copies the sum with the mask
        bias = bias.view(1, tokens, tokens, HEADS).permute(0, 3, 1, 2).contiguous()
        if self.chunked and bias.requires_grad and bias.device.type == "cpu":
            mask = None if mask is None else mask[:, None].repeat(b, 1, 1, 1)
            out = attend(q, k, v, bias, mask)
            return self.proj(out.transpose(1, 2).reshape(b, windows, tokens, channels))
        bias = bias.to(q.dtype)
        if mask is not None:
            bias = (bias + mask[:, None]).expand(b, -1, -1, -1, -1).flatten(0, 1)  # no copy when b is 1
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(out.transpose(1, 2).reshape(b, windows, tokens, channels))


class FeedForward(nn.Module):
    """Two linear layers with an exact GELU in between."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) → same shape."""
        return self.fc2(F.gelu(self.fc1(x)))


class SwinLayer(nn.Module):
    """Pre-norm window attention and feed-forward on (B, T, h, w, C), windows shifted by `shift` cells."""

    def __init__(self, channels: int, *, frames: int, shift: int):
        super().__init__()
        self.shift = shift
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, frames=frames)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = FeedForward(channels)

    def project(self, x: Tensor) -> Tensor:
        """Token-wise part of the attention: (..., C) → queries, keys and values (..., 3C)."""
        return self.attn.qkv(self.norm1(x))

    def forward(self, x: Tensor, qkv: Tensor | None = None) -> Tensor:
        """(B, T, h, w, C) → same shape; `qkv` (B, T, h, w, 3C) is the result of `project` if known."""
        qkv = self.project(x) if qkv is None else qkv
        rows, columns = x.shape[2:4]
        # an axis with a single window is not shifted
        shift = [self.shift if length > WINDOW else 0 for length in (rows, columns)]
        mask = None
        if any(shift):
            qkv = qkv.roll((-shift[0], -shift[1]), dims=(2, 3))
            mask = shift_mask(x.shape, shift, qkv)
        attended = _from_windows(self.attn(_to_windows(qkv), mask), x.shape)
        if any(shift):
            attended = attended.roll(shift, dims=(2, 3))
        x = x + attended
        return x + self.mlp(self.norm2(x))


class Swin(nn.Module):
    """Two layers: regular windows, then windows shifted by half their size in space."""

    def __init__(self, channels: int, *, frames: int):
        super().__init__()
        layers = (SwinLayer(channels, frames=frames, shift=shift) for shift in (0, WINDOW // 2))
        self.tr = nn.ModuleList(layers)

    def project(self, frame: Tensor) -> Tensor:
        """Computes the part of the first layer that depends on one frame: (B, C, h, w) → (B, h, w, 3C)."""
        first = self.tr[0]
        assert isinstance(first, SwinLayer)
        return first.project(frame.permute(0, 2, 3, 1))

    def forward(self, frames: Tensor, qkv: Tensor | None = None) -> Tensor:
        """(B, T, C, h, w) → same shape; `qkv` (B, T, h, w, 3C) is the result of `project` if known."""
        x = frames.permute(0, 1, 3, 4, 2)
        x = self.tr[1](self.tr[0](x, qkv))
        return x.permute(0, 1, 4, 2, 3)


def use_chunked_attention(model: nn.Module) -> None:
    """Makes the window attention of a network compute its gradients in chunks."""
    for module in model.modules():
        if isinstance(module, WindowAttention):
            module.chunked = True
