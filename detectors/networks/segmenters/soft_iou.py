"""Soft intersection over union, the training loss of most single-frame segmenters."""

from __future__ import annotations

import torch
from torch import Tensor

SMOOTH = 1.0
"""Added to intersection and union, so that images without targets have a gradient."""


def soft_iou_loss(probability: Tensor, target: Tensor, *, per_image: bool) -> Tensor:
    """1 − soft IoU of probabilities and masks in [0, 1], both (B, 1, H, W); a scalar of at least float32.

    `per_image` averages the ratios of the images; otherwise the sums are over the whole batch, so that large
    targets outweigh small ones and the weight of an image depends on the others. Raises ValueError if the
    shapes differ.
    """
    if probability.shape != target.shape:
        raise ValueError(f"probability is {tuple(probability.shape)}, target {tuple(target.shape)}")
    axes = tuple(range(1, probability.ndim)) if per_image else tuple(range(probability.ndim))
    # half precision cannot count more than 256 (bfloat16) or 2048 (float16) pixels
    exact = torch.promote_types(probability.dtype, torch.float32)
    probability, target = probability.to(exact), target.to(exact)
    intersection = (probability * target).sum(axes)
    union = probability.sum(axes) + target.sum(axes) - intersection
    return (1 - (intersection + SMOOTH) / (union + SMOOTH)).mean()
