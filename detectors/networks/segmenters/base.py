"""What the single-frame segmenters have in common towards the pipeline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.networks.segmenters.resampling import fit, undo
from detectors.networks.segmenters.soft_iou import soft_iou_loss
from pipeline.imaging.geometry import Geometry

MIN_PROBABILITY = 1e-7
"""Where probabilities become logits again they are kept so far from 0 and 1."""


def exact_sigmoid(logits: Tensor) -> Tensor:
    """Probabilities of at least float32: half precision has none from 0.996 to 1, and no gradient there."""
    return torch.sigmoid(logits.to(torch.promote_types(logits.dtype, torch.float32)))


def inverse_sigmoid(probability: Tensor) -> Tensor:
    """The logits of probabilities; beyond ±16 there is no gradient."""
    return torch.logit(probability, eps=MIN_PROBABILITY)


class Segmenter(nn.Module):
    """A network that says for each pixel of one frame how likely it belongs to a target."""

    multiple: int = 1
    """Both sides of the input must be multiples of this."""
    mean: tuple[float, ...] = (0.0,)
    """Per input channel, subtracted from grey values in [0, 1]."""
    std: tuple[float, ...] = (1.0,)
    """Per input channel, divides what is left."""
    frames: int = 1
    """Frames that one map depends on."""
    num_classes: int = 1
    """Kinds of targets that are told apart."""
    least_batch: int = 1
    """Fewest pictures that a batch must have in training."""
    fixed_size: int | None = None
    """Rows and columns of every input, for networks that take one size alone."""

    def normalise(self, pictures: Tensor) -> Tensor:
        """Grey pictures (B, 1, H, W), floating point in [0, 1] → network input (B, channels, H, W)."""
        if pictures.ndim != 4 or pictures.shape[1] != 1:
            raise ValueError(f"{tuple(pictures.shape) = }, expected (B, 1, H, W)")
        mean, std = (pictures.new_tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return (pictures - mean) / std

    def prediction(self, frames: Tensor) -> Tensor:
        """Logits (B, 1, H, W) of the map that counts, by the shortest way there."""
        raise NotImplementedError

    def activation(self, frames: Tensor) -> Tensor:
        """Network input (B, channels, H, W) → probability (B, 1, H, W) in [0, 1]."""
        return torch.sigmoid(self.prediction(frames))

    def geometry(self, size: tuple[int, int], *, enlarge: float = 1.0) -> Geometry:
        """How pictures of any (width, height) become input of the sizes that the network takes.

        `enlarge` is the number of network pixels per pixel; a network of one size has no use for it.
        """
        return Geometry.native(size, scale=enlarge, multiple=self.multiple)

    def inputs(self, pictures: Tensor, geometry: Geometry) -> tuple[Tensor, ...]:
        """Grey pictures (B, 1, h, w) in [0, 1] → all that `prediction` takes, in network pixels."""
        return (self.normalise(fit(pictures, geometry)),)

    def probability(self, pictures: Tensor, geometry: Geometry | None = None) -> Tensor:
        """Grey pictures (B, 1, h, w) of any size, floating point in [0, 1] → probability (B, 1, h, w).

        `geometry` says how they lie in the network input, where it is to be another than that of the method.
        """
        geometry = geometry or self.geometry((pictures.shape[-1], pictures.shape[-2]))
        found = self.activation(*self.inputs(pictures, geometry))
        return undo(found.to(pictures.dtype), geometry)  # a CPU cannot resize maps of half precision

    def loss(self, outputs: Any, target: Tensor, frames: Tensor | None = None) -> Tensor:
        """Training loss of what `forward` gave for `frames`; target (B, 1, H, W) in [0, 1].

        Only networks that also rebuild their input need `frames`.
        """
        raise NotImplementedError

    def output_biases(self) -> list[nn.Parameter]:
        """The biases (1,) that are added last to the logits of each map that masks supervise."""
        raise NotImplementedError

    @torch.no_grad()
    def set_prior(self, probability: float) -> None:
        """Let fresh weights give about this probability everywhere, from 0 to 1 exclusive: targets are rare.

        From the one half that networks start at, Adam takes hundreds of steps to learn no more than that.
        """
        for bias in self.output_biases():
            bias.fill_(math.log(probability / (1 - probability)))

    def logits(self, outputs: Any) -> list[Tensor]:
        """Of what `forward` gave: logits (B, 1, H, W) of all maps that masks supervise."""
        return [outputs] if isinstance(outputs, Tensor) else list(outputs)

    def unmasked_loss(self, outputs: Any, frames: Tensor) -> Tensor | float:
        """The part of `loss` that masks have no share in; 0 but for networks that rebuild their input."""
        return 0.0

    @staticmethod
    def options_from(state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Constructor options that a state dict with bare names tells; empty where there are none."""
        return {}

    def _check(self, frames: Tensor) -> None:
        """Raise ValueError for an input of a shape that the network does not take."""
        if frames.ndim != 4 or frames.shape[1] != len(self.mean):
            raise ValueError(f"{tuple(frames.shape) = }, expected (B, {len(self.mean)}, H, W)")
        height, width = frames.shape[-2:]
        if height % self.multiple or width % self.multiple:
            name = type(self).__name__
            raise ValueError(f"{name} input is {width}x{height}, expected multiples of {self.multiple}")


class DeeplySupervised(Segmenter):
    """A segmenter whose decoder levels have heads of their own, `conv1` … from fine to coarse."""

    deep_supervision: bool
    """Whether `forward` gives the maps of all heads."""

    def _maps(self, features: list[Tensor]) -> list[Tensor] | Tensor:
        """Logits at the size of the finest of the decoder's features: side heads first, `Conv` last."""
        prediction = self.Conv(features[0])
        if not self.deep_supervision:
            return prediction
        sides = [self.get_submodule(f"conv{i}")(feature) for i, feature in enumerate(features, start=1)]
        size = features[0].shape[-2:]
        resized = [F.interpolate(side, size, mode="bilinear", align_corners=False) for side in sides[1:]]
        return [sides[0], *resized, prediction]

    def output_biases(self) -> list[nn.Parameter]:
        """Those of the five heads, and of the prediction."""
        return [head.bias for head in (self.Conv, self.conv1, self.conv2, self.conv3, self.conv4, self.conv5)]

    def loss(self, outputs: list[Tensor] | Tensor, target: Tensor, frames: Tensor | None = None) -> Tensor:
        """Sum over all maps of logits of the soft IoU loss, each over the whole batch."""
        maps = [outputs] if isinstance(outputs, Tensor) else outputs
        losses = [soft_iou_loss(torch.sigmoid(logits), target, per_image=False) for logits in maps]
        return torch.stack(losses).sum()
