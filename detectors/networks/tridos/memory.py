"""Memory-enhanced spatial relation of the key frame to its past: the spatial domain of Tridos (MSRM)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _attend(query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> Tensor:
    """Attention over all positions of maps (B, C, h, w); query and key have fewer channels than value.

    They are padded with zeros, which changes no product: torch's fused kernel, which never stores the (h·w)²
    scores, requires equal widths and contiguous channels.
    """
    missing = value.shape[1] - query.shape[1]
    query, key = (F.pad(x, (0, 0, 0, 0, 0, missing)) for x in (query, key))
    q, k, v = (x.flatten(2).transpose(1, 2).contiguous()[:, None] for x in (query, key, value))
    attended = F.scaled_dot_product_attention(q, k, v, scale=scale)
    return attended[:, 0].transpose(1, 2).reshape(value.shape)


class NonLocal(nn.Module):
    """Unscaled self-attention over all positions, added to the input with a learned factor `gamma`."""

    def __init__(self, channels: int, *, reduction: int = 8):
        super().__init__()
        self.query_conv = nn.Conv2d(channels, channels // reduction, 1)
        self.key_conv = nn.Conv2d(channels, channels // reduction, 1)
        self.value_conv = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape."""
        attended = _attend(self.query_conv(x), self.key_conv(x), self.value_conv(x), scale=1.0)
        return self.gamma * attended + x

    def is_identity(self) -> bool:
        """Returns whether gamma is 0, as in every published checkpoint, and is not being trained."""
        learning = self.gamma.requires_grad and torch.is_grad_enabled()
        return not learning and not self.gamma.any()


class KeyValue(nn.Module):
    """Keys of half the width and values of the full width, by a 3×3 convolution each."""

    def __init__(self, channels: int):
        super().__init__()
        self.key_conv = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.value_conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) → keys (B, C / 2, h, w) and values (B, C, h, w)."""
        return self.key_conv(x), self.value_conv(x)


class MemoryReduce(nn.Module):
    """1×1 convolution, batch norm, ReLU."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.con1x1 = nn.Conv2d(cin, cout, 1, bias=False)
        self.bn = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) → (B, cout, h, w)."""
        return torch.relu(self.bn(self.con1x1(x)))


class MemoryReader(nn.Module):
    """Reads a weighted mean of the memory's values for each position of the query."""

    def __init__(self, channels: int):
        super().__init__()
        self.memory_reduce = MemoryReduce(2 * channels, channels)

    def forward(self, memory: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor]) -> Tensor:
        """Keys (B, C / 2, h, w) and values (B, C, h, w) of memory and query → (B, C, h, w)."""
        read = _attend(query[0], *memory, scale=query[0].shape[1] ** -0.5)
        return self.memory_reduce(torch.cat([read, query[1]], dim=1))
