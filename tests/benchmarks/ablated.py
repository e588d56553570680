"""Variants of Tridos for the ablations: one part removed, or other clips as input.

A removed part is replaced by one that passes its input through, so that all shapes and the rest of the
network stay the same. All variants are trained from scratch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from detectors.inference.normalisation import DEVIATION, MEAN
from pipeline.stages.ring_buffer import RingBuffer

LOW, HIGH = 0.01, 0.99
"""Quantiles of the pixels of a window that percentile scaling maps to black and white."""
LEAST_SPAN = 2 / 255
"""Smallest difference between white and black, as a share of the full scale, that is stretched."""


class WithoutMemory(nn.Module):
    """Replaces `MemoryReader`: returns the values of the key frame and reads nothing from the past."""

    def forward(self, memory: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor]) -> Tensor:
        """Returns the values of the query; takes keys and values (B, …, h, w) of memory and query."""
        return query[1]


class WithoutDifference(nn.Module):
    """Replaces `TemporalDifference`: returns the features of the key frame unchanged."""

    def pair(self, older: Tensor, newer: Tensor) -> Tensor:
        """Returns (B, 0, h, w) for two tensors (B, C, h, w)."""
        return newer[:, :0]

    def forward(self, pairs: Tensor, key: Tensor) -> Tensor:
        """Returns the key (B, C, h, w); pairs may have any shape."""
        return key


class WithoutSwin(nn.Module):
    """Replaces `Swin`: returns the features of the frames unchanged."""

    def project(self, frame: Tensor) -> Tensor:
        """Returns (B, h, w, 0) for a frame (B, C, h, w)."""
        return frame[:, :0].permute(0, 2, 3, 1)

    def forward(self, frames: Tensor, qkv: Tensor | None = None) -> Tensor:
        """Returns the frames (B, T, C, h, w)."""
        return frames


def without(part: str, substitute: Callable[[], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    """Returns a function that replaces a part of the neck of a Tridos by `substitute()`."""

    def change(network: nn.Module) -> nn.Module:
        getattr(network.neck, part)  # raises AttributeError if there is no such part
        setattr(network.neck, part, substitute())
        return network

    return change


class Behind(nn.Module):
    """A network behind a change of its input.

    `change` turns a normalised clip (B, 3, T, H, W) of `frames` frames into the input of the network.
    """

    def __init__(self, network: nn.Module, change: Callable[[Tensor], Tensor], *, frames: int):
        super().__init__()
        self.network, self.frames, self.num_classes = network, frames, network.num_classes
        self._change = change

    def forward(self, clip: Tensor) -> Tensor:
        """Returns the raw output (B, 5 + classes, H / 8, W / 8) for a clip (B, 3, T, H, W)."""
        return self.network(self._change(clip))

    def stream(self) -> WindowStream:
        """Returns a stream, which takes frames one by one and computes each window in full."""
        return WindowStream(self)


class WindowStream:
    """The window of last frames of one sequence."""

    def __init__(self, model: nn.Module):
        self._model, self._frames = model, RingBuffer(model.frames)

    def push(self, frames: Tensor) -> Tensor:
        """Returns the raw output (B, 5 + classes, H / 8, W / 8) for the next B frames (B, 3, H, W)."""
        return self._model(self._frames.push(frames).transpose(1, 2))


def of_frames(*back: int) -> Callable[[nn.Module], nn.Module]:
    """Returns a change of the window to frames at these distances before the key frame, oldest first."""
    length = max(back) + 1
    places = [length - 1 - steps for steps in back]
    return lambda network: Behind(network, partial(_chosen, places=places), frames=length)


def scaled(how: Callable[[Tensor], Tensor]) -> Callable[[nn.Module], nn.Module]:
    """Returns a change of the grey levels of windows by `how`, which maps (B, T·H·W) in [0, 1]."""
    return lambda network: Behind(network, partial(_regraded, how=how), frames=network.frames)


def by_percentiles(grey: Tensor) -> Tensor:
    """Stretches windows (B, T·H·W) so that their quantiles `LOW` and `HIGH` become black and white."""
    shares = torch.tensor([LOW, HIGH], device=grey.device)
    black, white = torch.quantile(grey[:, ::4], shares, dim=1)[..., None]  # every fourth pixel is enough
    return ((grey - black) / (white - black).clamp(min=LEAST_SPAN)).clamp(0, 1)


def by_moments(grey: Tensor) -> Tensor:
    """Shifts and scales windows (B, T·H·W) to the mean and standard deviation of ImageNet."""
    deviation = grey.std(dim=1, keepdim=True).clamp(min=LEAST_SPAN)
    return (grey - grey.mean(dim=1, keepdim=True)) / deviation * DEVIATION[0] + MEAN[0]


def _chosen(clip: Tensor, *, places: list[int]) -> Tensor:
    return clip[:, :, places]


def _regraded(clip: Tensor, *, how: Callable[[Tensor], Tensor]) -> Tensor:
    """Scales the levels of a clip (B, 3, T, H, W) of grey frames window by window."""
    mean, deviation = (torch.tensor(v, device=clip.device).view(1, 3, 1, 1, 1) for v in (MEAN, DEVIATION))
    grey = clip[:, 0] * DEVIATION[0] + MEAN[0]  # (B, T, H, W) in [0, 1]; all channels are equal
    changed = how(grey.flatten(1)).view_as(grey)
    return (changed[:, None] - mean) / deviation


def learned_parameters(model: nn.Module) -> int:
    """Returns the number of parameters for which the output of a clip has a gradient."""
    model.zero_grad(set_to_none=True)
    model(torch.rand(1, 3, model.frames, 64, 64)).square().mean().backward()
    count = sum(p.numel() for p in model.parameters() if p.grad is not None)
    model.zero_grad(set_to_none=True)
    return count
