"""Sampler of random augmented training clips, reproducible from the seed and the number of the batch."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from datasets.augmentation import transforms
from datasets.augmentation.balancing import class_balanced_weights, frame_weights
from datasets.augmentation.copy_paste import TargetPatch, extract_target, paste_target
from datasets.augmentation.options import AugmentationOptions
from datasets.sequences.clips import Clip, VideoSequence, clip_at
from pipeline.stages.ring_buffer import window_indices
from pipeline.system.errors import UsageError


class ClipSampler:
    """Draws random clips of real and synthetic sequences and augments them.

    Batch n depends only on the seed and n, so a resumed training continues exactly. Raises UsageError if a
    share of clips is requested from an empty set of sequences.

    Args:
        real: sequences of the dataset.
        synthetic: rendered sequences.
        length: frames per clip.
        synthetic_share: share of clips that are drawn from `synthetic`.
        seed: seed of all random numbers.
        augment: options of the augmentation; default values if None.
        balanced: draw classes equally often, instead of key frames.
    """

    def __init__(
        self,
        real: Iterable[VideoSequence],
        synthetic: Iterable[VideoSequence],
        *,
        length: int,
        synthetic_share: float,
        seed: int,
        augment: AugmentationOptions | None = None,
        balanced: bool = False,
    ):
        pools = [list(real), list(synthetic)]
        self._pools = [[s for s in pool if s.key_frames] for pool in pools]
        weights = class_balanced_weights if balanced else frame_weights
        self._weights = [weights(pool) for pool in self._pools]
        self._shares = [1 - synthetic_share, synthetic_share]
        self._length, self._seed = length, seed
        self._augment = augment or AugmentationOptions()
        for pool, share in zip(self._pools, self._shares, strict=True):
            if share > 0 and not pool:
                raise UsageError("a share of clips is asked from a set of sequences that is empty")

    @property
    def key_frames(self) -> int:
        """Number of key frames of the real sequences: the size of an epoch."""
        return sum(len(sequence.key_frames) for sequence in self._pools[0])

    def batch(self, number: int, *, size: int, crop_size: tuple[int, int] | None) -> list[Clip]:
        """Returns `size` clips, cropped to `crop_size` (width, height), or whole frames if that is None."""
        return [self.clip(number, place, crop_size=crop_size) for place in range(size)]

    def clip(self, number: int, place: int, *, crop_size: tuple[int, int] | None) -> Clip:
        """Returns the clip at `place` of batch `number`; it depends only on these and the seed."""
        rng = np.random.default_rng([self._seed, number, place])
        sequence, position = self._draw_key_frame(rng)
        clip = self._draw_window(sequence, position, rng)
        if rng.random() < self._augment.paste_share:
            patch = self._draw_patch(rng)
            if patch is not None:
                clip = paste_target(clip, patch, gain=rng.uniform(*self._augment.paste_gain), rng=rng)
        if self._augment.transpose and rng.random() < 0.5:
            clip = transforms.transpose(clip)
        return self._change_appearance(self._change_geometry(clip, crop_size, rng), rng)

    def _draw_key_frame(self, rng: np.random.Generator) -> tuple[VideoSequence, int]:
        kind = int(rng.random() < self._shares[1])
        pool, weights = self._pools[kind], self._weights[kind]
        sequence = pool[rng.choice(len(pool), p=weights / weights.sum())]
        return sequence, sequence.key_frames[rng.integers(len(sequence.key_frames))]

    def _draw_window(self, sequence: VideoSequence, position: int, rng: np.random.Generator) -> Clip:
        """Returns the window that ends at `position`, with a random stride and perhaps a lost frame."""
        stride = int(rng.choice(self._augment.strides))
        lost = rng.random() < self._augment.drop_share
        missing = int(rng.integers(1, self._length)) if lost and self._length > 1 else None
        return clip_at(sequence, position, length=self._length, stride=stride, missing=missing)

    def _draw_patch(self, rng: np.random.Generator) -> TargetPatch | None:
        """Returns the target of a random window; None if it does not have exactly one in every frame."""
        sequence, position = self._draw_key_frame(rng)
        indices = window_indices(position, self._length)
        if any(len(sequence.boxes[i]) != 1 for i in indices):
            return None
        mask = sequence.masks[position] if sequence.masks else None
        boxes = [sequence.boxes[i][0] for i in indices]
        return extract_target(sequence.frames[indices], boxes, int(sequence.labels[position][0]), mask)

    def _change_geometry(self, clip: Clip, size: tuple[int, int] | None, rng: np.random.Generator) -> Clip:
        """Resizes and crops a clip to `size`, or its own size if that is None, and moves its frames."""
        augment, whole = self._augment, size is None
        height, width = clip.frames.shape[1:]
        size = size or (width, height)
        clip = transforms.pad(self._resize(clip, size, rng), size)
        clip = transforms.random_crop(clip, size, rng, on_target=augment.on_target)
        steps = np.zeros((self._length, 2))
        if whole and augment.shift:
            steps += rng.integers(-augment.shift, augment.shift + 1, 2)
        if rng.random() < augment.pan_share:
            steps += np.arange(1 - self._length, 1)[:, None] * rng.uniform(-augment.pan, augment.pan, 2)
        return transforms.translate(clip, np.rint(steps))

    def _resize(self, clip: Clip, size: tuple[int, int], rng: np.random.Generator) -> Clip:
        augment = self._augment
        if augment.stretch:
            return transforms.resize_clip(clip, size)
        if augment.long_side:
            shortest, longest = augment.long_side
            return transforms.rescale(clip, rng.integers(shortest, longest + 1) / max(clip.frames.shape[1:]))
        low, high = augment.scale
        factor = math.exp(rng.uniform(math.log(low), math.log(high)))
        if augment.aspect == 1:
            return transforms.rescale(clip, factor)
        wider = math.exp(rng.uniform(-0.5, 0.5) * math.log(augment.aspect))
        height, width = clip.frames.shape[1:]
        new_size = max(1, round(width * factor * wider)), max(1, round(height * factor / wider))
        return transforms.resize_clip(clip, new_size)

    def _change_appearance(self, clip: Clip, rng: np.random.Generator) -> Clip:
        """Mirrors a clip and changes its brightness, contrast, sharpness and noise."""
        augment = self._augment
        if augment.flip:
            horizontal, vertical = rng.random(2) < 0.5
            clip = transforms.flip(clip, horizontal=horizontal, vertical=vertical and not augment.upright)
        gain = math.exp(rng.uniform(-1, 1) * math.log(augment.gain))
        offset = rng.uniform(-augment.offset, augment.offset)
        clip = transforms.gain_and_offset(clip, gain=gain, offset=offset)
        if rng.random() < augment.blur_share:
            clip = transforms.blur(clip, sigma=rng.uniform(0.3, 1) * augment.blur)
        if rng.random() < augment.noise_share:
            clip = transforms.add_noise(clip, deviation=rng.uniform(0, augment.noise), rng=rng)
        return clip
