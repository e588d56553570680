"""Tridos for evaluation alone: the network of `network.py`, arranged for speed.

Batch norm is folded into the convolutions, maps keep their channels last, so that tokens are maps seen
otherwise, and what attention and feed-forward layers hold in between fits a processor's cache. Only rounding
differs; in half precision the spectra, the head's output and the statistics of norms stay float32.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.blocks import BaseConv, PReLUConv
from detectors.tridos.frequency import FrequencyBlock
from detectors.tridos.fusion import ResidualCompensation
from detectors.tridos.memory import MemoryReader
from detectors.tridos.network import Neck, Tridos
from detectors.tridos.stream import TridosStream
from detectors.tridos.swin import HEADS, WINDOW, Swin, SwinLayer, _from_windows, _shift_mask, _to_windows

TOKENS = 2560
"""Tokens that a CPU takes through a window layer at once: what they become stays in its cache."""

QUERIES = 256
"""Positions that a CPU reads the memory for at once."""

WIDE_HEAD = 16
"""Channels of an attention head from which, in half precision, a CPU is faster with stored scores than with
torch's fused kernel; in float32 it never is (2026-11, EPYC with AVX512-BF16, torch 2.13)."""


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 1) -> Tensor:
    """Convolution of odd kernel with full padding. On a CPU always oneDNN's.

    torch itself takes 1×1 convolutions elsewhere when it has one thread, at half the speed (2026-11, EPYC).
    """
    padding = weight.shape[-1] // 2
    if x.device.type == "cpu" and torch.backends.mkldnn.is_available():
        return torch.mkldnn_convolution(x, weight, bias, [padding] * 2, [stride] * 2, [1, 1], 1)
    return F.conv2d(x, weight, bias, stride, padding)


def channels_last(x: Tensor) -> Tensor:
    """The same map (B, C, h, w) with the channels of each position side by side in memory."""
    return x.contiguous(memory_format=torch.channels_last)


class Convolution(nn.Module):
    """Convolution with the batch norm after it folded in, then an activation that may work in place."""

    def __init__(
        self,
        conv: nn.Conv2d,
        norm: nn.BatchNorm2d | None = None,
        act: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        weight = conv.weight.detach().double()
        bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach().double()
        if norm is not None:
            factor = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
            weight = weight * factor[:, None, None, None]
            bias = (bias - norm.running_mean.double()) * factor + norm.bias.double()
        dtype = conv.weight.dtype
        self.weight = nn.Parameter(channels_last(weight.to(dtype)), requires_grad=False)
        self.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
        self.stride, self.act = conv.stride[0], act

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) → (B, cout, h / stride, w / stride), channels last."""
        y = convolve(channels_last(x), self.weight, self.bias, stride=self.stride)
        return y if self.act is None else self.act(y)


class Linear(nn.Module):
    """A linear layer over the last axis."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach()[:, :, None, None].clone(), requires_grad=False)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone(), False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., cin) → (..., cout)."""
        tokens = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)  # a map of one column
        return convolve(tokens, self.weight, self.bias).permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


