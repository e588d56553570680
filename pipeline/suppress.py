"""From raw network output to the boxes worth reporting: score threshold and non-maximum suppression.

Plain torch: no compiled extension is needed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detectors.tridos.head import decode_boxes, decode_scores

LARGEST = 1e6
"""Pixels: no coordinate that means anything is larger, and areas stay within float32."""


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """x1 y1 x2 y2 boxes (N, 4) and (M, 4) → IoU (N, M); 0 where both boxes are empty."""
    low = torch.maximum(first[:, None, :2], second[:, :2])
    high = torch.minimum(first[:, None, 2:], second[:, 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    area_first, area_second = ((b[:, 2:] - b[:, :2]).clamp(min=0).prod(dim=-1) for b in (first, second))
    union = area_first[:, None] + area_second - intersection
    return torch.where(union > 0, intersection / union, 0.0)


def nms(boxes: Tensor, scores: Tensor, labels: Tensor, *, iou: float) -> Tensor:
    """Greedy class-aware suppression → indices of the kept boxes, best score first.

    A box goes when its IoU with a better kept box of its class is strictly greater than `iou`; equal scores
    keep their order. `boxes` (N, 4) x1 y1 x2 y2, `scores` (N,), `labels` (N,).
    """
    order = torch.argsort(scores, descending=True, stable=True)
    boxes, labels = boxes[order], labels[order]
    rivals = (box_iou(boxes, boxes) > iou) & (labels[:, None] == labels)
    rivals = rivals.triu(diagonal=1).cpu()
    alive = torch.ones(len(order), dtype=torch.bool)
    for row in range(len(order)):
        if alive[row]:
            alive &= ~rivals[row]
    return order[alive.to(order.device)]


def decode(raw: Tensor, *, conf: float, iou: float, max_candidates: int = 3000) -> list[tuple[Tensor, ...]]:
    """Raw output (B, 5 + classes, h, w) → per image boxes (N, 4) in network pixels, scores, labels.

    Boxes are x1 y1 x2 y2. Score = objectness × best class probability; those below `conf` go, then `nms` at
    `iou`. Should more than `max_candidates` pass the threshold, the best of them are considered: it bounds
    the memory of the suppression.
    """
    boxes = decode_boxes(raw)
    objectness, classes = decode_scores(raw)
    best, labels = classes.max(dim=-1)
    scores = objectness * best
    half = boxes[..., 2:] / 2
    corners = torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)
    # an untrained network's sizes may overflow exp(), or the area: such boxes are no candidates; NaN is none
    valid = (scores >= conf) & (corners.abs() < LARGEST).all(dim=-1)
    results = []
    for image_valid, *values in zip(valid, corners, scores, labels, strict=True):
        box, score, label = (v[image_valid] for v in values)
        if len(score) > max_candidates:
            top = score.topk(max_candidates).indices.sort().values  # stable order for equal scores
            box, score, label = box[top], score[top], label[top]
        keep = nms(box, score, label, iou=iou)
        results.append((box[keep], score[keep], label[keep]))
    return results
