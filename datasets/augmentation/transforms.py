"""Transforms of training clips: pixels, boxes and mask move together, alike in all frames.

Each function takes a clip and returns a new one; random ones take a generator. Pixels have 8 or 16 bits and
keep their dtype; amounts of brightness are shares of its full scale. Sizes are (width, height).
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from datasets.sequences.clips import Clip
from pipeline.system.errors import UsageError

CROP_MARGIN = 4
"""Minimum pixels between the centre of a target and the edge of a crop that is placed on it."""


def crop(clip: Clip, *, left: int, top: int, width: int, height: int) -> Clip:
    """Crops all frames; boxes are clipped, and targets whose centre lies outside are dropped."""
    boxes = clip.boxes - np.array([left, top, left, top], dtype=np.float32)
    rows, columns = slice(top, top + height), slice(left, left + width)
    mask = None if clip.mask is None else clip.mask[rows, columns]
    return _clip_boxes(Clip(clip.frames[:, rows, columns], boxes, clip.labels, mask))


def random_crop(
    clip: Clip, size: tuple[int, int], rng: np.random.Generator, *, on_target: float = 0.9
) -> Clip:
    """Crops all frames to `size` at a random place.

    `on_target` is the share of crops that contain the centre of a random target. Raises UsageError if `size`
    exceeds the frames.
    """
    height, width = clip.frames.shape[1:]
    if size[0] > width or size[1] > height:
        raise UsageError(f"crop {size[0]}x{size[1]} is larger than the frame, {width}x{height}")
    corner = []
    centre = None
    if len(clip.boxes) and rng.random() < on_target:
        box = clip.boxes[rng.integers(len(clip.boxes))]
        centre = (box[:2] + box[2:]) / 2
    for axis, (whole, part) in enumerate(zip((width, height), size, strict=True)):
        low, high = 0, whole - part
        if centre is not None:
            low = int(np.clip(centre[axis] - part + CROP_MARGIN, low, high))
            high = int(np.clip(centre[axis] - CROP_MARGIN, low, high))
        corner.append(int(rng.integers(low, high + 1)))
    return crop(clip, left=corner[0], top=corner[1], width=size[0], height=size[1])


def flip(clip: Clip, *, horizontal: bool, vertical: bool) -> Clip:
    """Mirrors all frames left to right (horizontal), upside down (vertical), or both."""
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
    """Swaps rows and columns of all frames."""
    mask = None if clip.mask is None else np.ascontiguousarray(clip.mask.T)
    frames = np.ascontiguousarray(clip.frames.swapaxes(1, 2))
    return Clip(frames, clip.boxes[:, [1, 0, 3, 2]], clip.labels, mask)


def rescale(clip: Clip, factor: float) -> Clip:
    """Resizes all frames by a factor; sides are rounded to whole pixels."""
    height, width = clip.frames.shape[1:]
    return resize_clip(clip, (max(1, round(width * factor)), max(1, round(height * factor))))


def resize_clip(clip: Clip, size: tuple[int, int]) -> Clip:
    """Resizes all frames to `size`: by area averaging if that is smaller, else by linear interpolation."""
    height, width = clip.frames.shape[1:]
    if size == (width, height):
        return clip
    method = cv2.INTER_AREA if size[0] * size[1] < width * height else cv2.INTER_LINEAR
    frames = np.stack([cv2.resize(frame, size, interpolation=method) for frame in clip.frames])
    scale = np.array([size[0] / width, size[1] / height] * 2)
    mask = None
    if clip.mask is not None:
        mask = clip.mask.astype(np.uint8)
        mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)
    return Clip(frames, (clip.boxes * scale).astype(np.float32), clip.labels, mask)


def pad(clip: Clip, size: tuple[int, int]) -> Clip:
    """Pads all frames to at least `size` by repeating edge pixels to the right and below."""
    height, width = clip.frames.shape[1:]
    margins = ((0, max(0, size[1] - height)), (0, max(0, size[0] - width)))
    if margins == ((0, 0), (0, 0)):
        return clip
    mask = None if clip.mask is None else np.pad(clip.mask, margins)
    return replace(clip, frames=np.pad(clip.frames, ((0, 0), *margins), mode="edge"), mask=mask)


def translate(clip: Clip, steps: np.ndarray) -> Clip:
    """Moves frame t by `steps[t]`, (T, 2) whole pixels (x, y); uncovered pixels repeat the edge.

    Boxes and mask move with the key frame, the last one. Equal steps move the scene, unequal ones are motion
    of the camera.
    """
    steps = np.asarray(steps, dtype=int)
    if not steps.any():
        return clip
    frames = np.stack([_shift_image(frame, *step) for frame, step in zip(clip.frames, steps, strict=True)])
    boxes = clip.boxes + np.tile(steps[-1], 2).astype(np.float32)
    mask = None
    if clip.mask is not None:
        mask = _shift_image(clip.mask.astype(np.uint8), *steps[-1], fill=0).astype(bool)
    return _clip_boxes(Clip(frames, boxes, clip.labels, mask))


def gain_and_offset(clip: Clip, *, gain: float, offset: float) -> Clip:
    """Multiplies the contrast around the mean of the key frame by `gain`, then adds `offset`."""
    scale = np.iinfo(clip.frames.dtype).max
    levels = np.arange(scale + 1, dtype=np.float32)
    mean = clip.frames[-1].mean()
    levels = (levels - mean) * gain + mean + offset * scale
    table = levels.round().clip(0, scale).astype(clip.frames.dtype)
    return replace(clip, frames=table[clip.frames])


def add_noise(clip: Clip, *, deviation: float, rng: np.random.Generator) -> Clip:
    """Adds Gaussian noise, new in every frame, with a standard `deviation`."""
    scale = np.iinfo(clip.frames.dtype).max
    noise = rng.standard_normal(clip.frames.shape, dtype=np.float32) * (deviation * scale)
    frames = np.rint(clip.frames + noise).clip(0, scale).astype(clip.frames.dtype)
    return replace(clip, frames=frames)


def blur(clip: Clip, *, sigma: float) -> Clip:
    """Applies a Gaussian blur of `sigma` pixels to every frame."""
    frames = np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in clip.frames])
    return replace(clip, frames=frames)


def _clip_boxes(clip: Clip) -> Clip:
    """Clips boxes to the frame and drops targets whose centre is outside."""
    height, width = clip.frames.shape[1:]
    centres = (clip.boxes[:, :2] + clip.boxes[:, 2:]) / 2
    inside = ((centres >= 0) & (centres < [width, height])).all(axis=1)
    boxes = clip.boxes[inside].clip(0, [width, height, width, height]).astype(np.float32)
    return replace(clip, boxes=boxes, labels=clip.labels[inside])


def _shift_image(image: np.ndarray, right: int, down: int, *, fill: int | None = None) -> np.ndarray:
    """Moves an (H, W) image by whole pixels; uncovered ones get `fill`, or the nearest edge pixel if None."""
    height, width = image.shape
    rows, columns = np.arange(height) - down, np.arange(width) - right
    shifted = image[rows.clip(0, height - 1)][:, columns.clip(0, width - 1)]
    if fill is not None:
        shifted[(rows < 0) | (rows >= height)] = fill
        shifted[:, (columns < 0) | (columns >= width)] = fill
    return shifted
