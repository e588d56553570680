"""The detection loss of Tridos as pure functions of tensors.

SimOTA assignment (YOLOX, arXiv 2107.08430), complete IoU (arXiv 1911.08287), normalised Wasserstein distance
(arXiv 2110.13389) and focal loss (arXiv 1708.02002).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.networks.layers.boxes import box_iou, complete_iou, corners_of
from detectors.networks.tridos.head import STRIDE, cell_grid, decode_boxes

CENTRE_RADIUS = 2.5  # cells: half side of the square around an object's centre whose cells are candidates
OUTSIDE_COST = 1e5  # cells outside box or centre square are assigned only if no others are left
NWD_SCALE = 12.0  # pixels: normalising constant of the Wasserstein similarity
BOX_WEIGHT = 5.0


class Assignment(NamedTuple):
    """Assignment of the cells of one image to its objects."""

    foreground: Tensor
    """(cells,) bool."""
    objects: Tensor
    """(cells,) int64 index of the object; -1 for background."""
    ious: Tensor
    """(cells,) float32 IoU of prediction and object; 0 for background."""


class DetectionLoss(NamedTuple):
    """Total loss and its terms, all scalars; the terms are neither weighted nor normalised."""

    total: Tensor
    ciou_sum: Tensor
    nwd_mean: Tensor
    objectness_sum: Tensor
    class_sum: Tensor
    foreground: int
    """Number of assigned cells in the batch."""

    def contribution(self, foreground: int) -> Tensor:
        """Returns what this part of a batch adds to the total of a batch with `foreground` assigned cells.

        The contributions of all parts sum to the loss of the whole batch.
        """
        cells = max(foreground, 1)
        nwd = self.nwd_mean * (self.foreground / cells)
        box = BOX_WEIGHT * (0.5 * nwd + 0.5 * self.ciou_sum)
        return (box + self.objectness_sum + self.class_sum) / cells


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Returns the IoU (N, M) of boxes (N, 4) and (M, 4), centre x, centre y, width, height."""
    corners = [torch.cat(corners_of(boxes), dim=-1) for boxes in (first, second)]
    areas = first[:, 2:].prod(dim=-1), second[:, 2:].prod(dim=-1)
    return box_iou(corners[0], corners[1], areas=areas)


def wasserstein_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Returns 1 − Wasserstein similarity (N,) of matched boxes (N, 4), centre x, centre y, width, height."""
    difference = (predicted - target).square()
    distance = (difference[:, :2].sum(dim=-1) + 1e-7 + difference[:, 2:].sum(dim=-1) / 4).sqrt()
    return 1 - torch.exp(-distance / NWD_SCALE)


def focal_loss(logits: Tensor, targets: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Element-wise sigmoid focal loss of logits and targets of the same shape.

    Soft targets in [0, 1] interpolate both the balance and the modulating factor.
    """
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    correct = probability * targets + (1 - probability) * (1 - targets)
    balance = alpha * targets + (1 - alpha) * (1 - targets)
    return balance * entropy * (1 - correct) ** gamma


