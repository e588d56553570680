"""Sampler of training clips from several datasets, by the share of each and by the size of targets."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from datasets.augmentation import transforms
from datasets.augmentation.balancing import frame_weights
from datasets.augmentation.options import AugmentationOptions
from datasets.augmentation.sampler import ClipSampler
from datasets.sequences.clips import Clip, VideoSequence
from pipeline.config.ranges import require_range
from pipeline.system.errors import UsageError

RESIZE_LIMITS = (0.3, 1.5)
"""Minimum and maximum factor by which a clip is resized to give a target its size."""


@dataclass(frozen=True)
class DataKind:
    """One further training dataset: a table below `data.kinds` of a training configuration."""

    layout: str
    """Layout on disk, a key of `datasets.layouts.registry.LAYOUTS`."""
    root: str
    """Folder of the dataset."""
    split: str = "train"
    """Training split, named as in `data.train`."""
    share: float = 0.1
    """Share of all training clips, 0 to 1."""
    moving: bool = False
    """Animate still images; the dataset needs masks."""
    margin: float = 0.0
    """Pixels added to each side of a box: boxes of masks are tight, boxes drawn by hand are loose."""

    def __post_init__(self):
        require_range(self, "share", low=0, high=1)
        require_range(self, "margin", low=0, high=32)


class KindSampler(ClipSampler):
    """Draws random clips of several datasets: first the dataset by its share, then a key frame.

    As with `ClipSampler`, a clip depends only on the seed, the batch and its place. Raises UsageError if a
    share of clips is requested from an empty set of sequences, or if the shares do not sum to 1.

    Args:
        pools: share and sequences of each dataset.
        length: frames per clip.
        seed: seed of all random numbers.
        augment: options of the augmentation; default values if None.
        sized: share of clips that are resized so that one of their targets has a size drawn log-uniformly
            from `sizes`; the others vary as `augment` says.
        sizes: minimum and maximum size, the square root of a target's area in pixels.
        margin: pixels between a target and its box on each side. They do not count for its size, and stay
            when a clip is resized.
    """

    def __init__(
        self,
        pools: Iterable[tuple[float, Iterable[VideoSequence]]],
        *,
        length: int,
        seed: int,
        augment: AugmentationOptions | None = None,
        sized: float = 0.0,
        sizes: tuple[float, float] = (4.0, 32.0),
        margin: float = 0.0,
    ):
        shares, sequences = zip(*((share, list(pool)) for share, pool in pools), strict=True)
        super().__init__(sequences[0], [], length=length, synthetic_share=0.0, seed=seed, augment=augment)
        self._pools = [[s for s in pool if s.key_frames] for pool in sequences]
        for share, pool in zip(shares, self._pools, strict=True):
            if share > 0 and not pool:
                raise UsageError("a share of clips is asked from a set of sequences that is empty")
        if not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise UsageError(f"the shares of all kinds of clips add up to {sum(shares):g}, expected 1")
        self._shares = list(shares)
        self._weights = [frame_weights(pool) for pool in self._pools]
        self._sized, self._sizes, self._margin = sized, sizes, margin

    def _draw_key_frame(self, rng: np.random.Generator) -> tuple[VideoSequence, int]:
        kind = int(rng.choice(len(self._shares), p=np.array(self._shares) / sum(self._shares)))
        pool, weights = self._pools[kind], self._weights[kind]
        sequence = pool[rng.choice(len(pool), p=weights / weights.sum())]
        return sequence, sequence.key_frames[rng.integers(len(sequence.key_frames))]

    def _resize(self, clip: Clip, size: tuple[int, int], rng: np.random.Generator) -> Clip:
        if not len(clip.boxes) or rng.random() >= self._sized:
            return self._restore_margin(clip, super()._resize(clip, size, rng))
        low, high = self._sizes
        wanted = math.exp(rng.uniform(math.log(low), math.log(high)))
        box = clip.boxes[rng.integers(len(clip.boxes))]
        sides = np.maximum(box[2:] - box[:2] - 2 * self._margin, 1.0)
        factor = float(np.clip(wanted / math.sqrt(sides.prod()), *RESIZE_LIMITS))
        return self._restore_margin(clip, transforms.rescale(clip, factor))

    def _restore_margin(self, before: Clip, clip: Clip) -> Clip:
        """Returns the resized clip with the margin of its boxes as before."""
        lost = [1 - s / b for s, b in zip(clip.frames.shape[:0:-1], before.frames.shape[:0:-1], strict=True)]
        grown = np.array([*np.negative(lost), *lost], dtype=np.float32) * np.float32(self._margin)
        return replace(clip, boxes=clip.boxes + grown)
