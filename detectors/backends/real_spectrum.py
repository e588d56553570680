"""The frequency block without complex numbers, for one size: Fourier transforms as matrix products.

ONNX runtimes differ in their support of Fourier transforms and complex numbers, but all multiply matrices
fast. The maps are small (64 cells a side for 512 pixels), so the products take less than 1 % of the time of
the network. They equal an FFT up to rounding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from detectors.networks.tridos.frequency import FrequencyBlock

MIN_SIZE = 1e-38
"""Replaces a real part of 0 in the phase, so that the quotient is 0 or huge."""


def _angles(length: int) -> Tensor:
    """Returns (length, length) float64 angles 2π·j·k / length, modulo 2π."""
    places = torch.arange(length)
    return 2 * math.pi * (places[:, None] * places % length).double() / length


def _summary(x: Tensor) -> Tensor:
    """Mean and maximum over the channels: (B, C, H, W) → (B, 2, H, W)."""
    return torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)


class RealFrequencyBlock(nn.Module):
    """`FrequencyBlock` for maps of `height` × `width` cells, both even, with the layers of `block`."""

    across: Tensor
    down_cos: Tensor
    down_sin: Tensor
    up_cos: Tensor
    up_sin: Tensor
    back_cos: Tensor
    back_sin: Tensor
    real: Tensor

    def __init__(self, block: FrequencyBlock, height: int, width: int):
        super().__init__()
        self.block = block
        self._half = width // 2 + 1  # columns of the spectrum of a real map
        columns = _angles(width)[:, : self._half]
        # the matrices include the network's order of rows, one beyond an fftshift
        order = (torch.arange(height) + height // 2 + 1) % height
        rows = _angles(height)[order]
        weight = torch.full((self._half,), 2.0, dtype=torch.float64)  # a column and its conjugate
        weight[0] = weight[-1] = 1.0
        matrices = {
            "across": torch.cat([columns.cos(), -columns.sin()], dim=1),
            "down_cos": rows.cos(),
            "down_sin": rows.sin(),
            "up_cos": rows.cos().T / height,
            "up_sin": rows.sin().T / height,
            "back_cos": (columns.cos() * weight).T / width,
            "back_sin": (columns.sin() * weight).T / width,
        }
        for name, matrix in matrices.items():
            self.register_buffer(name, matrix.float().contiguous())
        real = torch.zeros(height, self._half, dtype=torch.bool)
        real[0 :: height // 2, 0 :: self._half - 1] = True  # the four bins that are real in theory
        self.register_buffer("real", real[order])

    def _spectrum(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) → real and imaginary part (B, C, h, w / 2 + 1), rows in the network's order."""
        across = (x + 1e-8) @ self.across
        real, imaginary = across[..., : self._half], across[..., self._half :]
        down = self.down_cos @ real + self.down_sin @ imaginary
        side = self.down_cos @ imaginary - self.down_sin @ real
        return down, torch.where(self.real, torch.zeros_like(side), side)

    def _map(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """The inverse of `_spectrum`."""
        up = self.up_cos @ real - self.up_sin @ imaginary
        side = self.up_cos @ imaginary + self.up_sin @ real
        return up @ self.back_cos - side @ self.back_sin

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) float32 → same shape."""
        real, imaginary = self._spectrum(x)
        amplitude = (real * real + imaginary * imaginary).sqrt()
        # ONNX has no arctangent of two arguments
        phase = torch.atan(imaginary / torch.where(real == 0, MIN_SIZE, real))
        turn = torch.where(imaginary >= 0, math.pi, -math.pi)
        phase = phase + torch.where(real < 0, turn, torch.zeros_like(real))
        filtered = self.block.dw_amp_conv(amplitude)
        filtered = filtered * self.block.df1(_summary(filtered))
        gain = self.block.dw_pha_conv(torch.cat([phase, filtered - amplitude], dim=1))
        gain = gain * self.block.df2(_summary(gain))
        angle = 2 * math.pi * gain - math.pi
        back = self._map(filtered * angle.cos() + 1e-8, filtered * angle.sin())
        return torch.relu(back.abs() + x)
