"""Corruptions of infrared video: pure functions of a clip, for measuring how robust weights are.

Boxes stay on their targets. Amounts of brightness are shares of the full scale. The idea is that of
Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions", ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from datasets.augmentation import transforms
from datasets.sequences.clips import Clip

MAX_JITTER = 4
"""Maximum distance of a frame from its place under camera jitter, pixels along each axis."""


@dataclass(frozen=True)
class Corruption:
    """A corruption with its names in reports."""

    name: str
    """Key in the JSON report."""
    title: str
    """Name in tables."""
    apply: Callable[[Clip, np.random.Generator], Clip]
    """Returns a corrupted copy of a clip, with random numbers from the generator."""
    stride: int = 1
    """Steps between the frames of a clip: 2 if the camera delivers every other frame."""


def identity(clip: Clip, _: np.random.Generator) -> Clip:
    """Returns the clip itself."""
    return clip


def white_noise(clip: Clip, rng: np.random.Generator, *, deviation: float) -> Clip:
    """Adds Gaussian noise, new in every frame; `deviation` is a share of the full scale."""
    return transforms.add_noise(clip, deviation=deviation, rng=rng)


def defocus(clip: Clip, _: np.random.Generator) -> Clip:
    """Applies a Gaussian blur of 1.5 pixels."""
    return transforms.blur(clip, sigma=1.5)


def half_contrast(clip: Clip, _: np.random.Generator) -> Clip:
    """Halves the contrast around the mean of the key frame."""
    return transforms.gain_and_offset(clip, gain=0.5, offset=0)


def four_bits(clip: Clip, _: np.random.Generator) -> Clip:
    """Quantises to 16 grey levels: the four most significant bits, spread over the full scale."""
    full = np.iinfo(clip.frames.dtype).max
    step = full // 15  # 17 for 8 bits, 4369 for 16 bits: no remainder
    kept = clip.frames >> (8 * clip.frames.dtype.itemsize - 4)
    return replace(clip, frames=(kept * step).astype(clip.frames.dtype))


def camera_jitter(clip: Clip, rng: np.random.Generator) -> Clip:
    """Moves each frame independently by up to `MAX_JITTER` whole pixels; boxes move with the key frame."""
    return transforms.translate(clip, rng.integers(-MAX_JITTER, MAX_JITTER + 1, (len(clip.frames), 2)))


def half_resolution(clip: Clip, _: np.random.Generator) -> Clip:
    """Halves width and height; each pixel is the mean of four."""
    return transforms.rescale(clip, 0.5)


def half_resolution_enlarged(clip: Clip, _: np.random.Generator) -> Clip:
    """Halves the resolution and resizes to the original size, as a user who enlarges frames does."""
    height, width = clip.frames.shape[1:]
    return transforms.resize_clip(transforms.rescale(clip, 0.5), (width, height))


def sixteen_bits(clip: Clip, _: np.random.Generator) -> Clip:
    """Converts 8 bits to 16 bits, full scale to full scale; 16 bits stay."""
    if clip.frames.dtype == np.uint16:
        return clip
    return replace(clip, frames=clip.frames.astype(np.uint16) * np.uint16(257))


CORRUPTIONS = (
    Corruption("clean", "clean", identity),
    Corruption("noise_2", "noise added, deviation 2 % of full scale", partial(white_noise, deviation=0.02)),
    Corruption("noise_5", "noise added, deviation 5 % of full scale", partial(white_noise, deviation=0.05)),
    Corruption("blur", "blur, sigma 1.5 pixels", defocus),
    Corruption("contrast", "half the contrast", half_contrast),
    Corruption("four_bits", "8 → 4 bits", four_bits),
    Corruption("frame_rate", "frame rate halved", identity, stride=2),
    Corruption("jitter", f"camera jitter, ±{MAX_JITTER} pixels each frame", camera_jitter),
    Corruption("half", "half resolution", half_resolution),
    Corruption("half_enlarged", "half resolution, enlarged by 2", half_resolution_enlarged),
    Corruption("sixteen_bits", "16-bit version", sixteen_bits),
)
"""All corruptions; the first one is the reference of the others."""
