"""Batches of pictures into the network input and maps back out of it, as a geometry says."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pipeline.imaging.geometry import BORDER_GREY, Geometry


def fit(pictures: Tensor, geometry: Geometry) -> Tensor:
    """(B, C, h, w) source pictures in [0, 1] → (B, C, H, W) network pictures.

    Resized bilinearly, with antialiasing when shrinking, where the geometry resizes. Raises ValueError for
    pictures of another size than the geometry's.
    """
    width, height = geometry.source
    if pictures.shape[-2:] != (height, width):
        raise ValueError(f"{tuple(pictures.shape) = }, expected {width}x{height} pixels")
    if geometry.content != geometry.source:
        size = geometry.content[::-1]
        pictures = F.interpolate(pictures, size, mode="bilinear", align_corners=False, antialias=True)
    (left, top), (right, bottom) = geometry.offset, _after(geometry)
    if not (left or top or right or bottom):
        return pictures
    if geometry.border == "edge":
        return F.pad(pictures, (left, right, top, bottom), mode="replicate")
    return F.pad(pictures, (left, right, top, bottom), value=BORDER_GREY)


def undo(maps: Tensor, geometry: Geometry) -> Tensor:
    """(B, C, H, W) maps in network pixels → (B, C, h, w) in source pixels.

    Borders are cut off exactly; where the geometry resizes, maps are resized back bilinearly.
    """
    (left, top), (width, height) = geometry.offset, geometry.content
    content = maps[..., top : top + height, left : left + width]
    if geometry.content == geometry.source:
        return content
    size = geometry.source[::-1]
    return F.interpolate(content, size, mode="bilinear", align_corners=False, antialias=True)


def _after(geometry: Geometry) -> tuple[int, int]:
    """Columns on the right and rows below the content."""
    sides = zip(geometry.network, geometry.content, geometry.offset, strict=True)
    right, bottom = (whole - part - offset for whole, part, offset in sides)
    return right, bottom
