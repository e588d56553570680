"""The three graphs of a Tridos network for inputs of one size and any batch size, ready for export."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detectors.backends.real_spectrum import RealFrequencyBlock
from detectors.networks.tridos import Tridos
from detectors.networks.tridos.features import FrameFeatures
from detectors.networks.tridos.frequency import FrequencyBlock
from detectors.networks.tridos.memory import MemoryReader
from detectors.networks.tridos.swin import HEADS, SwinLayer, WindowAttention

BATCH = 2
"""Batch size of the examples; tracing with 1 would make it a constant."""

WHOLE_CELLS = 1280
"""Number of positions up to which the memory is read in one piece: those of 320x256."""
CHUNK_CELLS = 320
"""Maximum number of positions that are read at once in larger inputs."""


class Graph(NamedTuple):
    """A function of tensors to be exported; the first axis of all is the batch."""

    module: nn.Module
    examples: tuple[Tensor, ...]
    """Example inputs for tracing."""
    inputs: tuple[str, ...]
    """Names of the inputs."""
    outputs: tuple[str, ...]
    """Names of the outputs."""


class FramePart(nn.Module):
    """Normalised images (B, 3, H, W) → spatial, frequency (B, C, h, w) and qkv (B, h, w, 3C) at stride 8."""

    def __init__(self, model: Tridos):
        super().__init__()
        self.backbone, self.frequency, self.swin = model.backbone, model.neck.agpf, model.neck.swin

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        spatial = self.backbone(images)
        frequency = self.frequency(spatial)
        return spatial, frequency, self.swin.project(frequency)


class PairPart(nn.Module):
    """Spatial features (B, C, h, w) of two consecutive frames → (B, C / 2, h / 2, w / 2)."""

    def __init__(self, model: Tridos):
        super().__init__()
        self.difference = model.neck.tdms

    def forward(self, older: Tensor, newer: Tensor) -> Tensor:
        """See the class."""
        return self.difference.pair(older, newer)


class JoinPart(nn.Module):
    """Features of five frames (B, 5, …) and pairs (B, 4, …) → raw output (B, 5 + classes, h, w)."""

    def __init__(self, model: Tridos):
        super().__init__()
        self.neck, self.head = model.neck, model.head

    def forward(self, spatial: Tensor, frequency: Tensor, qkv: Tensor, pairs: Tensor) -> Tensor:
        """See the class."""
        return self.head(self.neck(FrameFeatures(spatial, frequency, qkv), pairs))


class _Identity(nn.Module):
    """Replaces a non-local block that is an identity: a graph cannot contain the condition."""

    @staticmethod
    def is_identity() -> bool:
        return True


class _NonLocal(nn.Module):
    """Replaces a non-local block that is not an identity, for the same reason."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    @staticmethod
    def is_identity() -> bool:
        return False

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class FixedWindowAttention(nn.Module):
    """`WindowAttention` for one size, with the sum of position bias and mask as a constant."""

    bias: Tensor

    def __init__(self, attention: WindowAttention, mask: Tensor | None):
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj
        index = attention.relative_position_index
        bias = attention.relative_position_bias_table.detach()[index.flatten()]
        bias = bias.unflatten(0, index.shape).permute(2, 0, 1)[None]  # (1, heads, N, N)
        self.register_buffer("bias", (bias if mask is None else bias + mask[:, None]).contiguous())

    def forward(self, qkv: Tensor, mask: Tensor | None) -> Tensor:
        """Projected tokens (B, windows, N, 3C) → (B, windows, N, C); `mask` is ignored."""
        windows, tokens, channels = qkv.shape[1:]
        width = channels // (3 * HEADS)
        q, k, v = qkv.reshape(-1, windows, tokens, 3, HEADS, width).permute(3, 0, 1, 4, 2, 5)
        scores = (q * width**-0.5) @ k.transpose(-2, -1) + self.bias
        attended = scores.softmax(dim=-1) @ v  # (B, windows, heads, N, width)
        return self.proj(attended.transpose(2, 3).reshape(-1, windows, tokens, HEADS * width))


class ChunkedReader(nn.Module):
    """`MemoryReader` for `cells` positions, which reads equal chunks of them one after another.

    A graph stores the scores that it reads with: those of all positions would be 4 GB at 1920x1080.
    """

    def __init__(self, reader: MemoryReader, cells: int):
        super().__init__()
        self.memory_reduce = reader.memory_reduce
        self.chunk = next(size for size in range(CHUNK_CELLS, 0, -1) if cells % size == 0)

    def forward(self, memory: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor]) -> Tensor:
        """See `MemoryReader`."""
        keys, values = memory[0].flatten(2), memory[1].flatten(2).transpose(1, 2)
        queries = query[0].flatten(2).transpose(1, 2) * query[0].shape[1] ** -0.5
        parts = [(part @ keys).softmax(dim=-1) @ values for part in queries.split(self.chunk, dim=1)]
        read = torch.cat(parts, dim=1).transpose(1, 2).reshape(query[1].shape)
        return self.memory_reduce(torch.cat([read, query[1]], dim=1))


def _fix_attention(model: Tridos, join: Graph) -> None:
    """Replaces both attention layers by `FixedWindowAttention` for the size of the examples."""
    masks: list[Tensor | None] = []
    layers = [layer for layer in model.neck.swin.tr if isinstance(layer, SwinLayer)]
    hooks = [
        layer.attn.register_forward_pre_hook(lambda _, inputs: masks.append(inputs[1])) for layer in layers
    ]
    join.module(*join.examples)
    for hook in hooks:
        hook.remove()
    for layer, mask in zip(layers, masks, strict=True):
        layer.add_module("attn", FixedWindowAttention(layer.attn, mask))


@torch.no_grad()
def graphs(model: Tridos, size: tuple[int, int]) -> dict[str, Graph]:
    """Returns the parts of a network for inputs of (width, height) pixels by name: frame, pair, join.

    The model itself does not change. Raises ValueError if a side is not a multiple of 32.
    """
    width, height = size
    if width < 32 or height < 32 or width % 32 or height % 32:
        raise ValueError(f"size = '{width}x{height}', expected multiples of 32")
    own = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    nonlocal_block, frequency_block = own.neck.nolocal, own.neck.agpf.body[0]
    assert isinstance(frequency_block, FrequencyBlock)
    fixed = _Identity() if nonlocal_block.is_identity() else _NonLocal(nonlocal_block)
    own.neck.add_module("nolocal", fixed)
    cells = height // 8 * (width // 8)
    if cells > WHOLE_CELLS:
        own.neck.add_module("memory", ChunkedReader(own.neck.memory, cells))
    own.neck.agpf.body[0] = RealFrequencyBlock(frequency_block, height // 8, width // 8)
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