def _candidates(centres: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
    """Returns which cells, by their centres (A, 2), are candidates for objects (G, 4).

    First (A,) bool, in the box or the centre square of any object; then (G, A) bool, in both of the object.
    """
    offset = (centres - objects[:, None, :2]).abs()  # (G, A, 2)
    in_box = (offset < objects[:, None, 2:] / 2).all(dim=-1)
    in_square = (offset < CENTRE_RADIUS * STRIDE).all(dim=-1)
    return (in_box | in_square).any(dim=0), in_box & in_square


@torch.no_grad()
def assign(raw: Tensor, boxes: Tensor, objects: Tensor, labels: Tensor) -> Assignment:
    """SimOTA assignment for one image: each object takes as many cells as the sum of its ten best IoUs.

    `raw` (5 + classes, h, w) logits, `boxes` (h·w, 4) decoded, `objects` (G, 4), all boxes as centre x,
    centre y, width, height in network pixels; `labels` (G,) int64, negative if the class is not known. The
    cost of such an object has no class term.
    """
    channels, height, width = raw.shape
    cells = height * width
    foreground = torch.zeros(cells, dtype=torch.bool, device=raw.device)
    matched = torch.full((cells,), -1, dtype=torch.int64, device=raw.device)
    ious = torch.zeros(cells, device=raw.device)
    centres = (cell_grid(height, width, raw.device) + 0.5) * STRIDE
    # NaN must not break the assignment; it shows in the loss, which is computed from the outputs themselves
    raw, boxes = raw.nan_to_num(0.0), boxes.nan_to_num(0.0)
    near, inside = _candidates(centres, objects)
    near = near.nonzero().flatten()
    if len(objects) == 0 or len(near) == 0:
        return Assignment(foreground, matched, ious)

    iou = pairwise_iou(objects, boxes[near])  # (G, candidates)
    logits = raw[4:].flatten(1)[:, near].T  # (candidates, 1 + classes)
    joint = (logits[:, 1:].sigmoid() * logits[:, :1].sigmoid()).sqrt()
    wanted = F.one_hot(labels.clamp(min=0), channels - 5).float()
    class_cost = F.binary_cross_entropy(
        joint.expand(len(objects), -1, -1), wanted[:, None].expand(-1, len(near), -1), reduction="none"
    ).sum(dim=-1)
    class_cost = class_cost * (labels >= 0)[:, None]
    cost = class_cost - 3 * torch.log(iou + 1e-8) + OUTSIDE_COST * ~inside[:, near]

    best = iou.topk(min(10, len(near)), dim=1).values.sum(dim=1)
    counts = best.int().clamp(min=1)
    taken = torch.zeros_like(cost, dtype=torch.bool)
    for row, count in enumerate(counts.tolist()):
        taken[row, cost[row].topk(count, largest=False).indices] = True
    contested = taken.sum(dim=0) > 1
    taken[:, contested] = F.one_hot(cost[:, contested].argmin(dim=0), len(objects)).T.bool()

    chosen = taken.any(dim=0)
    owner = taken[:, chosen].int().argmax(dim=0)
    foreground[near[chosen]] = True
    matched[near[chosen]] = owner
    ious[near[chosen]] = iou[owner, chosen.nonzero().flatten()]
    return Assignment(foreground, matched, ious)


def detection_loss(
    raw: Tensor,
    objects: list[Tensor],
    labels: list[Tensor],
    *,
    quality: Literal["iou", "wasserstein"] = "iou",
) -> DetectionLoss:
    """The Tridos loss of a batch: (5·(½·NWD + ½·CIoU) + objectness + classes) / max(foreground cells, 1).

    `raw` (B, 5 + classes, h, w); per image `objects` (G, 4) as centre x, centre y, width, height in network
    pixels and `labels` (G,) int64, G may be 0. Without any foreground cell the box and class terms are 0.
    Objects with a negative label, of unknown class, are left out of the class term. The target of a class
    score is the `quality` of its box: the IoU, as published, or the Wasserstein similarity.
    """
    raw = raw.float()
    boxes = decode_boxes(raw)
    images = zip(raw.detach(), boxes.detach(), objects, labels, strict=True)
    matches = [assign(*image) for image in images]
    foreground = torch.stack([m.foreground for m in matches])
    count = int(foreground.sum())
    logits = raw[:, 4:].flatten(2).transpose(1, 2)  # (B, h·w, 1 + classes)
    objectness = focal_loss(logits[..., 0], foreground.float()).sum()
    zero = objectness.new_zeros(())
    if count == 0:
        return DetectionLoss(objectness, zero, zero, objectness, zero, 0)

    target = torch.cat([o[m.objects[m.foreground]] for o, m in zip(objects, matches, strict=True)])
    label = torch.cat([c[m.objects[m.foreground]] for c, m in zip(labels, matches, strict=True)])
    predicted = boxes[foreground]
    if quality == "iou":
        score = torch.cat([m.ious[m.foreground] for m in matches])
    else:
        score = 1 - wasserstein_loss(predicted.detach(), target)
    ciou = (1 - complete_iou(predicted, target).clamp(-1, 1)).sum()
    nwd = wasserstein_loss(predicted, target).mean()
    known = label >= 0
    soft = F.one_hot(label[known], raw.shape[1] - 5) * score[known, None]
    classes = focal_loss(logits[..., 1:][foreground][known], soft).sum()
    parts = DetectionLoss(zero, ciou, nwd, objectness, classes, count)
    return parts._replace(total=parts.contribution(count))
