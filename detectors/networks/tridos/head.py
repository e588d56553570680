"""Decoupled anchor-free head of YOLOX on one level, and the decoding of its output.

Ge et al., "YOLOX: Exceeding YOLO Series in 2021", arXiv 2107.08430.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from detectors.networks.layers.blocks import BaseConv

STRIDE = 8
"""Network pixels per cell of the output along both axes."""


class Head(nn.Module):
    """Box, objectness and class branches; YOLOX has one entry per level in each list, here one in all."""

    def __init__(self, cin: int, *, hidden: int, num_classes: int):
        super().__init__()
        self.stems = nn.ModuleList([BaseConv(cin, hidden, 1)])
        self.cls_convs = nn.ModuleList([nn.Sequential(*(BaseConv(hidden, hidden, 3) for _ in range(2)))])
        self.reg_convs = nn.ModuleList([nn.Sequential(*(BaseConv(hidden, hidden, 3) for _ in range(2)))])
        classes, boxes = nn.Conv2d(hidden, num_classes, 1), nn.Conv2d(hidden, 4, 1)
        objectness = nn.Conv2d(hidden, 1, 1)
        self.cls_preds = nn.ModuleList([classes])
        self.reg_preds = nn.ModuleList([boxes])
        self.obj_preds = nn.ModuleList([objectness])
        # prior probability 0.01: almost every cell is background (RetinaNet, arXiv 1708.02002, section 4.1)
        for layer in (classes, objectness):
            assert layer.bias is not None
            nn.init.constant_(layer.bias, -math.log(99.0))

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) → raw output (B, 5 + classes, h, w): x, y, log w, log h, objectness, classes."""
        x = self.stems[0](x)
        boxes, classes = self.reg_convs[0](x), self.cls_convs[0](x)
        return torch.cat(
            [self.reg_preds[0](boxes), self.obj_preds[0](boxes), self.cls_preds[0](classes)], dim=1
        )


def cell_grid(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Returns (height·width, 2) float32 column and row of each cell, row-major."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    return torch.stack([columns.flatten(), rows.flatten()], dim=1).float()


def decode_boxes(raw: Tensor) -> Tensor:
    """Raw output (B, 5 + classes, h, w) → boxes (B, h·w, 4) as centre x, centre y, width, height.

    Boxes are in network pixels, cells row-major, offsets relative to the top-left corner of the cell. Sizes
    saturate at e^16 cells, where areas and their gradients are still finite.
    """
    values = raw[:, :4].float().flatten(2).transpose(1, 2)  # (B, h·w, 4)
    height, width = raw.shape[2:]
    centres = (values[..., :2] + cell_grid(height, width, raw.device)) * STRIDE
    return torch.cat([centres, values[..., 2:].clamp(max=16.0).exp() * STRIDE], dim=-1)


def decode_scores(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Raw output (B, 5 + classes, h, w) → objectness (B, h·w), class probabilities (B, h·w, classes)."""
    values = raw[:, 4:].float().sigmoid().flatten(2).transpose(1, 2)
    return values[..., 0], values[..., 1:]
