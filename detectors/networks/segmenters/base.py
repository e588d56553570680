"""Interface and common parts of the single-frame segmenters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.networks.segmenters.resampling import resample_to_network, resample_to_source
from detectors.networks.segmenters.soft_iou import soft_iou_loss
from pipeline.imaging.geometry import Geometry

MIN_PROBABILITY = 1e-7
"""Margin from 0 and 1 to which probabilities are clamped before the inverse sigmoid."""


def exact_sigmoid(logits: Tensor) -> Tensor:
    """Sigmoid in at least float32: half precision has no values, and no gradient, between 0.996 and 1."""
    return torch.sigmoid(logits.to(torch.promote_types(logits.dtype, torch.float32)))


def inverse_sigmoid(probability: Tensor) -> Tensor:
    """Logits of probabilities, clamped to ±16, beyond which there is no gradient."""
    return torch.logit(probability, eps=MIN_PROBABILITY)


def bias_of(module: nn.Module) -> nn.Parameter:
    """Returns the bias of a layer that has one."""
    return module.get_parameter("bias")


class Segmenter(nn.Module):
    """A network that predicts the probability of each pixel of a frame to belong to a target."""

    multiple: int = 1
    """Both sides of the input must be multiples of this."""
    mean: tuple[float, ...] = (0.0,)
    """Mean of grey values in [0, 1] for each input channel, subtracted from them."""
    std: tuple[float, ...] = (1.0,)
    """Standard deviation for each input channel, by which grey values minus mean are divided."""
    frames: int = 1
    """Number of frames in the temporal window."""
    num_classes: int = 1
    """Number of classes."""
    min_batch: int = 1
    """Minimum batch size in training."""
    fixed_size: int | None = None
    """Side of the input of networks that take one size only; None for others."""

    def normalise(self, images: Tensor) -> Tensor:
        """Grey images (B, 1, H, W), floating point in [0, 1] → network input (B, channels, H, W).

        Raises ValueError for other shapes.
        """
        if images.ndim != 4 or images.shape[1] != 1:
            raise ValueError(f"{tuple(images.shape) = }, expected (B, 1, H, W)")
        mean, std = (images.new_tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std

    def prediction(self, *args: Any, **kwargs: Any) -> Tensor:
        """Result of `inputs` → logits (B, 1, H, W) of the final map; side heads are not computed."""
        raise NotImplementedError

    def activation(self, *args: Any, **kwargs: Any) -> Tensor:
        """Result of `inputs` → probability (B, 1, H, W) in [0, 1]."""
        return torch.sigmoid(self.prediction(*args, **kwargs))

    def geometry(self, size: tuple[int, int], *, enlarge: float = 1.0) -> Geometry:
        """Returns the mapping of images of any (width, height) to an input size of the network.

        `enlarge` is the number of network pixels per source pixel; networks with `fixed_size` ignore it.
        """
        return Geometry.native(size, scale=enlarge, multiple=self.multiple)

    def inputs(self, images: Tensor, geometry: Geometry) -> tuple[Tensor, ...]:
        """Grey images (B, 1, h, w) in [0, 1] → arguments of `prediction` in network pixels."""
        return (self.normalise(resample_to_network(images, geometry)),)

    def probability(self, images: Tensor, geometry: Geometry | None = None) -> Tensor:
        """Grey images (B, 1, h, w) of any size, floating point in [0, 1] → probability (B, 1, h, w).

        `geometry` is the mapping to the network input; by default that of the method `geometry`.
        """
        geometry = geometry or self.geometry((images.shape[-1], images.shape[-2]))
        maps = self.activation(*self.inputs(images, geometry))
        return resample_to_source(maps.to(images.dtype), geometry)  # CPUs cannot resize half precision

    def loss(self, outputs: Any, target: Tensor, frames: Tensor | None = None) -> Tensor:
        """Training loss of the outputs of `forward`; masks `target` (B, 1, H, W) in [0, 1].

        Only networks that also reconstruct their input need `frames`, the network input.
        """
        raise NotImplementedError

    def output_biases(self) -> list[nn.Parameter]:
        """Returns the biases (1,) of the last layer of each head that masks supervise."""
        raise NotImplementedError

    @torch.no_grad()
    def set_prior(self, probability: float) -> None:
        """Sets the biases so that fresh weights predict about this probability, in (0, 1), for all pixels.

        Targets are rare: starting from 0.5, Adam would take hundreds of steps to learn just that.
        """
        for bias in self.output_biases():
            bias.fill_(math.log(probability / (1 - probability)))

    def logits(self, outputs: Any) -> list[Tensor]:
        """Outputs of `forward` → logits (B, 1, H, W) of all maps that masks supervise."""
        return [outputs] if isinstance(outputs, Tensor) else list(outputs)

    def reconstruction_loss(self, outputs: Any, frames: Tensor) -> Tensor | float:
        """Part of `loss` that does not depend on masks; 0 if the network does not reconstruct its input."""
        return 0.0

    @staticmethod
    def infer_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Infers constructor options from a state dict without prefixes."""
        return {}

    def _check(self, frames: Tensor) -> None:
        """Raises ValueError for network inputs of an unsupported shape."""
        if frames.ndim != 4 or frames.shape[1] != len(self.mean):
            raise ValueError(f"{tuple(frames.shape) = }, expected (B, {len(self.mean)}, H, W)")
        height, width = frames.shape[-2:]
        if height % self.multiple or width % self.multiple:
            name = type(self).__name__
            raise ValueError(f"{name} input is {width}x{height}, expected multiples of {self.multiple}")


class DeeplySupervised(Segmenter):
    """A segmenter with a side head at each decoder level, `conv1` … `conv5` from fine to coarse."""

    Conv: nn.Conv2d
    """Head of the prediction."""
    deep_supervision: bool
    """Whether `forward` returns the maps of all heads."""

    def _maps(self, features: list[Tensor]) -> list[Tensor] | Tensor:
        """Decoder features, fine to coarse → logits at the size of the finest; the prediction is last."""
        prediction = self.Conv(features[0])
        if not self.deep_supervision:
            return prediction
        sides = [self.get_submodule(f"conv{i}")(feature) for i, feature in enumerate(features, start=1)]
        size = features[0].shape[-2:]
        resized = [F.interpolate(side, size, mode="bilinear", align_corners=False) for side in sides[1:]]
        return [sides[0], *resized, prediction]

    def output_biases(self) -> list[nn.Parameter]:
        """Returns the biases of the prediction and of the five side heads."""
        return [bias_of(self.Conv), *(bias_of(self.get_submodule(f"conv{level}")) for level in range(1, 6))]

    def loss(self, outputs: list[Tensor] | Tensor, target: Tensor, frames: Tensor | None = None) -> Tensor:
        """Sum of the soft IoU losses of all maps, each computed over the whole batch."""
        maps = [outputs] if isinstance(outputs, Tensor) else outputs
        losses = [soft_iou_loss(torch.sigmoid(logits), target, per_image=False) for logits in maps]
        return torch.stack(losses).sum()
