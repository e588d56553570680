"""The three graphs of a Tridos network for one size of input, with any number of samples."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detectors.backends.real_spectrum import RealFrequencyBlock
from detectors.networks.tridos import Tridos
from detectors.networks.tridos.features import FrameFeatures
from detectors.networks.tridos.swin import HEADS, WindowAttention

BATCH = 2
"""Samples of the examples; a graph traced with one would be taken to hold for one alone."""


class Graph(NamedTuple):
    """What is exported: a function of tensors that agree in their first axis, the number of samples."""

    module: nn.Module
    examples: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class FramePart(nn.Module):
    """Normalised images (B, 3, H, W) → spatial, frequency (B, C, h, w) and qkv (B, h, w, 3C), stride 8."""

    def __init__(self, model: Tridos):
        super().__init__()
        self.backbone, self.frequency, self.swin = model.backbone, model.neck.agpf, model.neck.swin

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        spatial = self.backbone(images)
        frequency = self.frequency(spatial)
        return spatial, frequency, self.swin.project(frequency)


class PairPart(nn.Module):
    """Spatial features of a frame and the next, (B, C, h, w) → (B, C / 2, h / 2, w / 2)."""

    def __init__(self, model: Tridos):
        super().__init__()
        self.difference = model.neck.tdms

    def forward(self, older: Tensor, newer: Tensor) -> Tensor:
        """See the class."""
        return self.difference.pair(older, newer)


class JoinPart(nn.Module):
    """Features of five frames (B, 5, …) and pairs (B, 4, …), oldest first → raw (B, 5 + classes, h, w)."""

    def __init__(self, model: Tridos):
        super().__init__()
        self.neck, self.head = model.neck, model.head

    def forward(self, spatial: Tensor, frequency: Tensor, qkv: Tensor, pairs: Tensor) -> Tensor:
        """See the class."""
        return self.head(self.neck(FrameFeatures(spatial, frequency, qkv), pairs))


class _Identity(nn.Module):
    """Stands for a non-local block that changes nothing: whether it does is no question inside a graph."""

    @staticmethod
    def is_identity() -> bool:
        return True


class _NonLocal(nn.Module):
    """A non-local block that is computed, for the same reason."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    @staticmethod
    def is_identity() -> bool:
        return False

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class FixedWindowAttention(nn.Module):
    """`WindowAttention` with the position bias and the mask of one size as one constant."""

    def __init__(self, attention: WindowAttention, mask: Tensor | None):
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj
        index = attention.relative_position_index
        bias = attention.relative_position_bias_table.detach()[index.flatten()].view(*index.shape, HEADS)
        bias = bias.permute(2, 0, 1)[None]  # (1, heads, N, N)
        self.register_buffer("bias", (bias if mask is None else bias + mask[:, None]).contiguous())

    def forward(self, qkv: Tensor, mask: Tensor | None) -> Tensor:
        """Projected tokens (B, windows, N, 3C) → (B, windows, N, C); the mask is in the constant already."""
        windows, tokens, channels = qkv.shape[1:]
        width = channels // (3 * HEADS)
        q, k, v = qkv.reshape(-1, windows, tokens, 3, HEADS, width).permute(3, 0, 1, 4, 2, 5)
        scores = (q * width**-0.5) @ k.transpose(-2, -1) + self.bias
        attended = scores.softmax(dim=-1) @ v  # (B, windows, heads, N, width)
        return self.proj(attended.transpose(2, 3).reshape(-1, windows, tokens, HEADS * width))


def _fix_attention(model: Tridos, join: Graph) -> None:
    """Put `FixedWindowAttention` for the size of the examples into both attention layers."""
    masks: list[Tensor | None] = []
    layers = model.neck.swin.tr
    hooks = [
        layer.attn.register_forward_pre_hook(lambda _, inputs: masks.append(inputs[1])) for layer in layers
    ]
    join.module(*join.examples)
    for hook in hooks:
        hook.remove()
    for layer, mask in zip(layers, masks, strict=True):
        layer.attn = FixedWindowAttention(layer.attn, mask)


@torch.no_grad()
def graphs(model: Tridos, size: tuple[int, int]) -> dict[str, Graph]:
    """The parts of a network for input of (width, height) pixels, by name: frame, pair, join.

    The model stays as it is. Raises ValueError for a size that is no multiple of 32.
    """
    width, height = size
    if width < 32 or height < 32 or width % 32 or height % 32:
        raise ValueError(f"size = '{width}x{height}', expected multiples of 32")
    own = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    nonlocal_block = own.neck.nolocal
    own.neck.nolocal = _Identity() if nonlocal_block.is_identity() else _NonLocal(nonlocal_block)
    own.neck.agpf.body[0] = RealFrequencyBlock(own.neck.agpf.body[0], height // 8, width // 8)
    images = torch.randn(BATCH, 3, height, width, generator=torch.Generator().manual_seed(0))
    frame = Graph(FramePart(own).eval(), (images,), ("images",), FrameFeatures._fields)
    features = frame.module(images)
    spatial = features[0]
    pair = Graph(PairPart(own).eval(), (spatial, spatial.flip(0)), ("older", "newer"), ("pair",))
    window = [x[:, None].repeat(1, model.frames, *(1 for _ in x.shape[1:])) for x in features]
    pairs = pair.module(*pair.examples)[:, None].repeat(1, model.frames - 1, 1, 1, 1)
    join = Graph(JoinPart(own).eval(), (*window, pairs), (*FrameFeatures._fields, "pairs"), ("raw",))
    _fix_attention(own, join)
    return {"frame": frame, "pair": pair, "join": join}
