"""Decoupled anchor-free head on one level, and the meaning of its output.

Ge et al., "YOLOX: Exceeding YOLO Series in 2021", arXiv 2107.08430.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from detectors.networks.layers.blocks import BaseConv

STRIDE = 8
"""Network pixels per cell of the output map, along both axes."""


class Head(nn.Module):
    """Box, objectness and class branches; the lists of one entry are the levels of the original."""

    def __init__(self, cin: int, *, hidden: int, num_classes: int):
        super().__init__()
        self.stems = nn.ModuleList([BaseConv(cin, hidden, 1)])
        self.cls_convs = nn.ModuleList([nn.Sequential(*(BaseConv(hidden, hidden, 3) for _ in range(2)))])
        self.reg_convs = nn.ModuleList([nn.Sequential(*(BaseConv(hidden, hidden, 3) for _ in range(2)))])
        self.cls_preds = nn.ModuleList([nn.Conv2d(hidden, num_classes, 1)])
        self.reg_preds = nn.ModuleList([nn.Conv2d(hidden, 4, 1)])
        self.obj_preds = nn.ModuleList([nn.Conv2d(hidden, 1, 1)])
        # a training run starts from "almost every cell is background" (RetinaNet, arXiv 1708.02002, 4.1)
        for layer in (self.cls_preds[0], self.obj_preds[0]):
            nn.init.constant_(layer.bias, -math.log(99.0))

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) → raw (B, 5 + classes, h, w): x, y, log w, log h, objectness, classes."""
        x = self.stems[0](x)
        boxes, classes = self.reg_convs[0](x), self.cls_convs[0](x)
        return torch.cat(
            [self.reg_preds[0](boxes), self.obj_preds[0](boxes), self.cls_preds[0](classes)], dim=1
        )


def cell_grid(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """(height·width, 2) float32 column and row of each cell, row-major."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    return torch.stack([columns.flatten(), rows.flatten()], dim=1).float()


def decode_boxes(raw: Tensor) -> Tensor:
    """Raw output (B, 5 + classes, h, w) → boxes (B, h·w, 4) as centre x, centre y, width, height.

    In network pixels; cells row-major. The offset is counted from the cell's top-left corner. Sizes saturate
    at e^16 cells, where areas and their gradients are still finite.
    """
    values = raw[:, :4].float().flatten(2).transpose(1, 2)  # (B, h·w, 4)
    centres = (values[..., :2] + cell_grid(*raw.shape[2:], raw.device)) * STRIDE
    return torch.cat([centres, values[..., 2:].clamp(max=16.0).exp() * STRIDE], dim=-1)


def decode_scores(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Raw output (B, 5 + classes, h, w) → objectness (B, h·w) and class probabilities (B, h·w, classes)."""
    values = raw[:, 4:].float().sigmoid().flatten(2).transpose(1, 2)
    return values[..., 0], values[..., 1:]
