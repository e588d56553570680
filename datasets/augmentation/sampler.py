"""Random training clips, varied as the recipe says, and reproducible from a number."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from datasets.augmentation import transforms
from datasets.augmentation.balancing import by_classes, by_frames
from datasets.augmentation.copy_paste import Cutting, cut_out, paste
from datasets.augmentation.options import Augment
from datasets.sequences.clips import Clip, VideoSequence, clip_at
from pipeline.stages.ring_buffer import window_indices
from pipeline.system.errors import UsageError


class ClipSampler:
    """Random training clips: the n-th batch depends on seed and n alone, so a resumed run goes on exactly."""

    def __init__(
        self,
        real: Iterable[VideoSequence],
        synthetic: Iterable[VideoSequence],
        *,
        length: int,
        synthetic_share: float,
        seed: int,
        augment: Augment | None = None,
        balanced: bool = False,
    ):
        pools = [list(real), list(synthetic)]
        self._pools = [[s for s in pool if s.key_frames] for pool in pools]
        self._weights = [(by_classes if balanced else by_frames)(pool) for pool in self._pools]
        self._shares = [1 - synthetic_share, synthetic_share]
        self._length, self._seed = length, seed
        self._augment = augment or Augment()
        for pool, share in zip(self._pools, self._shares, strict=True):
            if share > 0 and not pool:
                raise UsageError("a share of clips is asked from a set of sequences that is empty")

    @property
    def key_frames(self) -> int:
        """Frames of the real sequences that a clip may end at: what makes an epoch."""
        return sum(len(sequence.key_frames) for sequence in self._pools[0])

    def batch(self, number: int, *, size: int, crop_size: tuple[int, int] | None) -> list[Clip]:
        """`size` augmented clips; `crop_size` (width, height) opens a part of each frame."""
        return [self.clip(number, place, crop_size=crop_size) for place in range(size)]

    def clip(self, number: int, place: int, *, crop_size: tuple[int, int] | None) -> Clip:
        """The clip at `place` of batch `number`; depends on the seed and these alone."""
        rng = np.random.default_rng([self._seed, number, place])
        sequence, position = self._draw(rng)
        clip = self._window(sequence, position, rng)
        if rng.random() < self._augment.paste_share:
            cutting = self._cutting(rng)
            if cutting is not None:
                clip = paste(clip, cutting, gain=rng.uniform(*self._augment.paste_gain), rng=rng)
        if self._augment.transpose and rng.random() < 0.5:
            clip = transforms.transpose(clip)
        return self._varied(self._opened(clip, crop_size, rng), rng)

    def _draw(self, rng: np.random.Generator) -> tuple[VideoSequence, int]:
        kind = int(rng.random() < self._shares[1])
        pool, weights = self._pools[kind], self._weights[kind]
        sequence = pool[rng.choice(len(pool), p=weights / weights.sum())]
        return sequence, sequence.key_frames[rng.integers(len(sequence.key_frames))]

    def _window(self, sequence: VideoSequence, position: int, rng: np.random.Generator) -> Clip:
        stride = int(rng.choice(self._augment.strides))
        lost = rng.random() < self._augment.drop_share
        missing = int(rng.integers(1, self._length)) if lost and self._length > 1 else None
        return clip_at(sequence, position, length=self._length, stride=stride, missing=missing)

    def _cutting(self, rng: np.random.Generator) -> Cutting | None:
        """A target that is alone in its window; None where the sequence drawn shows none at that time."""
        sequence, position = self._draw(rng)
        indices = window_indices(position, self._length)
        if any(len(sequence.boxes[i]) != 1 for i in indices):
            return None
        mask = sequence.masks[position] if sequence.masks else None
        boxes = [sequence.boxes[i][0] for i in indices]
        return cut_out(sequence.frames[indices], boxes, int(sequence.labels[position][0]), mask)

    def _opened(self, clip: Clip, size: tuple[int, int] | None, rng: np.random.Generator) -> Clip:
        """Scaled, moved and cut to `size`; to the size it has where that is None."""
        augment, whole = self._augment, size is None
        size = size or clip.frames.shape[:0:-1]
        clip = transforms.pad(self._scaled(clip, size, rng), size)
        clip = transforms.random_crop(clip, size, rng, on_target=augment.on_target)
        steps = np.zeros((self._length, 2))
        if whole and augment.shift:
            steps += rng.integers(-augment.shift, augment.shift + 1, 2)
        if rng.random() < augment.pan_share:
            steps += np.arange(1 - self._length, 1)[:, None] * rng.uniform(-augment.pan, augment.pan, 2)
        return transforms.translate(clip, np.rint(steps))

    def _scaled(self, clip: Clip, size: tuple[int, int], rng: np.random.Generator) -> Clip:
        augment = self._augment
        if augment.stretch:
            return transforms.resize(clip, size)
        if augment.long_side:
            low, high = augment.long_side
            return transforms.rescale(clip, rng.integers(low, high + 1) / max(clip.frames.shape[1:]))
        low, high = augment.scale
        factor = math.exp(rng.uniform(math.log(low), math.log(high)))
        if augment.aspect == 1:
            return transforms.rescale(clip, factor)
        wider = math.exp(rng.uniform(-0.5, 0.5) * math.log(augment.aspect))
        height, width = clip.frames.shape[1:]
        sides = (width * factor * wider, height * factor / wider)
        return transforms.resize(clip, tuple(max(1, round(side)) for side in sides))

    def _varied(self, clip: Clip, rng: np.random.Generator) -> Clip:
        """Mirrored, and with another brightness and sharpness."""
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
            clip = transforms.noise(clip, deviation=rng.uniform(0, augment.noise), rng=rng)
        return clip
