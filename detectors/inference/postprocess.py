"""Postprocessing of raw network output: score threshold and non-maximum suppression in plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from detectors.networks.layers.boxes import box_iou
from detectors.networks.tridos.head import decode_boxes, decode_scores

MAX_SIDE = 1e6
"""Largest absolute coordinate of a box in network pixels; areas of such boxes stay finite in float32."""

ImageDetections = tuple[Tensor, Tensor, Tensor]
"""Boxes (N, 4) as x1 y1 x2 y2 in network pixels, scores (N,), labels (N,); best score first."""


def nms(boxes: Tensor, scores: Tensor, labels: Tensor, *, iou: float) -> Tensor:
    """Greedy class-aware non-maximum suppression; returns the indices of the kept boxes, best score first.

    A box is dropped if its IoU with a better kept box of its class is greater than `iou`; equal scores keep
    their order. `boxes` (N, 4) x1 y1 x2 y2, `scores` (N,), `labels` (N,).
    """
    order = torch.argsort(scores, descending=True, stable=True)
    best, worse = _overlapping(boxes[order].cpu().numpy(), iou)
    names = labels[order].cpu().numpy()
    same = names[best] == names[worse]
    best, worse = best[same], worse[same]
    alive = np.ones(len(order), dtype=bool)
    starts = np.flatnonzero(np.diff(best, prepend=-1))  # the pairs of one better box follow one another
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(best)], strict=False):
        if alive[best[start]]:
            alive[worse[start:end]] = False
    return order[torch.from_numpy(alive).to(order.device)]


def _overlapping(boxes: np.ndarray, iou: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows (P,), (P,) of all pairs of boxes (N, 4) x1 y1 x2 y2 whose IoU is greater than `iou`.

    The smaller row comes first, and pairs are sorted by it. Only boxes whose ranges in x overlap are
    compared, which are few if boxes are small.
    """
    rows = np.argsort(boxes[:, 0], kind="stable")
    left, right = boxes[rows, 0], boxes[rows, 2]
    after = np.arange(1, len(rows) + 1)
    counts = np.maximum(np.searchsorted(left, right) - after, 0)
    first = np.repeat(rows, counts)
    offsets = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    second = rows[np.repeat(after, counts) + offsets]
    sides = np.minimum(boxes[first, 2:], boxes[second, 2:]) - np.maximum(boxes[first, :2], boxes[second, :2])
    shared = np.maximum(sides, 0).prod(axis=1)
    areas = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)
    union = areas[first] + areas[second] - shared
    close = (union > 0) & (shared / np.where(union > 0, union, 1) > np.float32(iou))
    low, high = np.minimum(first[close], second[close]), np.maximum(first[close], second[close])
    by_first = np.argsort(low, kind="stable")
    return low[by_first], high[by_first]


def _candidates(raw: Tensor, conf: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Decodes raw output (B, 5 + classes, h, w): boxes (B, h·w, 4) x1 y1 x2 y2, scores and labels (B, h·w).

    The last item (B, h·w) bool is whether a cell is a candidate, with a score of at least `conf`.
    """
    boxes = decode_boxes(raw)
    objectness, classes = decode_scores(raw)
    best, labels = classes.max(dim=-1)
    scores = objectness * best
    half = boxes[..., 2:] / 2
    corners = torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)
    # excludes boxes of untrained networks whose sides or areas overflow, and NaN
    return corners, scores, labels, (scores >= conf) & (corners.abs() < MAX_SIDE).all(dim=-1)


def decode(raw: Tensor, *, conf: float, iou: float, max_candidates: int = 3000) -> list[ImageDetections]:
    """Decodes raw output (B, 5 + classes, h, w) into the boxes, scores and labels of each image.

    The score is objectness × best class probability; boxes below `conf` are dropped before `nms` at `iou`. To
    bound the memory of `nms`, only the best `max_candidates` boxes are considered.
    """
    corners, scores, labels, valid = _candidates(raw, conf)
    results = []
    for image_valid, *values in zip(valid, corners, scores, labels, strict=True):
        box, score, label = (v[image_valid] for v in values)
        if len(score) > max_candidates:
            top = score.topk(max_candidates).indices.sort().values  # keeps the order of equal scores
            box, score, label = box[top], score[top], label[top]
        keep = nms(box, score, label, iou=iou)
        results.append((box[keep], score[keep], label[keep]))
    return results


class FixedShapeDetections(NamedTuple):
    """Result of `nms_fixed_shape` for B images with K boxes each."""

    boxes: Tensor
    """(B, K, 4) x1 y1 x2 y2 in network pixels, best score first."""
    scores: Tensor
    """(B, K), -1 for boxes that are not kept."""
    labels: Tensor
    """(B, K)"""
    converged: Tensor
    """(B,) bool; the result of an image equals that of `decode` only if True."""

    def split(self, counts: Sequence[int]) -> list[FixedShapeDetections]:
        """Splits the batch into parts of `counts` images."""
        return [FixedShapeDetections(*parts) for parts in zip(*(x.split(counts) for x in self), strict=True)]


def nms_fixed_shape(
    raw: Tensor, *, conf: float, iou: float, max_boxes: int = 256, rounds: int = 16
) -> FixedShapeDetections:
    """Decodes raw output (B, 5 + classes, h, w) with fixed output shapes, so without GPU–CPU synchronisation.

    Equals `decode` if `converged`. Each round recomputes which boxes are suppressed by the boxes kept in the
    round before: the first box is right after one round, and every round extends each chain of overlaps by
    at least one box. An image has not converged if the last round changes it, or if more than `max_boxes`
    boxes pass the threshold.
    """
    corners, scores, labels, valid = _candidates(raw, conf)
    count = min(max_boxes, scores.shape[1])
    scores, order = torch.where(valid, scores, -1.0).sort(dim=1, descending=True, stable=True)
    fits = valid.sum(dim=1) <= count
    scores, order = scores[:, :count], order[:, :count]
    boxes = corners.gather(1, order[..., None].expand(-1, -1, 4))
    labels = labels.gather(1, order)
    candidates = scores >= 0
    overlaps = (box_iou(boxes, boxes) > iou) & (labels[:, :, None] == labels[:, None, :])
    suppresses = overlaps.triu(diagonal=1).float()
    alive = before = candidates
    for _ in range(rounds):
        before, alive = alive, candidates & (alive[:, None].float() @ suppresses)[:, 0].eq(0)
    return FixedShapeDetections(
        boxes, torch.where(alive, scores, -1.0), labels, fits & (alive == before).all(dim=1)
    )


def detections_of(
    results: FixedShapeDetections, raw: Tensor, *, conf: float, iou: float
) -> list[ImageDetections]:
    """Returns the result of `decode` for raw output (B, 5 + classes, h, w) from that of `nms_fixed_shape`.

    Images that have not converged are decoded again.
    """
    images: list[ImageDetections] = []
    for row, (boxes, scores, labels, converged) in enumerate(zip(*results, strict=True)):
        if converged:
            kept = scores >= 0
            images.append((boxes[kept], scores[kept], labels[kept]))
        else:
            images += decode(raw[row : row + 1], conf=conf, iou=iou)
    return images
