"""Frequency features of one frame: the local branch of Tridos' frequency domain (LGFM)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def _depthwise_then_mix(depthwise: int, cout: int, last: nn.Module) -> nn.Sequential:
    """Returns a depthwise 3×3 convolution, ReLU, a 1×1 convolution to `cout` channels, and `last`."""
    return nn.Sequential(
        nn.Conv2d(depthwise, depthwise, 3, padding=1, groups=depthwise),
        nn.ReLU(),
        nn.Conv2d(depthwise, cout, 1),
        last,
    )


def _channel_summary(x: Tensor) -> Tensor:
    """Mean and maximum over the channels: (B, C, H, W) → (B, 2, H, W)."""
    return torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)


class FrequencyBlock(nn.Module):
    """Filters amplitude and phase of the spectrum by learned convolutions over the frequency plane.

    Computed in at least float32: the spectrum of a map exceeds the range of half precision.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.dw_amp_conv = _depthwise_then_mix(channels, channels, nn.ReLU())
        self.df1 = _depthwise_then_mix(2, 1, nn.Sigmoid())
        self.df2 = _depthwise_then_mix(2, 1, nn.Sigmoid())
        self.dw_pha_conv = _depthwise_then_mix(2 * channels, channels, nn.Sigmoid())

    @staticmethod
    def _real_bins_are_real(spectrum: Tensor) -> Tensor:
        """Sets the imaginary part of the four bins that are real in theory to +0.

        FFT libraries leave a rounding error of either sign there for sizes that are not powers of two, which
        would flip the phase of a negative bin between +π and −π.
        """
        rows, columns = spectrum.shape[-2:]
        real = torch.zeros(rows, columns, dtype=torch.bool, device=spectrum.device)
        real[0 :: rows // 2, 0 :: columns - 1] = True
        return torch.complex(spectrum.real, spectrum.imag.masked_fill(real, 0.0))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape; h and w even."""
        with torch.autocast(x.device.type, enabled=False):
            return self._filter(x.to(torch.promote_types(x.dtype, torch.float32))).to(x.dtype)

    def _filter(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        spectrum = self._real_bins_are_real(torch.fft.rfft2(x + 1e-8))
        # Rows start at h/2 + 1, one beyond an fftshift, as published checkpoints require: the 3×3
        # convolutions below are padded with zeros at the border of the rolled plane.
        spectrum = spectrum.roll(-(height // 2 + 1), dims=-2)
        amplitude, phase = spectrum.abs(), spectrum.angle()
        filtered = self.dw_amp_conv(amplitude)
        filtered = filtered * self.df1(_channel_summary(filtered))
        gain = self.dw_pha_conv(torch.cat([phase, filtered - amplitude], dim=1))
        gain = gain * self.df2(_channel_summary(gain))
        spectrum = torch.polar(filtered, 2 * math.pi * gain - math.pi)
        spectrum = spectrum.roll(height // 2 + 1, dims=-2)
        back = torch.fft.irfft2(spectrum + 1e-8, s=(height, width)).abs()
        return torch.relu(back + x)


class Scale(nn.Module):
    """Multiplication by one learned factor."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape → same shape."""
        return self.scale * x


class FrequencyFeatures(nn.Module):
    """Frequency block and 3×3 convolution, with the input added by a learned factor."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(FrequencyBlock(channels), nn.Conv2d(channels, channels, 3, padding=1))
        self.re_scale = Scale()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape."""
        return self.body(x) + self.re_scale(x)