class WindowLayer(nn.Module):
    """A `SwinLayer` that takes some rows of windows after another from their tokens to their output."""

    def __init__(self, layer: SwinLayer):
        super().__init__()
        self.shift = layer.shift
        self.norm1, self.norm2 = layer.norm1, layer.norm2
        self.qkv, self.proj = Linear(layer.attn.qkv), Linear(layer.attn.proj)
        self.fc1, self.fc2 = Linear(layer.mlp.fc1), Linear(layer.mlp.fc2)
        index = layer.attn.relative_position_index
        bias = layer.attn.relative_position_bias_table.detach()[index.flatten()]
        bias = bias.view(*index.shape, HEADS).permute(2, 0, 1).contiguous()
        self.bias = nn.Parameter(bias, requires_grad=False)
        self._masked: tuple[tuple[int, ...], tuple[Tensor, Tensor]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, h, w, C) → same shape."""
        rows, columns = x.shape[2:4]
        # an axis no longer than the window has one window, and nothing to shift
        shift = tuple(self.shift if length > WINDOW else 0 for length in (rows, columns))
        if any(shift):
            x = x.roll((-shift[0], -shift[1]), dims=(2, 3))
        chunks = self._chunks(x, alone=any(shift))
        inner, last = self._biases(x, shift, (chunks[0][1] - chunks[0][0]) // WINDOW)
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        for start, stop in chunks:
            part = x[:, :, start:stop]
            tokens = self._attended(_to_windows(part), last if stop == rows else inner)
            tokens += self.fc2(F.gelu(self.fc1(self.norm2(tokens))))
            out[:, :, start:stop] = _from_windows(tokens, part.shape)
        return out.roll(shift, dims=(2, 3)) if any(shift) else out

    def _biases(self, x: Tensor, shift: tuple[int, int], most: int) -> tuple[Tensor, Tensor]:
        """Bias with mask, (windows or 1, heads, N, N): of `most` rows of windows, and of the last one."""
        if not any(shift):
            return self.bias[None], self.bias[None]
        key = (*x.shape[2:4], most, self.bias.dtype, self.bias.device)
        if self._masked is None or self._masked[0] != key:
            mask = _shift_mask(x.shape, shift, self.bias).unflatten(0, (-1, x.shape[3] // WINDOW))
            inner, last = (self.bias + mask[row][:, None] for row in (0, -1))
            self._masked = key, (inner.repeat(most, 1, 1, 1), last)
        return self._masked[1]

    @staticmethod
    def _chunks(x: Tensor, *, alone: bool) -> list[tuple[int, int]]:
        """First and last row + 1 of each part; the last row of windows, if it has its own mask, `alone`."""
        batch, frames, rows, columns, _ = x.shape
        step = rows
        if x.device.type == "cpu":
            step = max(TOKENS // (batch * frames * columns * WINDOW), 1) * WINDOW
        end = rows - WINDOW if alone else rows
        parts = [(start, min(start + step, end)) for start in range(0, end, step)]
        return [*parts, (end, rows)] if alone else parts

    def _attended(self, tokens: Tensor, bias: Tensor) -> Tensor:
        """Tokens (B, windows, N, C) with attention added; bias (1 or at least windows, heads, N, N)."""
        batch, windows, count, channels = tokens.shape
        qkv = self.qkv(self.norm1(tokens)).view(batch * windows, count, 3, HEADS, channels // HEADS)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (B·windows, heads, N, C / heads)
        bias = bias[:windows]
        if len(bias) > 1 and batch > 1:
            bias = bias.repeat(batch, 1, 1, 1)
        if tokens.device.type == "cpu" and tokens.dtype != torch.float32 and query.shape[-1] >= WIDE_HEAD:
            scores = ((query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)).add_(bias)
            mixed = _softmax(scores) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(mixed.transpose(1, 2).reshape(tokens.shape)).add_(tokens)


def _softmax(scores: Tensor) -> Tensor:
    """Over the last axis, by way of float32: there a CPU computes it twice as fast as in half precision."""
    return scores.float().softmax(dim=-1).to(scores.dtype)


class Windows(nn.Module):
    """Both window layers."""

    def __init__(self, swin: Swin):
        super().__init__()
        self.layers = nn.Sequential(*map(WindowLayer, swin.tr))

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, C, h, w) → (B, T·C, h, w), frame by frame, channels last."""
        x = self.layers(frames.permute(0, 1, 3, 4, 2))
        return x.permute(0, 2, 3, 1, 4).flatten(3).permute(0, 3, 1, 2)


def _tokens(x: Tensor) -> Tensor:
    """(B, C, h, w) → (B, h·w, C)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


class Reader(nn.Module):
    """A `MemoryReader` that takes some positions of the query after another."""

    def __init__(self, reader: MemoryReader):
        super().__init__()
        self.reduce = Convolution(reader.memory_reduce.con1x1, reader.memory_reduce.bn, torch.relu_)

    def forward(self, memory: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor]) -> Tensor:
        """(keys, values) of memory and query, (B, C / 2, h, w) and (B, C, h, w) → (B, C, h, w)."""
        keys, values = map(_tokens, memory)
        queries = _tokens(query[0]) * keys.shape[-1] ** -0.5
        if queries.device.type == "cpu":
            parts = queries.split(QUERIES, dim=1)
            read = torch.cat([_softmax(q @ keys.transpose(1, 2)) @ values for q in parts], dim=1)
        else:  # filled up with zeros to the width of the values, as the kernel that stores no scores asks
            missing = (0, values.shape[-1] - keys.shape[-1])
            queries, keys = F.pad(queries, missing), F.pad(keys, missing)
            read = F.scaled_dot_product_attention(*(x[:, None] for x in (queries, keys, values)), scale=1.0)
            read = read[:, 0]
        read = read.unflatten(1, query[1].shape[2:]).permute(0, 3, 1, 2)
        return self.reduce(torch.cat([read, query[1]], dim=1))


class Compensation(nn.Module):
    """A `ResidualCompensation` without its norms."""

    def __init__(self, block: ResidualCompensation):
        super().__init__()
        self.conv1 = Convolution(block.conv1, block.bn1, torch.relu_)
        self.conv2 = Convolution(block.conv2, block.bn2)
        self.shortcut = Convolution(*block.shortcut)
        self.ca, self.sa = block.ca, block.sa

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two (B, C, h, w) → (B, C, h, w)."""
        x = torch.cat([first, second], dim=1)
        y = self.conv2(self.conv1(x))
        y *= self.ca(y)
        y *= self.sa(y)
        return torch.relu_(y.add_(self.shortcut(x)))


