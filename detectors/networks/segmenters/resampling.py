"""Resampling of batches between source and network pixels, as a geometry specifies."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pipeline.imaging.geometry import BORDER_GREY, Geometry


def resample_to_network(images: Tensor, geometry: Geometry) -> Tensor:
    """Images (B, C, h, w) in [0, 1], in source pixels → (B, C, H, W) in network pixels.

    Bilinear, with antialiasing if smaller. Raises ValueError if the size is not that of the geometry.
    """
    width, height = geometry.source
    if images.shape[-2:] != (height, width):
        raise ValueError(f"{tuple(images.shape) = }, expected {width}x{height} pixels")
    if geometry.content != geometry.source:
        size = geometry.content[::-1]
        images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
    (left, top), (right, bottom) = geometry.offset, _after(geometry)
    if not (left or top or right or bottom):
        return images
    if geometry.border == "edge":
        return F.pad(images, (left, right, top, bottom), mode="replicate")
    return F.pad(images, (left, right, top, bottom), value=BORDER_GREY)


def resample_to_source(maps: Tensor, geometry: Geometry) -> Tensor:
    """Maps (B, C, H, W) in network pixels → (B, C, h, w) in source pixels.

    Borders are cropped exactly; if the geometry resizes, maps are resized back bilinearly.
    """
    (left, top), (width, height) = geometry.offset, geometry.content
    content = maps[..., top : top + height, left : left + width]
    if geometry.content == geometry.source:
        return content
    size = geometry.source[::-1]
    return F.interpolate(content, size, mode="bilinear", align_corners=False, antialias=True)


def _after(geometry: Geometry) -> tuple[int, int]:
    """Returns the columns to the right of the content and the rows below it."""
    sides = zip(geometry.network, geometry.content, geometry.offset, strict=True)
    right, bottom = (whole - part - offset for whole, part, offset in sides)
    return right, bottom
