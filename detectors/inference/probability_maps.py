"""A single-frame segmenter on pictures as they come: any size, 8 or 16 bit, grey or colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from detectors.backends.devices import pick_device, require_precision
from detectors.inference.streaming import PRECISIONS
from detectors.networks import registry
from detectors.networks.segmenters.base import Segmenter
from detectors.weights import restore, zoo
from pipeline.imaging.geometry import Geometry
from pipeline.imaging.pixel_formats import convert_channels
from pipeline.system.errors import UsageError, WeightsError

MIRRORS: tuple[tuple[int, ...], ...] = ((-1,), (-2,), (-2, -1))
"""Axes of (B, 1, H, W) that are mirrored, in each of the views that flip averaging adds."""


def load_segmenter(name: str, name_or_path: str | None) -> tuple[Segmenter, Path]:
    """The segmenter with the named weights, or else those that ship for it, and the file they are in.

    Raises UsageError for a name that is no segmenter's, and what `weights.network` raises.
    """
    name = registry.canonical(name)
    if name not in registry.SEGMENTERS:
        known = ", ".join(sorted(registry.SEGMENTERS))
        raise UsageError(f"detector '{name}' finds boxes and gives no probability maps (those do: {known})")
    return restore.network(name, zoo.chosen(name, name_or_path))[:2]


class ProbabilityMaps:
    """From one picture to the probability, pixel by pixel, that it belongs to a target."""

    def __init__(
        self,
        model: Segmenter,
        *,
        size: tuple[int, int] | None = None,
        fit: Literal["letterbox", "stretch"] = "letterbox",
        enlarge: float = 1.0,
        flip_averaging: bool = False,
        device: str = "auto",
        precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    ):
        """`size` is (width, height) of the network input, which pictures fill as `fit` says; None keeps each
        pixel, or makes `enlarge` of it along rows and columns, where the network takes pictures of any size.
        `flip_averaging` takes the mean of what the network gives for four mirrored views, in four times the
        time.

        Raises UsageError for a size that the network does not take, and for a device that is not there.
        """
        self._device = pick_device(device)
        require_precision(precision, self._device)
        if size is not None:
            _check_size(model, size)
        self._model = model.to(self._device).eval()
        self._size, self._fit, self._dtype = size, fit, PRECISIONS[precision]
        self._enlarge = enlarge
        self._mirrors = MIRRORS if flip_averaging else ()

    def geometry(self, source: tuple[int, int]) -> Geometry:
        """How pictures of this (width, height) lie in the network input."""
        if self._size is None:
            return self._model.geometry(source, enlarge=self._enlarge)
        return getattr(Geometry, self._fit)(source, self._size)

    def __call__(self, image: np.ndarray, *, bit_depth: int | None = None) -> np.ndarray:
        """(H, W) or (H, W, 3) R, G, B, uint8 or uint16 → (H, W) float32 in [0, 1].

        `bit_depth` says how many bits of a sample count, all unless given. Raises WeightsError where the
        network gives something else than numbers.
        """
        return self.batch([image], bit_depth=bit_depth)[0]

    @torch.inference_mode()
    def batch(self, images: Sequence[np.ndarray], *, bit_depth: int | None = None) -> np.ndarray:
        """The same for several images of one size and type at once: (B, H, W) float32 in [0, 1]."""
        full_scale = 2 ** (bit_depth or 8 * images[0].itemsize) - 1
        grey = np.stack([convert_channels(image, grey=True).astype(np.float32) for image in images])
        pictures = torch.from_numpy(grey).to(self._device)[:, None] / full_scale
        geometry = self.geometry(images[0].shape[1::-1])
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None):
            found = self._model.probability(pictures, geometry)
            mirrored = [self._model.probability(pictures.flip(a), geometry).flip(a) for a in self._mirrors]
        if mirrored:
            found = torch.stack([found, *mirrored]).float().mean(dim=0)
        found = found[:, 0].float().cpu().numpy()
        if not np.isfinite(found).all():
            raise WeightsError(f"{type(self._model).__name__} gives NaN with these weights; use others")
        return found.clip(0, 1)  # resizing may overshoot by a rounding error


def _check_size(model: Segmenter, size: tuple[int, int]) -> None:
    text, name = "{}x{}".format(*size), type(model).__name__
    fixed = model.fixed_size
    if fixed is not None and size != (fixed, fixed):
        raise UsageError(
            f"size {text}: this {name} takes {fixed}x{fixed} alone; that is its native size, too"
        )
    if any(side % model.multiple for side in size):
        raise UsageError(f"size {text}: {name} takes multiples of {model.multiple}")
