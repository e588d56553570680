"""Convolutions for inference: batch norm folded in, activations fused, Winograd's algorithm if it is faster.

On a CPU they call oneDNN with weights packed once: torch packs them at every call, and with one thread runs
1×1 convolutions without oneDNN at half the speed (2026-11, EPYC, torch 2.13).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["none", "relu", "swish", "leaky_relu", "sigmoid", "gelu"]
"""Activation after a convolution, by its name in torch's oneDNN operators."""

TILES = {torch.float32: 4, torch.bfloat16: 2}
"""Side of the tiles of `WinogradConv` by dtype: larger tiles take fewer products and are less accurate."""

MIN_WEIGHTS = {torch.float32: 128 * 128, torch.bfloat16: 640 * 256}
"""Products of channel counts from which `WinogradConv` is faster (2026-11, EPYC with AVX512-BF16)."""

MIN_POSITIONS = 1024
"""Positions of a map from which `WinogradConv` is faster."""


def channels_last(x: Tensor) -> Tensor:
    """Returns a map (B, C, h, w) in channels-last memory format."""
    return x.contiguous(memory_format=torch.channels_last)


@cache
def _onednn_computes(dtype: torch.dtype) -> bool:
    """Returns whether oneDNN is available and supports a dtype on this CPU."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (
        dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def uses_onednn(x: Tensor) -> bool:
    """Returns whether convolutions of `x` call oneDNN directly; never inside torch.compile."""
    return not torch.compiler.is_compiling() and x.device.type == "cpu" and _onednn_computes(x.dtype)


def pack_weight(weight: Tensor, *, size: tuple[int, ...], stride: int = 1, groups: int = 1) -> Tensor:
    """Packs weights (cout, cin / groups, k, k) in oneDNN's layout for an input of size (B, C, h, w)."""
    padding = [weight.shape[-1] // 2] * 2
    return torch._C._nn.mkldnn_reorder_conv2d_weight(
        weight.contiguous().to_mkldnn(),
        padding,
        [stride] * 2,
        [1, 1],
        groups,
        list(size),  # type: ignore[call-arg]  # missing in torch's stub
    )


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    act: Activation = "none",
    slope: float = 0.0,
) -> Tensor:
    """oneDNN's convolution of a map on the CPU with packed weights; odd kernel, padding kernel // 2."""
    scalars = [slope] if act == "leaky_relu" else []
    algorithm = "none" if act == "gelu" else None
    operator = torch.ops.mkldnn._convolution_pointwise
    padding = [kernel // 2] * 2
    return operator(x, weight, bias, padding, [stride] * 2, [1, 1], groups, act, scalars, algorithm)


def _activation(act: Activation, slope: float) -> Callable[[Tensor], Tensor]:
    """Returns an activation as a function that does not need oneDNN; most work in place."""
    functions: dict[Activation, Callable[[Tensor], Tensor]] = {
        "none": lambda x: x,
        "relu": torch.relu_,
        "swish": partial(F.silu, inplace=True),
        "leaky_relu": partial(F.leaky_relu, negative_slope=slope, inplace=True),
        "sigmoid": torch.sigmoid_,
        "gelu": F.gelu,
    }
    return functions[act]


class Convolution(nn.Module):
    """Convolution of an odd kernel with padding kernel // 2, followed by batch norm and an activation.

    `winograd` allows `WinogradConv` for large maps and channel counts; its rounding errors are larger.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        norm: nn.BatchNorm2d | None = None,
        act: Activation = "none",
        *,
        slope: float = 0.0,
        winograd: bool = False,
    ):
        super().__init__()
        weight = conv.weight.detach().double()
        bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach().double()
        if norm is not None:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            factor = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
            weight = weight * factor[:, None, None, None]
            bias = (bias - norm.running_mean.double()) * factor + norm.bias.double()
        dtype = conv.weight.dtype
        self.weight = nn.Parameter(channels_last(weight.to(dtype)), requires_grad=False)
        self.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
        self.kernel, self.stride, self.groups = weight.shape[-1], conv.stride[0], conv.groups
        self.act, self.slope = act, slope
        self._winograd_allowed = winograd and self.kernel == 3 and self.stride == self.groups == 1
        self._packed: Tensor | None = None
        self._winograd: WinogradConv | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) → (B, cout, h / stride, w / stride), channels last."""
        if not uses_onednn(x):
            y = F.conv2d(
                channels_last(x), self.weight, self.bias, self.stride, self.kernel // 2, groups=self.groups
            )
            return _activation(self.act, self.slope)(y)
        if self._winograd_allowed and self._winograd_is_faster(x):
            if self._winograd is None:
                self._winograd = WinogradConv(self.weight, self.bias)
            return _activation(self.act, self.slope)(self._winograd(x))
        return convolve(
            channels_last(x),
            self._packed_weight(x),
            self.bias,
            kernel=self.kernel,
            stride=self.stride,
            groups=self.groups,
            act=self.act,
            slope=self.slope,
        )

    def _winograd_is_faster(self, x: Tensor) -> bool:
        """Returns whether `WinogradConv` is faster."""
        pairs, positions = self.weight.shape[0] * self.weight.shape[1], x.shape[2] * x.shape[3]
        return pairs >= MIN_WEIGHTS[x.dtype] and positions >= MIN_POSITIONS

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """Computes the activation, none or relu, of y + convolution of x in place of y (B, cout, h, w)."""
        if not uses_onednn(x):
            return _activation(self.act, 0.0)(
                y.add_(F.conv2d(x, self.weight, self.bias, padding=self.kernel // 2))
            )
        weight, padding = self._packed_weight(x), [self.kernel // 2] * 2
        after = None if self.act == "none" else self.act
        operator = torch.ops.mkldnn._convolution_pointwise_.binary
        x = channels_last(x)
        return operator(y, x, weight, self.bias, padding, [1, 1], [1, 1], 1, "add", 1.0, after, [], None)

    def _packed_weight(self, x: Tensor) -> Tensor:
        if self._packed is None:
            size = tuple(x.shape)
            self._packed = pack_weight(self.weight, size=size, stride=self.stride, groups=self.groups)
        return self._packed


class Linear(nn.Module):
    """Linear layer over the last axis, followed by an activation."""

    def __init__(self, linear: nn.Linear, act: Activation = "none"):
        super().__init__()
        conv = nn.Conv2d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None)
        conv.weight.data = linear.weight.detach()[:, :, None, None]
        if conv.bias is not None:
            conv.bias.data = linear.bias.detach()
        self.conv = Convolution(conv, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(..., cin) → (..., cout)."""
        return from_map(self.conv(to_map(x)), x)

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """Adds the linear layer of x to contiguous y (..., cout) in place and returns y."""
        self.conv.add_to(to_map(y), to_map(x))
        return y


def to_map(x: Tensor) -> Tensor:
    """Views tokens (..., C) as a map of one column, (1, C, N, 1), channels last."""
    return x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)


def from_map(y: Tensor, like: Tensor) -> Tensor:
    """Inverse of `to_map`: the tokens (..., C) of a map, in the leading shape of `like`."""
    return y.permute(0, 2, 3, 1).reshape(*like.shape[:-1], -1)


class WinogradConv:
    """3×3 convolution on a CPU by Winograd's algorithm.

    Lavin, Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016: F(4×4, 3×3) in float32 takes
    a quarter of the products, F(2×2, 3×3) in bfloat16 four ninths. Overlapping tiles of the map and the
    kernel are transformed, multiplied per channel and transformed back. Errors relative to the largest value
    are below 2e-5 in float32 (1e-6 for a plain convolution) and 7e-3 in bfloat16 (5e-3).
    """

    def __init__(self, weight: Tensor, bias: Tensor):
        (cout, cin), dtype = weight.shape[:2], weight.dtype
        self._tile = TILES[dtype]
        back, forth, kernel = (torch.tensor(rows, dtype=torch.float64) for rows in _TRANSFORMS[self._tile])
        self._side, self._count = len(forth), len(forth) ** 2
        self._forth = torch.kron(forth, forth).to(dtype)
        self._back = torch.kron(back, back).to(dtype)
        values = torch.einsum("ip,ocpq,jq->ijoc", kernel, weight.double(), kernel).to(dtype)
        values = values.reshape(self._count * cout, cin, 1, 1)
        self._weight = pack_weight(values, size=(1, self._count * cin, 256, 1), groups=self._count)
        # entry (1, 1) of a transformed tile contributes once to each output, so the bias is added there
        self._bias = bias.new_zeros(self._count, cout)
        self._bias[self._side + 1] = bias
        self._bias = self._bias.flatten()

    def __call__(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) → (B, cout, h, w), channels last."""
        batch, channels, height, width = x.shape
        tile, side = self._tile, self._side
        padded = F.pad(x, (1, 1 + -width % tile, 1, 1 + -height % tile)).permute(0, 2, 3, 1)
        tiles = padded.unfold(1, side, tile).unfold(2, side, tile)  # (B, rows, columns, cin, side, side)
        rows, columns = tiles.shape[1:3]
        tiles = tiles.permute(0, 1, 2, 4, 5, 3).reshape(-1, self._count, channels)
        values = torch.bmm(self._forth.expand(len(tiles), -1, -1), tiles)
        products = convolve(to_map(values.flatten(1)), self._weight, self._bias, groups=self._count)
        products = products.permute(0, 2, 3, 1).view(len(tiles), self._count, -1)
        outputs = torch.bmm(self._back.expand(len(tiles), -1, -1), products)
        outputs = outputs.view(batch, rows, columns, tile, tile, -1).transpose(2, 3)
        outputs = outputs.reshape(batch, rows * tile, columns * tile, -1)
        return channels_last(outputs[:, :height, :width].permute(0, 3, 1, 2))


_TRANSFORMS = {
    2: (
        [[1, 1, 1, 0], [0, 1, -1, -1]],
        [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
    ),
    4: (
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ],
    ),
}
"""Side of the tile → transforms of outputs (tile, side), inputs (side, side) and kernel (side, 3).

Interpolation points are 0, ±1, infinity and, for the larger tile, ±2.
"""
