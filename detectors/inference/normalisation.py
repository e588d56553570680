"""Conversion of images to network input."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Standard deviation. Like `MEAN` per channel R, G, B of values in [0, 1], as in published backbones."""


def to_network_input(
    images: Sequence[np.ndarray], *, full_scale: int = 255, device: torch.device | str = "cpu"
) -> Tensor:
    """Images (H, W) or (H, W, 3) of one size with values in 0 … `full_scale` → (B, 3, H, W) float32.

    Values are (value / full_scale − mean) / deviation per channel; grey is replicated to three channels.
    """
    stacked = np.stack(images)
    if stacked.ndim == 3:
        stacked = stacked[..., None]
    if stacked.dtype == np.uint16:  # torch cannot compute with uint16
        stacked = stacked.astype(np.int32)
    pixels = torch.from_numpy(stacked)
    if torch.device(device).type == "cuda":
        pixels = pixels.pin_memory()  # for an asynchronous copy
    pixels = pixels.to(device, non_blocking=True).movedim(-1, 1).float()  # (B, 1 or 3, H, W)
    mean, deviation = _statistics(pixels.device, pixels.dtype)
    return (pixels / full_scale - mean) / deviation


@cache
def _statistics(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns `MEAN` and `DEVIATION`, (1, 3, 1, 1) each; cached to avoid synchronous copies to a GPU."""
    mean, deviation = (
        torch.tensor(values, dtype=dtype, device=device).view(1, 3, 1, 1) for values in (MEAN, DEVIATION)
    )
    return mean, deviation
