"""Attention over space and time for evaluation alone: `swin.py`, arranged for speed.

Maps lie in memory as rows, columns, frames, channels, as a convolution over the channels of all frames wants
them, and tokens of a window in the order row, column, frame: they are copied in long runs. Some rows of
windows after another pass a whole layer, so that what they become in between fits a processor's cache.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.networks.tridos.optimised.convolutions import Linear
from detectors.networks.tridos.swin import HEADS, WINDOW, Swin, SwinLayer, _shift_mask

TOKENS = 2560
"""Tokens that a CPU takes through a window layer at once: what they become stays in its cache."""

SCORES = 128_000
"""Attention scores that a CPU stores at once."""

WIDE_HEAD = 16
"""Channels of an attention head from which, in float32, a CPU is faster with torch's fused kernel."""


def _to_windows(x: Tensor) -> Tensor:
    """(B, h, w, T, C) → (B, windows, 16·T, C), a copy; tokens in the order row, column, frame."""
    b, h, w, t, c = x.shape
    windows = x.new_empty(b, h // WINDOW, w // WINDOW, WINDOW, WINDOW, t, c)
    windows.copy_(x.unflatten(2, (-1, WINDOW)).unflatten(1, (-1, WINDOW)).transpose(2, 3))
    return windows.view(b, -1, WINDOW * WINDOW * t, c)


def _from_windows(windows: Tensor, out: Tensor) -> None:
    """Inverse of `_to_windows`, into a map (B, h, w, T, C)."""
    b, h, w, t, c = out.shape
    windows = windows.view(b, h // WINDOW, w // WINDOW, WINDOW, WINDOW, t, c).transpose(2, 3)
    out.unflatten(2, (-1, WINDOW)).unflatten(1, (-1, WINDOW)).copy_(windows)


def _reordered(pairs: Tensor, frames: int) -> Tensor:
    """(..., N, N) for tokens in the order of `swin.py`, frame, column, row → in the order of this module."""
    order = torch.arange(pairs.shape[-1], device=pairs.device).view(frames, WINDOW, WINDOW)
    order = order.permute(2, 1, 0).flatten()
    return pairs[..., order, :][..., order].contiguous()


class WindowLayer(nn.Module):
    """A `SwinLayer` that takes some rows of windows after another from their tokens to their output."""

    def __init__(self, layer: SwinLayer, *, frames: int):
        super().__init__()
        self.shift = layer.shift
        self.norm1, self.norm2 = layer.norm1, layer.norm2
        self.qkv, self.proj = Linear(_scaled(layer.attn.qkv)), Linear(layer.attn.proj)
        self.fc1, self.fc2 = Linear(layer.mlp.fc1, "gelu"), Linear(layer.mlp.fc2)
        index = layer.attn.relative_position_index
        bias = layer.attn.relative_position_bias_table.detach()[index.flatten()]
        bias = _reordered(bias.view(*index.shape, HEADS).permute(2, 0, 1), frames)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self._masked: tuple[tuple, tuple[Tensor, Tensor]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, T, C) → same shape."""
        rows, columns = x.shape[1:3]
        # an axis no longer than the window has one window, and nothing to shift
        shift = tuple(self.shift if length > WINDOW else 0 for length in (rows, columns))
        if any(shift):
            x = x.roll((-shift[0], -shift[1]), dims=(1, 2))
        chunks = self._chunks(x, alone=any(shift))
        inner, last = self._biases(x, shift, (chunks[0][1] - chunks[0][0]) // WINDOW)
        out = torch.empty_like(x)
        for start, stop in chunks:
            tokens = self._attended(_to_windows(x[:, start:stop]), last if stop == rows else inner)
            self.fc2.onto(tokens, self.fc1(self.norm2(tokens)))
            _from_windows(tokens, out[:, start:stop])
        return out.roll(shift, dims=(1, 2)) if any(shift) else out

    def _biases(self, x: Tensor, shift: tuple[int, int], most: int) -> tuple[Tensor, Tensor]:
        """Bias with mask, (windows or 1, heads, N, N): of `most` rows of windows, and of the last one."""
        if not any(shift):
            return self.bias[None], self.bias[None]
        key = (*x.shape[1:3], most, self.bias.dtype, self.bias.device)
        if self._masked is None or self._masked[0] != key:
            batch, rows, columns, frames, channels = x.shape
            mask = _shift_mask((batch, frames, rows, columns, channels), shift, self.bias)
            mask = _reordered(mask, frames).unflatten(0, (-1, columns // WINDOW))
            inner, last = (self.bias + mask[row][:, None] for row in (0, -1))
            self._masked = key, (inner.repeat(most, 1, 1, 1), last)
        return self._masked[1]

    @staticmethod
    def _chunks(x: Tensor, *, alone: bool) -> list[tuple[int, int]]:
        """First and last row + 1 of each part; the last row of windows, if it has its own mask, `alone`."""
        batch, rows, columns, frames, _ = x.shape
        step = rows
        if x.device.type == "cpu":
            step = max(TOKENS // (batch * frames * columns * WINDOW), 1) * WINDOW
        end = rows - WINDOW if alone else rows
        parts = [(start, min(start + step, end)) for start in range(0, end, step)]
        return [*parts, (end, rows)] if alone else parts

    def _attended(self, tokens: Tensor, bias: Tensor) -> Tensor:
        """Tokens (B, windows, N, C) with attention added in place; bias (1 or ≥ windows, heads, N, N)."""
        batch, windows, count, channels = tokens.shape
        qkv = self.qkv(self.norm1(tokens)).view(batch * windows, count, 3, HEADS, channels // HEADS)
        heads = qkv.permute(2, 0, 3, 1, 4)  # scaled query, key, value, (B·windows, heads, N, C / heads) each
        bias = bias[:windows]
        if len(bias) > 1 and batch > 1:
            bias = bias.repeat(batch, 1, 1, 1)
        mixed = (_attend if _stored(tokens, heads.shape[-1]) else _attend_fused)(heads, bias)
        return self.proj.onto(tokens, mixed.reshape(tokens.shape))


def _stored(tokens: Tensor, width: int) -> bool:
    """Whether attention is faster with stored scores than with torch's fused kernel.

    Measured 2026-11 on an EPYC with AVX512-BF16, torch 2.13.
    """
    return tokens.device.type == "cpu" and (width < WIDE_HEAD or tokens.dtype != torch.float32)


def _attend(heads: Tensor, bias: Tensor) -> Tensor:
    """Scaled queries, keys, values (3, windows, heads, N, c) → (windows, N, heads, c).

    `bias` is (1 or windows, heads, N, N). Some windows after another, so that their scores stay in the cache.
    """
    _, windows, count, tokens, width = heads.shape
    step = max(SCORES // (count * tokens * tokens), 1)
    mixed = heads.new_empty(windows, tokens, count, width)
    for start in range(0, windows, step):
        part = slice(start, start + step)
        query, key, value = heads[:, part].contiguous()
        scores = (query @ key.transpose(-1, -2)).add_(bias[part] if len(bias) > 1 else bias)
        # values times scores, both transposed: with few channels three times as fast as scores times values
        mixed[part] = (value.transpose(-1, -2) @ softmax(scores).transpose(-1, -2)).permute(0, 3, 1, 2)
    return mixed


def _attend_fused(heads: Tensor, bias: Tensor) -> Tensor:
    """As `_attend`, by torch's kernel that stores no scores."""
    return F.scaled_dot_product_attention(*heads, attn_mask=bias, scale=1.0).transpose(1, 2)


def _scaled(qkv: nn.Linear) -> nn.Linear:
    """The projection whose queries have the factor of the scores already."""
    scaled = nn.Linear(qkv.in_features, qkv.out_features, bias=False)
    scaled.weight.data = qkv.weight.detach().clone()
    scaled.weight.data[: qkv.in_features] *= (qkv.in_features // HEADS) ** -0.5
    return scaled


def softmax(scores: Tensor) -> Tensor:
    """Over the last axis, by way of float32: there a CPU computes it twice as fast as in half precision."""
    return scores.float().softmax(dim=-1).to(scores.dtype)


class Windows(nn.Module):
    """Both window layers."""

    def __init__(self, swin: Swin, *, frames: int):
        super().__init__()
        self.frames = frames
        self.layers = nn.Sequential(*(WindowLayer(layer, frames=frames) for layer in swin.tr))

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T·C, h, w), frame by frame, channels last → same shape and layout."""
        x = self.layers(frames.permute(0, 2, 3, 1).unflatten(3, (self.frames, -1)))
        return x.flatten(3).permute(0, 3, 1, 2)