def _activation(module: nn.Module) -> Callable[[Tensor], Tensor]:
    if isinstance(module, nn.SiLU):
        return lambda x: F.silu(x, inplace=True)
    if isinstance(module, nn.PReLU):
        slope = module.weight.item()
        return lambda x: F.leaky_relu(x, slope, inplace=True)
    return module


def arranged(module: nn.Module) -> nn.Module:
    """The module with every part that has a faster form replaced by it."""
    forms = {Swin: Windows, MemoryReader: Reader, ResidualCompensation: Compensation}
    if type(module) in forms:
        return forms[type(module)](module)
    if isinstance(module, BaseConv):
        return Convolution(module.conv, module.bn, _activation(module.act))
    if isinstance(module, PReLUConv):
        return Convolution(module.conv, None, _activation(module.act))
    for name, child in module.named_children():
        setattr(module, name, arranged(child))
    return module


class JoinedFeatures(NamedTuple):
    """What one frame contributes to the windows it is part of; its projections are cheap to compute again."""

    spatial: Tensor
    """(B, C, h, w) backbone output."""
    frequency: Tensor
    """(B, C, h, w) output of the frequency block."""


class FusedTridos(Tridos):
    """A network that was loaded, for evaluation alone; `model` itself stays as it is.

    Inputs, outputs (float32) and streams are those of `Tridos`; parameters have other names and shapes.
    `dtype` is that of the computation: float32, bfloat16 or float16.
    """

    features = JoinedFeatures

    def __init__(self, model: Tridos, *, dtype: torch.dtype = torch.float32):
        nn.Module.__init__(self)
        self.num_classes, self.width, self.dtype = model.num_classes, model.width, dtype
        copy = deepcopy(model).requires_grad_(False)
        del copy.neck.conv_fre_mix
        self.backbone, self.neck, self.head = map(arranged, (copy.backbone, copy.neck, copy.head))
        self.eval().to(dtype, memory_format=torch.channels_last)
        for module in self.modules():
            if isinstance(module, FrequencyBlock):
                module.float()

    def _features(self, images: Tensor) -> JoinedFeatures:
        spatial = self.backbone(channels_last(images.to(self.dtype)))
        # spectra are computed over whole planes: there each channel is best kept together
        return JoinedFeatures(spatial, channels_last(self.neck.agpf(spatial.contiguous())))

    def begin(self, window: JoinedFeatures, pairs: Tensor) -> tuple[Tensor, ...]:
        """About half of the work of `join`: everything but attention over time and what follows it."""
        return self._in_parts(self._begun, *window, pairs)

    def finish(self, *begun: Tensor) -> Tensor:
        """The raw output from what `begin` gave."""
        return self._in_parts(self._finished, *begun)[0]

    def _begun(self, spatial: Tensor, frequency: Tensor, pairs: Tensor) -> tuple[Tensor, ...]:
        neck: Neck = self.neck
        past, key = torch.cat(spatial[:, :-1].unbind(1), dim=1), spatial[:, -1]
        motion = neck.tdms(pairs, key)
        joined = neck.conv_fin_mix(torch.cat([neck.spatial_relation(past, key), motion], dim=1))
        local = neck.conv_fre(torch.cat(frequency.unbind(1), dim=1))
        return neck.resblock1(local, joined), joined, frequency

    def _finished(self, first: Tensor, joined: Tensor, frequency: Tensor) -> tuple[Tensor]:
        neck: Neck = self.neck
        wide = neck.conv_t(neck.swin(frequency))
        return (self.head(neck.resblock2(first, neck.resblock0(wide, joined))).float(),)

    def _joined(self, *inputs: Tensor) -> tuple[Tensor]:
        return self._finished(*self._begun(*inputs))

    def stream(self) -> FusedStream:
        """A state that takes frames one after another and computes each frame's share only once."""
        return FusedStream(self)


class FusedStream(TridosStream):
    """A stream whose two halves cost about the same, so that two threads share a narrow network well."""

    def begin(self, frames: Tensor) -> tuple:
        """See `TridosStream`."""
        with torch.inference_mode():
            return self.model.begin(*super().begin(frames))

    def finish(self, begun: tuple) -> Tensor:
        """See `TridosStream`."""
        with torch.inference_mode():
            return self.model.finish(*begun)


def fused(model: Tridos, *, dtype: torch.dtype = torch.float32) -> FusedTridos:
    """The faster form of a loaded network; see `FusedTridos`."""
    return FusedTridos(model, dtype=dtype)
