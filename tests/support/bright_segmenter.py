"""A segmenter with known output: it marks pixels brighter than half of the full scale."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import detectors
from detectors.networks.registry import segmenter_entry
from detectors.networks.segmenters.base import Segmenter
from detectors.weights import state_dict


class Bright(Segmenter):
    """Returns the grey value times its only weight, 1 by default, as probability."""

    multiple = 16

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def activation(self, frames: torch.Tensor) -> torch.Tensor:
        return (frames * self.weight).clamp(0, 1)


def add_segmenters(patch: pytest.MonkeyPatch, *names: str) -> None:
    """Registers `Bright` under the names until `patch` is undone."""
    module = types.ModuleType("detectors.networks.segmenters.bright")
    module.Bright = Bright
    patch.setitem(sys.modules, "detectors.networks.segmenters.bright", module)
    for name in names:
        entry = segmenter_entry(module.__name__, "Bright")
        patch.setitem(detectors.SEGMENTERS, name, entry)
        patch.setitem(detectors.DETECTORS, name, entry)


def save_bright(path: Path, *, weight: float = 1.0, **metadata) -> Path:
    """Saves weights of `Bright`; returns the path."""
    state_dict.save({"weight": torch.tensor([weight])}, path, metadata={"trained_on": "nothing", **metadata})
    return path


def picture(*spots, size: tuple[int, int] = (64, 64), bits: int = 8) -> np.ndarray:
    """Returns a black picture (H, W) with spots (x1, y1, x2, y2, share of full scale)."""
    full = 2**bits - 1
    image = np.zeros(size[::-1], np.uint8 if bits == 8 else np.uint16)
    for x1, y1, x2, y2, share in spots:
        image[y1:y2, x1:x2] = round(share * full)
    return image


def save_pictures(folder: Path, pictures: list[np.ndarray]) -> Path:
    """Saves each picture as PNG; returns the folder."""
    folder.mkdir(parents=True)
    for index, image in enumerate(pictures):
        Image.fromarray(image).save(folder / f"{index:03}.png")
    return folder
