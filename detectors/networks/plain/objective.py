"""The training objective of the plain network: a peak at the centre of each target, and boxes around it.

The focal loss of the peaks is that of CenterNet (arXiv 1904.07850), the loss of the boxes complete IoU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.networks.layers.boxes import complete_iou
from detectors.networks.plain.network import CELL
from detectors.networks.tridos.head import cell_grid, decode_boxes

MIN_SPREAD = 0.7
"""Minimum standard deviation of a target peak, in cells."""
BOX_WEIGHT = 2.0


class PeakLoss(NamedTuple):
    """Sums of the loss over a batch, and the counts by which they are divided."""

    peak_sum: Tensor
    box_sum: Tensor
    peaks: int
    """Number of cells at the centres of targets."""
    cells: int
    """Number of cells whose boxes are trained."""


def target_peaks(boxes: Tensor, height: int, width: int, *, cell: int = CELL) -> Tensor:
    """Boxes (N, 4) as centre and size in pixels → (height, width): 1 at centres, with Gaussian slopes."""
    grid = (cell_grid(height, width, boxes.device) + 0.5) * cell
    if not len(boxes):
        return grid.new_zeros(height, width)
    centres = (boxes[:, None, :2] / cell).floor() * cell + cell / 2  # of the cells that hold the centres
    spread = (boxes[:, 2:].prod(dim=1).sqrt() / 6).clamp(min=MIN_SPREAD * cell)
    squares = (grid - centres).square().sum(dim=-1)
    return torch.exp(-squares / (2 * spread[:, None] ** 2)).amax(dim=0).reshape(height, width)


def peak_loss(raw: Tensor, objects: list[Tensor], *, cell: int = CELL) -> PeakLoss:
    """Returns the loss of raw output (B, 6, h, w) with cells of `cell` pixels.

    `objects` are (G, 4) per image, centre x, centre y, width, height in network pixels; G may be 0.
    """
    height, width = raw.shape[-2:]
    wanted = torch.stack([target_peaks(boxes, height, width, cell=cell) for boxes in objects])
    logits = raw[:, 4]
    probability = logits.sigmoid()
    centre = wanted > 0.999
    positive = -F.logsigmoid(logits) * (1 - probability) ** 2
    negative = -F.logsigmoid(-logits) * probability**2 * (1 - wanted) ** 4
    peak_sum = torch.where(centre, positive, negative).sum()
    box_sum, cells = _box_sum(raw, objects, cell)
    return PeakLoss(peak_sum, box_sum, int(centre.sum()), cells)


def _box_sum(raw: Tensor, objects: list[Tensor], cell: int) -> tuple[Tensor, int]:
    """Returns the sum of 1 − complete IoU over the 3×3 cells around each centre, and their number."""
    height, width = raw.shape[-2:]
    predicted = decode_boxes(raw).unflatten(1, (height, width))
    chosen, targets = [], []
    for number, boxes in enumerate(objects):
        for box in boxes:
            column, row = (int(n) for n in (box[:2] / cell).floor())
            part = predicted[number, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            chosen.append(part.flatten(0, 1))
            targets.append(box.expand(len(chosen[-1]), 4))
    if not chosen:
        return raw.new_zeros(()), 0
    losses = 1 - complete_iou(torch.cat(chosen), torch.cat(targets)).clamp(-1, 1)
    return losses.sum(), len(losses)
