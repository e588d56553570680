"""Sequences with pixels, and the clips a network is trained on: T frames that end at the key frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.records import VideoRecord
from datasets.synthetic import Scene, render
from pipeline.buffer import window_indices
from pipeline.errors import UsageError
from pipeline.sources import open_source


@dataclass(frozen=True, eq=False)
class Sequence:
    """One sequence in memory."""

    name: str
    frames: np.ndarray
    """(T, H, W) uint8 grey."""
    boxes: tuple[np.ndarray, ...]
    """Per frame (N, 4) float32 x1 y1 x2 y2 in pixels."""
    labels: tuple[np.ndarray, ...]
    """Per frame (N,) int64."""

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True, eq=False)
class Clip:
    """A window of frames with the key frame's ground truth."""

    frames: np.ndarray
    """(T, H, W) uint8, oldest first; the key frame is the last."""
    boxes: np.ndarray
    """(N, 4) float32 x1 y1 x2 y2 in the clip's pixels."""
    labels: np.ndarray
    """(N,) int64."""


def read_sequence(record: VideoRecord, root: Path) -> Sequence:
    """Decode a grey video whole, through the same reader as the pipeline.

    Raises UsageError when pixels and annotations do not fit each other, SourceError when it cannot be read.
    """
    with open_source(root / record.file_name) as source:
        if source.info.channels != 1 or source.info.bit_depth != 8:
            raise UsageError(f"{record.file_name}: training reads 8-bit grey video")
        frames = np.stack([frame.image for frame in source])
    if frames.shape != (len(record), record.height, record.width):
        raise UsageError(
            f"{record.file_name}: decoded frames, height, width {frames.shape}, annotated "
            f"{(len(record), record.height, record.width)}"
        )
    return Sequence(record.name, frames, record.boxes, record.labels)


def synthetic_sequences(count: int, *, frames: int, seed: int, width: int, height: int) -> Iterator[Sequence]:
    """`count` random scenes of `frames` frames each; the same seed gives the same sequences."""
    for number in range(count):
        scene = Scene.random(seed + number, width=width, height=height, frames=frames)
        pictures, truths = zip(*render(scene), strict=True)
        boxes = tuple(np.array([t.box for t in row], dtype=np.float32).reshape(-1, 4) for row in truths)
        labels = tuple(np.zeros(len(b), dtype=np.int64) for b in boxes)
        yield Sequence(f"synthetic-{seed + number}", np.stack(pictures), boxes, labels)


def clip_at(sequence: Sequence, position: int, *, length: int, stride: int = 1) -> Clip:
    """The window of `length` frames that ends at `position`, as the streaming ring buffer would hold it."""
    indices = window_indices(position, length, stride=stride)
    return Clip(sequence.frames[indices], sequence.boxes[position], sequence.labels[position])


def crop(clip: Clip, *, left: int, top: int, width: int, height: int) -> Clip:
    """The same window through a smaller opening; targets whose centre lies outside are dropped."""
    boxes = clip.boxes - np.array([left, top, left, top], dtype=np.float32)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centres >= 0) & (centres < [width, height])).all(axis=1)
    boxes = boxes[inside].clip(0, [width, height, width, height]).astype(np.float32)
    frames = clip.frames[:, top : top + height, left : left + width]
    return Clip(frames, boxes, clip.labels[inside])


def random_crop(clip: Clip, size: tuple[int, int], rng: np.random.Generator) -> Clip:
    """A (width, height) opening at random, nine times in ten placed so that a target's centre is inside."""
    height, width = clip.frames.shape[1:]
    if size[0] > width or size[1] > height:
        raise UsageError(f"crop {size[0]}x{size[1]} is larger than the picture, {width}x{height}")
    place = []
    anchor = None
    if len(clip.boxes) and rng.random() < 0.9:
        box = clip.boxes[rng.integers(len(clip.boxes))]
        anchor = (box[:2] + box[2:]) / 2
    for axis, (whole, part) in enumerate(zip((width, height), size, strict=True)):
        low, high = 0, whole - part
        if anchor is not None:
            low = int(np.clip(anchor[axis] - part + 4, low, high))
            high = int(np.clip(anchor[axis] - 4, low, high))
        place.append(int(rng.integers(low, high + 1)))
    return crop(clip, left=place[0], top=place[1], width=size[0], height=size[1])


def flip(clip: Clip, *, horizontal: bool, vertical: bool) -> Clip:
    """Mirror pixels and boxes together."""
    frames, boxes = clip.frames, clip.boxes
    height, width = frames.shape[1:]
    if horizontal:
        frames = frames[:, :, ::-1]
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
    if vertical:
        frames = frames[:, ::-1]
        boxes = np.stack([boxes[:, 0], height - boxes[:, 3], boxes[:, 2], height - boxes[:, 1]], axis=1)
    return Clip(np.ascontiguousarray(frames), boxes.astype(np.float32), clip.labels)


def gain_and_offset(clip: Clip, rng: np.random.Generator) -> Clip:
    """Contrast × 0.7 … 1.4 round the clip's mean and a shift of up to ±30 levels, alike for all frames."""
    table = np.arange(256, dtype=np.float32)
    mean = clip.frames[-1].mean()
    table = (table - mean) * np.exp(rng.uniform(np.log(0.7), np.log(1.4))) + mean + rng.uniform(-30, 30)
    return Clip(table.round().clip(0, 255).astype(np.uint8)[clip.frames], clip.boxes, clip.labels)


class ClipSampler:
    """Random training clips: the n-th batch depends on seed and n alone, so a resumed run goes on exactly."""

    def __init__(
        self,
        real: Iterable[Sequence],
        synthetic: Iterable[Sequence],
        *,
        length: int,
        synthetic_share: float,
        seed: int,
    ):
        self._pools = [list(real), list(synthetic)]
        self._weights = [np.array([len(s) for s in pool], dtype=float) for pool in self._pools]
        self._shares = [1 - synthetic_share, synthetic_share]
        self._length, self._seed = length, seed
        for pool, share in zip(self._pools, self._shares, strict=True):
            if share > 0 and not pool:
                raise UsageError("a share of clips is asked from a set of sequences that is empty")

    def batch(self, number: int, *, size: int, crop_size: tuple[int, int] | None) -> list[Clip]:
        """`size` augmented clips; `crop_size` (width, height) opens a part of each frame."""
        rng = np.random.default_rng([self._seed, number])
        return [self._draw(rng, crop_size) for _ in range(size)]

    def _draw(self, rng: np.random.Generator, crop_size: tuple[int, int] | None) -> Clip:
        kind = int(rng.random() < self._shares[1])
        pool, weights = self._pools[kind], self._weights[kind]
        sequence = pool[rng.choice(len(pool), p=weights / weights.sum())]
        clip = clip_at(sequence, int(rng.integers(len(sequence))), length=self._length)
        if crop_size is not None:
            clip = random_crop(clip, crop_size, rng)
        clip = flip(clip, horizontal=rng.random() < 0.5, vertical=rng.random() < 0.5)
        return gain_and_offset(clip, rng)
