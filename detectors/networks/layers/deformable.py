"""Modulated deformable convolution (DCNv2, arXiv 1811.11168) in plain torch.

Each output position reads the input at its kernel's cells plus learned displacements, bilinearly, and weighs
what it reads. Stride 1, same size out, one group.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COLUMN_BYTES = 4 << 20
"""Size of the samples that are held at a time: about what a processor's cache holds."""


@functools.cache
def torchvision_operator() -> Callable[..., Tensor] | None:
    """torchvision's compiled operator; None where the package is missing or made for another torch."""
    try:
        from torchvision.ops import deform_conv2d
    except (ImportError, OSError, RuntimeError):
        return None
    return deform_conv2d


def deformable_convolution(
    x: Tensor, offset: Tensor, modulation: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """x (B, C, H, W), offset (B, 2·k², H, W), modulation (B, k², H, W), weight (O, C, k, k) → (B, O, H, W).

    Tap t = k·i + j of output (r, c) reads row r − k//2 + i + offset[2t] and column c − k//2 + j +
    offset[2t + 1], bilinearly, with zeros outside of x, times modulation[t]. `bias` is (O,); k is odd.
    Computed in float32 or better, returned in the type of x.

    On a GPU the work goes to torchvision's operator where torchvision can be imported; on a processor the
    plain form is the faster of the two. They agree up to rounding.
    """
    with torch.autocast(x.device.type, enabled=False):
        exact = torch.promote_types(x.dtype, torch.float32)
        arguments = [tensor.to(exact) for tensor in (x, offset, modulation, weight, bias)]
        operator = torchvision_operator() if x.is_cuda else None
        if operator is None:
            return gathered(*arguments).to(x.dtype)
        x_exact, offset, modulation, weight, bias = arguments
        padding = weight.shape[-1] // 2
        return operator(x_exact, offset, weight, bias, padding=padding, mask=modulation).to(x.dtype)


def gathered(x: Tensor, offset: Tensor, modulation: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`deformable_convolution` in plain torch, all arguments of one floating type.

    Samples are formed for a few rows at a time; training forms them again in the backward pass.
    """
    _, channels, height, width = x.shape
    size = weight.shape[-1]
    # one row and column of zeros before, two after: whatever lies outside reads zeros, without a test
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
    # at −1 and at H, W the value is 0 already; beyond, too
    y = (shifts[..., 0::2] + row).clamp(-1, rows - 3)
    x = (shifts[..., 1::2] + column).clamp(-1, columns - 3)
    floor_y, floor_x = y.detach().floor(), x.detach().floor()
    corner = (floor_y + 1).int() * columns + (floor_x + 1).int()
    # only a position that is no number lies outside of the table, and it must not read there
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
    """`_convolve_rows` that keeps its arguments alone and computes the rest again for the gradients."""

    @staticmethod
    def forward(ctx, *arguments) -> Tensor:
        *tensors, ctx.top = arguments
        ctx.save_for_backward(*tensors)
        return _convolve_rows(*arguments)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[:-1]
        tensors = [
            tensor.detach().requires_grad_(want)
            for tensor, want in zip(ctx.saved_tensors, wanted, strict=True)
        ]
        with torch.enable_grad():
            found = _convolve_rows(*tensors, ctx.top)
        inputs = [tensor for tensor in tensors if tensor.requires_grad]
        gradients = iter(torch.autograd.grad(found, inputs, gradient))
        return (*(next(gradients) if want else None for want in wanted), None)


class DeformableConv(nn.Module):
    """Modulated deformable convolution whose displacements and modulations a plain convolution predicts."""

    def __init__(self, cin: int, cout: int, kernel: int):
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"{kernel = }, expected an odd number")
        bound = (cin * kernel * kernel) ** -0.5
        self.weight = nn.Parameter(torch.empty(cout, cin, kernel, kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(cout))
        self.conv_offset_mask = nn.Conv2d(cin, 3 * kernel * kernel, kernel, padding=kernel // 2)
        nn.init.zeros_(self.conv_offset_mask.weight)
        nn.init.zeros_(self.conv_offset_mask.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) → (B, cout, H, W)."""
        taps = self.weight.shape[-1] ** 2
        offset, modulation = self.conv_offset_mask(x).split([2 * taps, taps], dim=1)
        return deformable_convolution(x, offset, torch.sigmoid(modulation), self.weight, self.bias)
