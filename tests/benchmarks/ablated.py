"""Tridos with one of its parts taken out, or with other clips before it: what the ablations train.

A part is replaced by one that hands on what it was given, so that all shapes stay and the rest of the network
is as it was. All are trained from the start.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from detectors.inference.normalisation import DEVIATION, MEAN
from pipeline.stages.ring_buffer import RingBuffer

LOW, HIGH = 0.01, 0.99
"""Shares of the pixels of a window that percentile scaling leaves below black and above white, from below."""
LEAST_SPAN = 2 / 255
"""Least difference between white and black, as a share of the full scale, that a window is stretched from."""


class WithoutMemory(nn.Module):
    """In place of `MemoryReader`: the key frame's own values, nothing read from the past."""

    def forward(self, memory: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor]) -> Tensor:
        """Keys and values (B, …, h, w) of memory and query → values of the query."""
        return query[1]


class WithoutDifference(nn.Module):
    """In place of `TemporalDifference`: the key frame's features as they are."""

    def pair(self, older: Tensor, newer: Tensor) -> Tensor:
        """Two (B, C, h, w) → (B, 0, h, w)."""
        return newer[:, :0]

    def forward(self, pairs: Tensor, key: Tensor) -> Tensor:
        """Pairs of any shape, key (B, C, h, w) → key."""
        return key


class WithoutSwin(nn.Module):
    """In place of `Swin`: the features of the frames as they are."""

    def project(self, frame: Tensor) -> Tensor:
        """(B, C, h, w) → (B, h, w, 0)."""
        return frame[:, :0].permute(0, 2, 3, 1)

    def forward(self, frames: Tensor, qkv: Tensor | None = None) -> Tensor:
        """(B, T, C, h, w) → the same."""
        return frames


def without(part: str, substitute: Callable[[], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    """The change of a Tridos that has `substitute` in place of a part of its neck."""

    def change(network: nn.Module) -> nn.Module:
        getattr(network.neck, part)  # a part that is gone must not be replaced in name only
        setattr(network.neck, part, substitute())
        return network

    return change


class Behind(nn.Module):
    """A network that sees its clips changed.

    `change` makes of a clip of `frames` frames, (B, 3, T, H, W) normalised, one that the network takes.
    """

    def __init__(self, network: nn.Module, change: Callable[[Tensor], Tensor], *, frames: int):
        super().__init__()
        self.network, self.frames, self.num_classes = network, frames, network.num_classes
        self._change = change

    def forward(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, H, W) → the network's raw output (B, 5 + classes, H / 8, W / 8)."""
        return self.network(self._change(clip))

    def stream(self) -> WindowStream:
        """A state that takes frames one after another; each window is computed whole."""
        return WindowStream(self)


class WindowStream:
    """The last frames of one sequence."""

    def __init__(self, model: Behind):
        self._model, self._frames = model, RingBuffer(model.frames)

    def push(self, frames: Tensor) -> Tensor:
        """The next B frames (B, 3, H, W) → raw output (B, 5 + classes, H / 8, W / 8)."""
        return self._model(self._frames.push(frames).transpose(1, 2))


def of_frames(*back: int) -> Callable[[nn.Module], nn.Module]:
    """The change of a network whose window are the frames so many before the key frame, oldest first."""
    length = max(back) + 1
    places = [length - 1 - steps for steps in back]
    return lambda network: Behind(network, partial(_chosen, places=places), frames=length)


def scaled(how: Callable[[Tensor], Tensor]) -> Callable[[nn.Module], nn.Module]:
    """The change of a network whose windows have their grey levels scaled, (B, T·H·W) in [0, 1] → same."""
    return lambda network: Behind(network, partial(_regraded, how=how), frames=network.frames)


def by_percentiles(grey: Tensor) -> Tensor:
    """Windows (B, T·H·W) stretched so that black and white are their percentiles `LOW` and `HIGH`."""
    shares = torch.tensor([LOW, HIGH], device=grey.device)
    black, white = torch.quantile(grey[:, ::4], shares, dim=1)[..., None]  # every fourth pixel is enough
    return ((grey - black) / (white - black).clamp(min=LEAST_SPAN)).clamp(0, 1)


def by_moments(grey: Tensor) -> Tensor:
    """Windows (B, T·H·W) with the mean and deviation that networks see for full-scale colour pictures."""
    deviation = grey.std(dim=1, keepdim=True).clamp(min=LEAST_SPAN)
    return (grey - grey.mean(dim=1, keepdim=True)) / deviation * DEVIATION[0] + MEAN[0]


def _chosen(clip: Tensor, *, places: list[int]) -> Tensor:
    return clip[:, :, places]


def _regraded(clip: Tensor, *, how: Callable[[Tensor], Tensor]) -> Tensor:
    """A clip (B, 3, T, H, W) of grey frames, its levels scaled window by window."""
    mean, deviation = (torch.tensor(v, device=clip.device).view(1, 3, 1, 1, 1) for v in (MEAN, DEVIATION))
    grey = clip[:, 0] * DEVIATION[0] + MEAN[0]  # (B, T, H, W) in [0, 1]; all channels hold the same
    changed = how(grey.flatten(1)).view_as(grey)
    return (changed[:, None] - mean) / deviation


def learned_parameters(model: nn.Module) -> int:
    """How many parameters take part: those that the output of a clip has a gradient for."""
    model.zero_grad(set_to_none=True)
    model(torch.rand(1, 3, model.frames, 64, 64)).square().mean().backward()
    count = sum(p.numel() for p in model.parameters() if p.grad is not None)
    model.zero_grad(set_to_none=True)
    return count
