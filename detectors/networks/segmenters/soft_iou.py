"""Soft intersection over union, the loss that the single-frame segmenters are trained with."""

from __future__ import annotations

import torch
from torch import Tensor

SMOOTH = 1.0
"""Added to intersection and union: a picture without targets still teaches to keep silent."""


def soft_iou_loss(probability: Tensor, target: Tensor, *, per_image: bool) -> Tensor:
    """1 − soft IoU of probabilities and masks in [0, 1], both (B, 1, H, W); a scalar of at least float32.

    `per_image` forms the ratio for each image and averages; else sums run over the whole batch, where large
    targets outweigh small ones and an image's share depends on its neighbours.
    """
    if probability.shape != target.shape:
        raise ValueError(f"probability is {tuple(probability.shape)}, target {tuple(target.shape)}")
    axes = tuple(range(1, probability.ndim)) if per_image else tuple(range(probability.ndim))
    # half precision counts pixels no further than 256 (bfloat16) or 2048 (float16)
    exact = torch.promote_types(probability.dtype, torch.float32)
    probability, target = probability.to(exact), target.to(exact)
    intersection = (probability * target).sum(axes)
    union = probability.sum(axes) + target.sum(axes) - intersection
    return (1 - (intersection + SMOOTH) / (union + SMOOTH)).mean()
