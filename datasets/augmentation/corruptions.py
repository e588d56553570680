"""What may go wrong with infrared video: pure functions of a clip, to measure how well weights stand it.

Boxes stay on their targets. Amounts of brightness are shares of the full scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from datasets.augmentation import transforms
from datasets.sequences.clips import Clip

JITTER = 4
"""Most that the shaking camera moves the picture from where it belongs, pixels along each axis."""


@dataclass(frozen=True)
class Disturbance:
    """One thing that goes wrong; `change` takes a clip and what it may draw from, and returns a new clip."""

    name: str
    """Key in the JSON report."""
    title: str
    """For people."""
    change: Callable[[Clip, np.random.Generator], Clip]
    stride: int = 1
    """Steps between the frames that the camera delivers: 2 where it delivers every other one."""


def unchanged(clip: Clip, _: np.random.Generator) -> Clip:
    """The clip as it is."""
    return clip


def noisy(clip: Clip, rng: np.random.Generator, *, deviation: float) -> Clip:
    """White noise, new in every frame; `deviation` is a share of the full scale."""
    return transforms.noise(clip, deviation=deviation, rng=rng)


def blurred(clip: Clip, _: np.random.Generator) -> Clip:
    """Out of focus: Gaussian blur of 1.5 pixels."""
    return transforms.blur(clip, sigma=1.5)


def flat(clip: Clip, _: np.random.Generator) -> Clip:
    """Half the contrast round the key frame's mean."""
    return transforms.gain_and_offset(clip, gain=0.5, offset=0)


def coarse(clip: Clip, _: np.random.Generator) -> Clip:
    """16 grey levels: the four most significant bits, spread over the full scale."""
    full = np.iinfo(clip.frames.dtype).max
    step = full // 15  # 17 of 8 bits, 4369 of 16 bits: no remainder
    kept = clip.frames >> (8 * clip.frames.dtype.itemsize - 4)
    return replace(clip, frames=(kept * step).astype(clip.frames.dtype))


def shaken(clip: Clip, rng: np.random.Generator) -> Clip:
    """Each frame moved by itself by up to `JITTER` whole pixels; boxes move with the key frame."""
    return transforms.translate(clip, rng.integers(-JITTER, JITTER + 1, (len(clip.frames), 2)))


def halved(clip: Clip, _: np.random.Generator) -> Clip:
    """Half the width and height, each pixel the mean of four."""
    return transforms.rescale(clip, 0.5)


def halved_and_enlarged(clip: Clip, _: np.random.Generator) -> Clip:
    """Half the resolution in a picture of the size it had, as where a user enlarges the frames."""
    size = clip.frames.shape[:0:-1]
    return transforms.resize(transforms.rescale(clip, 0.5), size)


def deep(clip: Clip, _: np.random.Generator) -> Clip:
    """The same picture in 16 bits; what has them already stays."""
    if clip.frames.dtype == np.uint16:
        return clip
    return replace(clip, frames=clip.frames.astype(np.uint16) * np.uint16(257))


DISTURBANCES = (
    Disturbance("clean", "clean", unchanged),
    Disturbance("noise_2", "noise added, deviation 2 % of full scale", partial(noisy, deviation=0.02)),
    Disturbance("noise_5", "noise added, deviation 5 % of full scale", partial(noisy, deviation=0.05)),
    Disturbance("blur", "blur, sigma 1.5 pixels", blurred),
    Disturbance("contrast", "half the contrast", flat),
    Disturbance("four_bits", "8 → 4 bits", coarse),
    Disturbance("frame_rate", "frame rate halved", unchanged, stride=2),
    Disturbance("jitter", f"camera jitter, ±{JITTER} pixels each frame", shaken),
    Disturbance("half", "half resolution", halved),
    Disturbance("half_enlarged", "half resolution, enlarged by 2", halved_and_enlarged),
    Disturbance("sixteen_bits", "16-bit version", deep),
)
"""The first one is what the others are compared with."""
