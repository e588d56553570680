"""Window attention with a learned bias, a few windows at a time, so that scores stay in a CPU's cache.

torch's fused kernel has no gradient for a bias, and falls back to storing all scores several times.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

WINDOWS = 8
"""Windows per chunk: with 80 tokens and 4 heads, 0.8 MB of scores. 4 to 16 are equally fast."""


class _Attention(torch.autograd.Function):
    """Stores only the inputs; scores are computed again for the gradient."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, mask: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, bias, mask)
        mixed = torch.empty_like(value)
        for part in _chunks(query):
            mixed[part] = _weights(query, key, bias, mask, part) @ value[part]
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, bias, mask = ctx.saved_tensors
        query_grad, key_grad, value_grad = (torch.empty_like(x) for x in (query, key, value))
        bias_grad = torch.zeros_like(bias)
        for part in _chunks(query):
            weights, outer = _weights(query, key, bias, mask, part), grad[part]
            value_grad[part] = weights.transpose(-1, -2) @ outer
            scores = outer @ value[part].transpose(-1, -2)
            scores = torch._softmax_backward_data(scores, weights, -1, scores.dtype)
            bias_grad += scores.sum(dim=0, keepdim=True)
            query_grad[part] = scores @ key[part]
            key_grad[part] = scores.transpose(-1, -2) @ query[part]
        return query_grad, key_grad, value_grad, bias_grad, None


def _chunks(query: Tensor) -> list[slice]:
    return [slice(start, start + WINDOWS) for start in range(0, len(query), WINDOWS)]


def _weights(query: Tensor, key: Tensor, bias: Tensor, mask: Tensor | None, part: slice) -> Tensor:
    """Returns the attention weights (windows, heads, N, N) of a chunk, whose rows sum to 1."""
    scores = (query[part] @ key[part].transpose(-1, -2)).add_(bias)
    if mask is not None:
        scores.add_(mask[part])
    return scores.softmax(dim=-1)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention within windows with a learned bias, in float32 or wider also under autocast.

    Queries, keys and values (windows, heads, N, c), bias (1, heads, N, N), mask (windows, 1, N, N) or None
    → (windows, heads, N, c) of the dtype of the values. Scores are scaled by c^-½. The mask has no gradient.
    """
    dtype = torch.promote_types(value.dtype, torch.float32)
    with torch.autocast(value.device.type, enabled=False):
        query = query.to(dtype) * query.shape[-1] ** -0.5
        inputs = (x.to(dtype).contiguous() for x in (query, key, value, bias))
        mask = None if mask is None else mask.to(dtype)
        return _Attention.apply(*inputs, mask).to(value.dtype)
