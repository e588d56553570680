"""From raw network output to the boxes worth reporting: score threshold and non-maximum suppression.

Plain torch: no compiled extension is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from detectors.networks.tridos.head import decode_boxes, decode_scores

MAX_SIDE = 1e6
"""Pixels: no coordinate that means anything is larger, and areas stay within float32."""


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """x1 y1 x2 y2 boxes (..., N, 4) and (..., M, 4) → IoU (..., N, M); 0 where both boxes are empty."""
    low = torch.maximum(first[..., :, None, :2], second[..., None, :, :2])
    high = torch.minimum(first[..., :, None, 2:], second[..., None, :, 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    area_first, area_second = ((b[..., 2:] - b[..., :2]).clamp(min=0).prod(dim=-1) for b in (first, second))
    union = area_first[..., :, None] + area_second[..., None, :] - intersection
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


def _candidates(raw: Tensor, conf: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each cell of (B, 5 + classes, h, w): box (B, h·w, 4), score, label, and whether it counts."""
    boxes = decode_boxes(raw)
    objectness, classes = decode_scores(raw)
    best, labels = classes.max(dim=-1)
    scores = objectness * best
    half = boxes[..., 2:] / 2
    corners = torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)
    # an untrained network's sizes may overflow exp(), or the area: such boxes are no candidates; NaN is none
    return corners, scores, labels, (scores >= conf) & (corners.abs() < MAX_SIDE).all(dim=-1)


def decode(raw: Tensor, *, conf: float, iou: float, max_candidates: int = 3000) -> list[tuple[Tensor, ...]]:
    """Raw output (B, 5 + classes, h, w) → per image boxes (N, 4) in network pixels, scores, labels.

    Boxes are x1 y1 x2 y2. Score = objectness × best class probability; those below `conf` go, then `nms` at
    `iou`. Should more than `max_candidates` pass the threshold, the best of them are considered: it bounds
    the memory of the suppression.
    """
    corners, scores, labels, valid = _candidates(raw, conf)
    results = []
    for image_valid, *values in zip(valid, corners, scores, labels, strict=True):
        box, score, label = (v[image_valid] for v in values)
        if len(score) > max_candidates:
            top = score.topk(max_candidates).indices.sort().values  # stable order for equal scores
            box, score, label = box[top], score[top], label[top]
        keep = nms(box, score, label, iou=iou)
        results.append((box[keep], score[keep], label[keep]))
    return results


class FixedShapeDetections(NamedTuple):
    """What `nms_fixed_shape` made of some images."""

    boxes: Tensor
    """(B, K, 4) x1 y1 x2 y2 in network pixels, best score first."""
    scores: Tensor
    """(B, K), -1 for what is not kept."""
    labels: Tensor
    """(B, K)"""
    sure: Tensor
    """(B,) bool, false where `decode` has to be asked."""

    def split(self, counts: Sequence[int]) -> list[FixedShapeDetections]:
        """For so many images each."""
        return [FixedShapeDetections(*parts) for parts in zip(*(x.split(counts) for x in self), strict=True)]


def nms_fixed_shape(
    raw: Tensor, *, conf: float, iou: float, most: int = 256, rounds: int = 16
) -> FixedShapeDetections:
    """What `decode` does, for a GPU: shapes depend on nothing, so the CPU need not wait for anything.

    In each of some `rounds` a box goes if a better one that is still there overlaps it, from all of them
    anew; that settles the first box in the first round, and with every round at least one more in each chain
    of overlaps. Where it has not come to rest, or more than `most` boxes pass the threshold, the image is
    not `sure`.
    """
    corners, scores, labels, valid = _candidates(raw, conf)
    count = min(most, scores.shape[1])
    scores, order = torch.where(valid, scores, -1.0).sort(dim=1, descending=True, stable=True)
    fits = valid.sum(dim=1) <= count
    scores, order = scores[:, :count], order[:, :count]
    boxes = corners.gather(1, order[..., None].expand(-1, -1, 4))
    labels = labels.gather(1, order)
    there = scores >= 0
    rivals = (box_iou(boxes, boxes) > iou) & (labels[:, :, None] == labels[:, None, :])
    rivals = rivals.triu(diagonal=1).float()
    alive = before = there  # a box that is not there is never alive
    for _ in range(rounds):
        before, alive = alive, there & (alive[:, None].float() @ rivals)[:, 0].eq(0)
    return FixedShapeDetections(
        boxes, torch.where(alive, scores, -1.0), labels, fits & (alive == before).all(dim=1)
    )


def detections_of(
    settled: FixedShapeDetections, raw: Tensor, *, conf: float, iou: float
) -> list[tuple[Tensor, ...]]:
    """What `decode` gives of the raw output that was settled."""
    results = []
    for row, (boxes, scores, labels, sure) in enumerate(zip(*settled, strict=True)):
        if sure:
            kept = scores >= 0
            results.append((boxes[kept], scores[kept], labels[kept]))
        else:
            results += decode(raw[row : row + 1], conf=conf, iou=iou)
    return results
