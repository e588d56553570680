"""Window attention of `detectors.networks.tridos.swin`, optimised for inference.

Maps are stored as rows, columns, frames, channels, the layout of a convolution over the channels of all
frames, and the tokens of a window in the order row, column, frame, so they are copied in long runs. A layer
computes a few rows of windows at a time, so that intermediate results stay in a CPU's cache.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.networks.tridos.optimised.convolutions import Linear
from detectors.networks.tridos.swin import HEADS, WINDOW, Swin, SwinLayer, WindowAttention, shift_mask

TOKENS = 2560
"""Tokens that a CPU computes at a time, so that intermediate results stay in its cache."""

SCORES = 128_000
"""Attention scores that a CPU computes at a time."""

WIDE_HEAD = 16
"""Channels per attention head from which torch's fused kernel is faster on a CPU in float32."""


def _to_windows(x: Tensor) -> Tensor:
    """Copies (B, h, w, T, C) to (B, windows, 16·T, C) with tokens in the order row, column, frame."""
    b, h, w, t, c = x.shape
    windows = x.new_empty(b, h // WINDOW, w // WINDOW, WINDOW, WINDOW, t, c)
    windows.copy_(x.unflatten(2, (-1, WINDOW)).unflatten(1, (-1, WINDOW)).transpose(2, 3))
    return windows.view(b, -1, WINDOW * WINDOW * t, c)


def _from_windows(windows: Tensor, out: Tensor) -> None:
    """Inverse of `_to_windows`: copies windows into a map (B, h, w, T, C)."""
    b, h, w, t, c = out.shape
    windows = windows.view(b, h // WINDOW, w // WINDOW, WINDOW, WINDOW, t, c).transpose(2, 3)
    out.unflatten(2, (-1, WINDOW)).unflatten(1, (-1, WINDOW)).copy_(windows)


def _reordered(pairs: Tensor, frames: int) -> Tensor:
    """Reorders (..., N, N) from tokens in the order frame, column, row to the order row, column, frame."""
    order = torch.arange(pairs.shape[-1], device=pairs.device).view(frames, WINDOW, WINDOW)
    order = order.permute(2, 1, 0).flatten()
    return pairs[..., order, :][..., order].contiguous()


class WindowLayer(nn.Module):
    """Optimised `SwinLayer`, which computes a few rows of windows at a time."""

    def __init__(self, layer: SwinLayer, *, frames: int):
        super().__init__()
        self.shift = layer.shift
        self.norm1, self.norm2 = layer.norm1, layer.norm2
        attention: WindowAttention = layer.attn
        self.qkv, self.proj = Linear(_scale_queries(attention.qkv)), Linear(attention.proj)
        self.fc1, self.fc2 = Linear(layer.mlp.fc1, "gelu"), Linear(layer.mlp.fc2)
        index = attention.relative_position_index
        bias = attention.relative_position_bias_table.detach()[index.flatten()]
        bias = _reordered(bias.unflatten(0, index.shape).permute(2, 0, 1), frames)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self._masked: tuple[tuple, tuple[Tensor, Tensor]] | None = None  # arguments and result of `_biases`

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, T, C) → same shape."""
        rows, columns = x.shape[1:3]
        # an axis with a single window is not shifted
        shift = (self.shift if rows > WINDOW else 0, self.shift if columns > WINDOW else 0)
        if any(shift):
            x = x.roll((-shift[0], -shift[1]), dims=(1, 2))
        chunks = self._chunks(x, separate_last=any(shift))
        inner, last = self._biases(x, shift, (chunks[0][1] - chunks[0][0]) // WINDOW)
        out = torch.empty_like(x)
        for start, stop in chunks:
            tokens = self._attend(_to_windows(x[:, start:stop]), last if stop == rows else inner)
            self.fc2.add_to(tokens, self.fc1(self.norm2(tokens)))
            _from_windows(tokens, out[:, start:stop])
        return out.roll(shift, dims=(1, 2)) if any(shift) else out

    def _biases(self, x: Tensor, shift: tuple[int, int], count: int) -> tuple[Tensor, Tensor]:
        """Returns bias plus mask, (windows or 1, heads, N, N), of `count` window rows and of the last."""
        if not any(shift):
            return self.bias[None], self.bias[None]
        key = (*x.shape[1:3], count, self.bias.dtype, self.bias.device)
        if self._masked is None or self._masked[0] != key:
            batch, rows, columns, frames, channels = x.shape
            mask = shift_mask((batch, frames, rows, columns, channels), shift, self.bias)
            mask = _reordered(mask, frames).unflatten(0, (-1, columns // WINDOW))
            inner, last = (self.bias + mask[row][:, None] for row in (0, -1))
            self._masked = key, (inner.repeat(count, 1, 1, 1), last)
        return self._masked[1]

    @staticmethod
    def _chunks(x: Tensor, *, separate_last: bool) -> list[tuple[int, int]]:
        """Returns first and last row + 1 of each chunk; `separate_last` splits off the last window row."""
        batch, rows, columns, frames, _ = x.shape
        step = rows
        if x.device.type == "cpu":
            step = max(TOKENS // (batch * frames * columns * WINDOW), 1) * WINDOW
        end = rows - WINDOW if separate_last else rows
        parts = [(start, min(start + step, end)) for start in range(0, end, step)]
        return [*parts, (end, rows)] if separate_last else parts

    def _attend(self, tokens: Tensor, bias: Tensor) -> Tensor:
        """Adds attention to tokens (B, windows, N, C) in place; bias is (1 or ≥ windows, heads, N, N)."""
        batch, windows, count, channels = tokens.shape
        qkv = self.qkv(self.norm1(tokens)).view(batch * windows, count, 3, HEADS, channels // HEADS)
        heads = qkv.permute(2, 0, 3, 1, 4)  # scaled query, key, value, (B·windows, heads, N, C / heads) each
        bias = bias[:windows]
        if len(bias) > 1 and batch > 1:
            bias = bias.repeat(batch, 1, 1, 1)
        mixed = (_attention if _scores_are_faster(tokens, heads.shape[-1]) else _fused_attention)(heads, bias)
        return self.proj.add_to(tokens, mixed.reshape(tokens.shape))


def _scores_are_faster(tokens: Tensor, width: int) -> bool:
    """Returns whether attention is faster with explicit scores than with torch's fused kernel.

    `width` is the number of channels per head. Measured 2026-11 on an EPYC with AVX512-BF16, torch 2.13.
    """
    return tokens.device.type == "cpu" and (width < WIDE_HEAD or tokens.dtype != torch.float32)


def _attention(heads: Tensor, bias: Tensor) -> Tensor:
    """Attention with explicit scores: scaled q, k, v (3, windows, heads, N, c) → (windows, N, heads, c).

    `bias` is (1 or windows, heads, N, N). A few windows at a time, so that their scores stay in the cache.
    """
    _, windows, count, tokens, width = heads.shape
    step = max(SCORES // (count * tokens * tokens), 1)
    mixed = heads.new_empty(windows, tokens, count, width)
    for start in range(0, windows, step):
        part = slice(start, start + step)
        query, key, value = heads[:, part].contiguous()
        scores = (query @ key.transpose(-1, -2)).add_(bias[part] if len(bias) > 1 else bias)
        # both factors transposed: for few channels three times as fast as scores times values
        mixed[part] = (value.transpose(-1, -2) @ softmax(scores).transpose(-1, -2)).permute(0, 3, 1, 2)
    return mixed


def _fused_attention(heads: Tensor, bias: Tensor) -> Tensor:
    """As `_attention`, by torch's kernel, which does not store the scores."""
    query, key, value = heads
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0).transpose(1, 2)


def _scale_queries(qkv: nn.Linear) -> nn.Linear:
    """Returns the projection with the scale of the attention scores folded into the queries."""
    scaled = nn.Linear(qkv.in_features, qkv.out_features, bias=False)
    scaled.weight.data = qkv.weight.detach().clone()
    scaled.weight.data[: qkv.in_features] *= (qkv.in_features // HEADS) ** -0.5
    return scaled


def softmax(scores: Tensor) -> Tensor:
    """Softmax over the last axis in float32, where a CPU is twice as fast as in half precision."""
    return scores.float().softmax(dim=-1).to(scores.dtype)


class WindowLayers(nn.Module):
    """Optimised `Swin`."""

    def __init__(self, swin: Swin, *, frames: int):
        super().__init__()
        self.frames = frames
        self.layers = nn.Sequential(
            *(WindowLayer(layer, frames=frames) for layer in swin.tr if isinstance(layer, SwinLayer))
        )

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T·C, h, w), channels ordered by frame, channels last → same shape and layout."""
        x = self.layers(frames.permute(0, 2, 3, 1).unflatten(3, (self.frames, -1)))
        return x.flatten(3).permute(0, 3, 1, 2)
