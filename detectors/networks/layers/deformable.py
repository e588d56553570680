"""Modulated deformable convolution (DCNv2, arXiv 1811.11168) in plain torch.

Each output position samples the input bilinearly at its kernel's cells plus learned offsets, and multiplies
the samples by learned factors. Stride 1, padding k // 2, one group.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COLUMN_BYTES = 4 << 20
"""Bytes of samples held at a time: about the size of a CPU's cache."""


@functools.cache
def torchvision_operator() -> Callable[..., Tensor] | None:
    """Returns torchvision's compiled operator; None if it is missing or built for another torch."""
    try:
        from torchvision.ops import deform_conv2d
    except (ImportError, OSError, RuntimeError):
        return None
    return deform_conv2d


def deformable_convolution(
    x: Tensor, offset: Tensor, modulation: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """x (B, C, H, W), offset (B, 2·k², H, W), modulation (B, k², H, W), weight (O, C, k, k) → (B, O, H, W).

    Tap t = k·i + j of output (r, c) is modulation[t] times the bilinear sample at row r − k//2 + i +
    offset[2t] and column c − k//2 + j + offset[2t + 1], with zeros outside of x. `bias` is (O,), k is odd.
    Computed in at least float32, returned in the dtype of x.

    Uses torchvision's operator on a GPU if it is available; on a CPU plain torch is faster. Both agree up to
    rounding.
    """
    with torch.autocast(x.device.type, enabled=False):
        exact = torch.promote_types(x.dtype, torch.float32)
        arguments = [tensor.to(exact) for tensor in (x, offset, modulation, weight, bias)]
        operator = torchvision_operator() if x.is_cuda else None
        if operator is None:
            return deformable_convolution_torch(*arguments).to(x.dtype)
        x_exact, offset, modulation, weight, bias = arguments
        padding = weight.shape[-1] // 2
        return operator(x_exact, offset, weight, bias, padding=padding, mask=modulation).to(x.dtype)


def deformable_convolution_torch(
    x: Tensor, offset: Tensor, modulation: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """`deformable_convolution` in plain torch; all arguments have one floating dtype.

    Samples are computed for a few rows at a time and recomputed in the backward pass.
    """
    _, channels, height, width = x.shape
    size = weight.shape[-1]
    # one row and column of zeros before, two after: positions outside read zeros without a condition
    tables = F.pad(x.movedim(1, 3), (0, 0, 1, 2, 1, 2)).contiguous()  # (B, H + 3, W + 3, C)
    offset, modulation = offset.movedim(1, 3).contiguous(), modulation.movedim(1, 3).contiguous()
    matrix = weight.permute(2, 3, 1, 0).flatten(0, 2)  # (k²·C, O)
    rows = max(1, COLUMN_BYTES // (size * size * channels * width * x.element_size()))
    images = []
    for table, shifts, factors in zip(tables, offset, modulation, strict=True):
        parts = [
            _Rows.apply(table, shifts[top : top + rows], factors[top : top + rows], matrix, bias, top)
            for top in range(0, height, rows)
        ]
        images.append(torch.cat(parts))
    return torch.stack(images).movedim(3, 1)


def _convolve_rows(
    table: Tensor, shifts: Tensor, factors: Tensor, matrix: Tensor, bias: Tensor, top: int
) -> Tensor:
    """Rows `top` … of one image: shifts (h, W, 2·k²), factors (h, W, k²) → (h, W, O).

    `table` (H + 3, W + 3, C) is the image with its border of zeros, `matrix` (k²·C, O) the kernel.
    """
    rows, columns, channels = table.shape
    height, width, taps = factors.shape
    size = math.isqrt(taps)
    tap = torch.arange(taps, device=table.device)
    row = torch.arange(top, top + height, device=table.device)[:, None, None] + (tap // size - size // 2)
    column = torch.arange(width, device=table.device)[:, None] + (tap % size - size // 2)
    # at and beyond −1 and H, W the value is 0
    y = (shifts[..., 0::2] + row).clamp(-1, rows - 3)
    x = (shifts[..., 1::2] + column).clamp(-1, columns - 3)
    floor_y, floor_x = y.detach().floor(), x.detach().floor()
    corner = (floor_y + 1).int() * columns + (floor_x + 1).int()
    # only NaN positions are outside of the table and must not be read
    corner = corner.clamp_(0, rows * columns - columns - 2)
    square = torch.tensor([0, 1, columns, columns + 1], dtype=torch.int32, device=table.device)
    cells = corner[..., None] + square

    below, right = y - floor_y, x - floor_x
    lower = factors * below
    upper = factors - lower
    lower_right, upper_right = lower * right, upper * right
    shares = torch.stack([upper - upper_right, upper_right, lower - lower_right, lower_right], dim=-1)
    samples = F.embedding_bag(
        cells.view(-1, 4), table.view(-1, channels), per_sample_weights=shares.view(-1, 4), mode="sum"
    )
    return torch.addmm(bias, samples.view(height * width, -1), matrix).view(height, width, -1)


class _Rows(torch.autograd.Function):
    """`_convolve_rows` that saves only its arguments and recomputes the rest in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, shifts: Tensor, factors: Tensor, matrix: Tensor, bias: Tensor, top: int
    ) -> Tensor:
        ctx.top = top
        ctx.save_for_backward(table, shifts, factors, matrix, bias)
        return _convolve_rows(table, shifts, factors, matrix, bias, top)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        required = ctx.needs_input_grad[:-1]
        tensors = [
            tensor.detach().requires_grad_(needed)
            for tensor, needed in zip(ctx.saved_tensors, required, strict=True)
        ]
        table, shifts, factors, matrix, bias = tensors
        with torch.enable_grad():
            rows = _convolve_rows(table, shifts, factors, matrix, bias, ctx.top)
        inputs = [tensor for tensor in tensors if tensor.requires_grad]
        gradients = iter(torch.autograd.grad(rows, inputs, gradient))
        return (*(next(gradients) if needed else None for needed in required), None)


class DeformableConv(nn.Module):
    """Modulated deformable convolution with offsets and modulations predicted by a plain convolution.

    Raises ValueError for an even kernel.
    """

    def __init__(self, cin: int, cout: int, kernel: int):
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"{kernel = }, expected an odd number")
        bound = (cin * kernel * kernel) ** -0.5
        self.weight = nn.Parameter(torch.empty(cout, cin, kernel, kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(cout))
        self.conv_offset_mask = nn.Conv2d(cin, 3 * kernel * kernel, kernel, padding=kernel // 2)
        for parameter in self.conv_offset_mask.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) → (B, cout, H, W)."""
        taps = self.weight.shape[-1] ** 2
        offset, modulation = self.conv_offset_mask(x).split([2 * taps, taps], dim=1)
        return deformable_convolution(x, offset, torch.sigmoid(modulation), self.weight, self.bias)
