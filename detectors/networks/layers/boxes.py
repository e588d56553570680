"""Intersection over union of boxes as tensors."""

from __future__ import annotations

import math

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


def corners_of(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 4) centre x, centre y, width, height → top-left and bottom-right corners (..., 2)."""
    half = boxes[..., 2:] / 2
    return boxes[..., :2] - half, boxes[..., :2] + half


def complete_iou(predicted: Tensor, target: Tensor) -> Tensor:
    """Returns the complete IoU (N,) of matched boxes (N, 4), centre x, centre y, width, height.

    Unlike in the paper, the weight `alpha` is part of the gradient: the published training did so.
    """
    (low_p, high_p), (low_t, high_t) = corners_of(predicted), corners_of(target)
    intersection = (torch.minimum(high_p, high_t) - torch.maximum(low_p, low_t)).clamp(min=0).prod(dim=-1)
    union = predicted[:, 2:].prod(dim=-1) + target[:, 2:].prod(dim=-1) - intersection
    iou = intersection / (union + 1e-16)
    distance = (predicted[:, :2] - target[:, :2]).square().sum(dim=-1)
    enclosing = (torch.maximum(high_p, high_t) - torch.minimum(low_p, low_t)).clamp(min=0)
    diagonal = enclosing.square().sum(dim=-1).clamp(min=1e-6)
    angles = [torch.atan(boxes[:, 2] / boxes[:, 3].clamp(min=1e-6)) for boxes in (predicted, target)]
    v = 4 / math.pi**2 * (angles[0] - angles[1]).square()
    alpha = v / (1 - iou + v).clamp(min=1e-6)
    return iou - distance / diagonal - alpha * v
