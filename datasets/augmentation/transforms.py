"""What may be done to a training clip: pixels, boxes and mask move together, alike in all frames.

Each function takes a clip and returns a new one; those that draw at random take the generator. Pixels may
have 8 or 16 bits and keep their type; amounts of brightness are shares of the full scale of that type.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from datasets.sequences.clips import Clip
from pipeline.system.errors import UsageError


def crop(clip: Clip, *, left: int, top: int, width: int, height: int) -> Clip:
    """The same window through a smaller opening; targets whose centre lies outside are dropped."""
    boxes = clip.boxes - np.array([left, top, left, top], dtype=np.float32)
    rows, columns = slice(top, top + height), slice(left, left + width)
    mask = None if clip.mask is None else clip.mask[rows, columns]
    return _within(Clip(clip.frames[:, rows, columns], boxes, clip.labels, mask))


def random_crop(
    clip: Clip, size: tuple[int, int], rng: np.random.Generator, *, on_target: float = 0.9
) -> Clip:
    """A (width, height) opening at random, a share of them placed so that a target's centre is inside."""
    height, width = clip.frames.shape[1:]
    if size[0] > width or size[1] > height:
        raise UsageError(f"crop {size[0]}x{size[1]} is larger than the picture, {width}x{height}")
    place = []
    anchor = None
    if len(clip.boxes) and rng.random() < on_target:
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
    """Mirror pixels, boxes and mask together."""
    frames, boxes, mask = clip.frames, clip.boxes, clip.mask
    height, width = frames.shape[1:]
    if horizontal:
        frames = frames[:, :, ::-1]
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
        mask = None if mask is None else mask[:, ::-1]
    if vertical:
        frames = frames[:, ::-1]
        boxes = np.stack([boxes[:, 0], height - boxes[:, 3], boxes[:, 2], height - boxes[:, 1]], axis=1)
        mask = None if mask is None else mask[::-1]
    mask = None if mask is None else np.ascontiguousarray(mask)
    return Clip(np.ascontiguousarray(frames), boxes.astype(np.float32), clip.labels, mask)


def transpose(clip: Clip) -> Clip:
    """Rows become columns: pixels, boxes and mask together."""
    mask = None if clip.mask is None else np.ascontiguousarray(clip.mask.T)
    frames = np.ascontiguousarray(clip.frames.swapaxes(1, 2))
    return Clip(frames, clip.boxes[:, [1, 0, 3, 2]], clip.labels, mask)


def rescale(clip: Clip, factor: float) -> Clip:
    """Resize all frames by a factor, the sides rounded to whole pixels."""
    height, width = clip.frames.shape[1:]
    return resize(clip, (max(1, round(width * factor)), max(1, round(height * factor))))


def resize(clip: Clip, size: tuple[int, int]) -> Clip:
    """Resize all frames to (width, height); each axis is scaled by what its side really came to."""
    height, width = clip.frames.shape[1:]
    if size == (width, height):
        return clip
    by = cv2.INTER_AREA if size[0] * size[1] < width * height else cv2.INTER_LINEAR
    frames = np.stack([cv2.resize(frame, size, interpolation=by) for frame in clip.frames])
    scale = np.array([size[0] / width, size[1] / height] * 2)
    mask = None
    if clip.mask is not None:
        mask = clip.mask.astype(np.uint8)
        mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)
    return Clip(frames, (clip.boxes * scale).astype(np.float32), clip.labels, mask)


def pad(clip: Clip, size: tuple[int, int]) -> Clip:
    """At least (width, height) large: edge pixels are repeated to the right and below."""
    height, width = clip.frames.shape[1:]
    more = ((0, max(0, size[1] - height)), (0, max(0, size[0] - width)))
    if more == ((0, 0), (0, 0)):
        return clip
    mask = None if clip.mask is None else np.pad(clip.mask, more)
    return replace(clip, frames=np.pad(clip.frames, ((0, 0), *more), mode="edge"), mask=mask)


def translate(clip: Clip, steps: np.ndarray) -> Clip:
    """Move frame t by `steps[t]`, (T, 2) whole pixels (x, y); edge pixels are repeated where nothing is left.

    Boxes and mask move with the key frame, the last one. Equal rows move the picture, unequal ones make the
    camera move.
    """
    steps = np.asarray(steps, dtype=int)
    if not steps.any():
        return clip
    frames = np.stack([_moved(frame, *step) for frame, step in zip(clip.frames, steps, strict=True)])
    boxes = clip.boxes + np.tile(steps[-1], 2).astype(np.float32)
    mask = None if clip.mask is None else _moved(clip.mask.astype(np.uint8), *steps[-1], fill=0).astype(bool)
    return _within(Clip(frames, boxes, clip.labels, mask))


def gain_and_offset(clip: Clip, *, gain: float, offset: float) -> Clip:
    """Contrast × `gain` round the key frame's mean, then `offset` as a share of the full scale."""
    scale = np.iinfo(clip.frames.dtype).max
    levels = np.arange(scale + 1, dtype=np.float32)
    mean = clip.frames[-1].mean()
    levels = (levels - mean) * gain + mean + offset * scale
    table = levels.round().clip(0, scale).astype(clip.frames.dtype)
    return replace(clip, frames=table[clip.frames])


def noise(clip: Clip, *, deviation: float, rng: np.random.Generator) -> Clip:
    """Add Gaussian noise, new in every frame; `deviation` is a share of the full scale."""
    scale = np.iinfo(clip.frames.dtype).max
    grain = rng.standard_normal(clip.frames.shape, dtype=np.float32) * (deviation * scale)
    frames = np.rint(clip.frames + grain).clip(0, scale).astype(clip.frames.dtype)
    return replace(clip, frames=frames)


def blur(clip: Clip, *, sigma: float) -> Clip:
    """Gaussian blur of every frame, `sigma` in pixels."""
    frames = np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in clip.frames])
    return replace(clip, frames=frames)


def _within(clip: Clip) -> Clip:
    """Boxes cut to the picture; targets whose centre is outside are dropped."""
    height, width = clip.frames.shape[1:]
    centres = (clip.boxes[:, :2] + clip.boxes[:, 2:]) / 2
    inside = ((centres >= 0) & (centres < [width, height])).all(axis=1)
    boxes = clip.boxes[inside].clip(0, [width, height, width, height]).astype(np.float32)
    return replace(clip, boxes=boxes, labels=clip.labels[inside])


def _moved(picture: np.ndarray, right: int, down: int, *, fill: int | None = None) -> np.ndarray:
    """The (H, W) picture moved by whole pixels; uncovered ones hold `fill`, or the nearest edge pixel."""
    height, width = picture.shape
    rows, columns = np.arange(height) - down, np.arange(width) - right
    moved = picture[rows.clip(0, height - 1)][:, columns.clip(0, width - 1)]
    if fill is not None:
        moved[(rows < 0) | (rows >= height)] = fill
        moved[:, (columns < 0) | (columns >= width)] = fill
    return moved
