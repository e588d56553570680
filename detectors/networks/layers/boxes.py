"""Intersection over union of boxes as tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def box_areas(boxes: Tensor) -> Tensor:
    """x1 y1 x2 y2 boxes (..., 4) → areas (...); 0 for boxes of negative width or height."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)


def box_iou(first: Tensor, second: Tensor, *, areas: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """x1 y1 x2 y2 boxes (..., N, 4) and (..., M, 4) → IoU (..., N, M); 0 if both boxes are empty.

    `areas` (..., N) and (..., M) are those of the boxes if known more exactly than from their corners.
    """
    low = torch.maximum(first[..., :, None, :2], second[..., None, :, :2])
    high = torch.minimum(first[..., :, None, 2:], second[..., None, :, 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    area_first, area_second = areas or (box_areas(first), box_areas(second))
    union = area_first[..., :, None] + area_second[..., None, :] - intersection
    return torch.where(union > 0, intersection / union, 0.0)
