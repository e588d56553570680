"""Probability maps of images of any size, 8 or 16 bit, grey or colour, by a single-frame segmenter."""

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
"""Mirrored axes of (B, 1, H, W) in each additional view of flip averaging."""


def load_segmenter(name: str, name_or_path: str | None) -> tuple[Segmenter, Path]:
    """Loads a segmenter with the named or the default weights; returns it and the file of the weights.

    Raises UsageError if the name is not of a segmenter, WeightsError if the weights are missing, damaged or
    of another network.
    """
    name = registry.canonical(name)
    if name not in registry.SEGMENTERS:
        known = ", ".join(sorted(registry.SEGMENTERS))
        raise UsageError(f"detector '{name}' predicts boxes, not probability maps; segmenters are {known}")
    model, path, _ = restore.restore_network(name, zoo.weights_or_default(name, name_or_path))
    assert isinstance(model, Segmenter)
    return model, path


class ProbabilityMaps:
    """Computes the probability of each pixel of an image to belong to a target.

    `size` is (width, height) of the network input, which images fill as `fit` says. None keeps the size of
    the image times `enlarge`, for networks that take any size. `flip_averaging` averages over four mirrored
    views, in four times the time.

    Raises UsageError for sizes that the network does not support and for unavailable devices.
    """

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
        self._device = pick_device(device)
        require_precision(precision, self._device)
        if size is not None:
            _check_size(model, size)
        self._model = model.to(self._device).eval()
        self._size, self._fit, self._dtype = size, fit, PRECISIONS[precision]
        self._enlarge = enlarge
        self._mirrors = MIRRORS if flip_averaging else ()

    def geometry(self, source: tuple[int, int]) -> Geometry:
        """Returns the mapping between images of this (width, height) and the network input."""
        if self._size is None:
            return self._model.geometry(source, enlarge=self._enlarge)
        return getattr(Geometry, self._fit)(source, self._size)

    def __call__(self, image: np.ndarray, *, bit_depth: int | None = None) -> np.ndarray:
        """(H, W) or (H, W, 3) R, G, B, uint8 or uint16 → (H, W) float32 in [0, 1].

        `bit_depth` is the number of significant bits of a sample, by default all. Raises WeightsError if the
        network returns NaN.
        """
        return self.batch([image], bit_depth=bit_depth)[0]

    @torch.inference_mode()
    def batch(self, images: Sequence[np.ndarray], *, bit_depth: int | None = None) -> np.ndarray:
        """As `__call__` for several images of one size and dtype; returns (B, H, W) float32 in [0, 1]."""
        full_scale = 2 ** (bit_depth or 8 * images[0].itemsize) - 1
        grey = np.stack([convert_channels(image, grey=True).astype(np.float32) for image in images])
        inputs = torch.from_numpy(grey).to(self._device)[:, None] / full_scale
        height, width = images[0].shape[:2]
        geometry = self.geometry((width, height))
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None):
            maps = self._model.probability(inputs, geometry)
            mirrored = [self._model.probability(inputs.flip(a), geometry).flip(a) for a in self._mirrors]
        if mirrored:
            maps = torch.stack([maps, *mirrored]).float().mean(dim=0)
        probability = maps[:, 0].float().cpu().numpy()
        if not np.isfinite(probability).all():
            raise WeightsError(f"{type(self._model).__name__} gives NaN with these weights; use others")
        return probability.clip(0, 1)  # resizing may overshoot by a rounding error


def _check_size(model: Segmenter, size: tuple[int, int]) -> None:
    """Raises UsageError if the network does not support a size (width, height)."""
    text, name = "{}x{}".format(*size), type(model).__name__
    fixed = model.fixed_size
    if fixed is not None and size != (fixed, fixed):
        raise UsageError(
            f"size {text}: this {name} takes only {fixed}x{fixed}, which is its native size, too"
        )
    if any(side % model.multiple for side in size):
        raise UsageError(f"size {text}: {name} takes multiples of {model.multiple}")
