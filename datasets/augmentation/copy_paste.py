"""Copy-paste augmentation: targets are extracted from one clip and added to another."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from datasets.sequences.clips import Clip

MARGIN = 4
"""Pixels around the annotated box that are copied, too, since boxes drawn by hand may be a little off."""
ATTEMPTS = 8
"""Random places that are tried before a target is not pasted."""


class TargetPatch(NamedTuple):
    """A target without its background."""

    contrast: np.ndarray
    """(T, h, w) float32 difference from the background as a share of the full scale, faded at the edge."""
    offsets: np.ndarray
    """(T, 2) whole pixels (x, y) from the patch's corner in the key frame to its corner in each frame."""
    box: np.ndarray
    """(4,) float32 x1 y1 x2 y2 in the key frame, relative to the patch's corner."""
    label: int
    mask: np.ndarray | None
    """(h, w) bool of the key frame; None if the dataset has only boxes."""


def extract_target(
    frames: np.ndarray, boxes: list[np.ndarray], label: int, mask: np.ndarray | None = None
) -> TargetPatch | None:
    """Extracts the only target of a window, (T, H, W) frames with one (4,) box each, the key frame last.

    The background is assumed to be uniform: the median of the patch's border is subtracted in each frame.
    Returns None if the patch does not lie inside the image in every frame.
    """
    height, width = frames.shape[1:]
    key = boxes[-1]
    wide, high = (int(np.ceil(side)) + 2 * MARGIN for side in (key[2] - key[0], key[3] - key[1]))
    corners = [
        (round(float(box[0] + box[2] - wide) / 2), round(float(box[1] + box[3] - high) / 2)) for box in boxes
    ]
    if any(x < 0 or y < 0 or x + wide > width or y + high > height for x, y in corners):
        return None
    patches = [
        f[y : y + high, x : x + wide].astype(np.float32) for f, (x, y) in zip(frames, corners, strict=True)
    ]
    fade = np.outer(_fade(high), _fade(wide))
    scale = np.iinfo(frames.dtype).max
    contrast = np.stack([(patch - _border_median(patch)) * fade / scale for patch in patches])
    x, y = corners[-1]
    box = (key - np.array([x, y, x, y])).astype(np.float32)
    part = None if mask is None else mask[y : y + high, x : x + wide]
    return TargetPatch(contrast, np.array(corners) - [x, y], box, label, part)


def paste_target(clip: Clip, patch: TargetPatch, *, gain: float, rng: np.random.Generator) -> Clip:
    """Adds a target, its contrast multiplied by `gain`, at a random place of a clip.

    The target keeps its motion. Its patch lies inside the image in every frame and covers no annotated target
    of the key frame. Returns `clip` itself if there is no such place, or if it has a mask and the target has
    none.
    """
    if clip.mask is not None and patch.mask is None:
        return clip
    _, height, width = clip.frames.shape
    _, high, wide = patch.contrast.shape
    low = -patch.offsets.min(axis=0)
    far = np.array([width - wide, height - high]) - patch.offsets.max(axis=0)
    if (far < low).any() or len(patch.offsets) != len(clip.frames):
        return clip
    for _ in range(ATTEMPTS):
        left, top = (int(n) for n in rng.integers(low, far + 1))
        place = np.array([left, top, left + wide, top + high], dtype=np.float32)
        if not _overlaps(place, clip.boxes):
            break
    else:
        return clip
    full = np.iinfo(clip.frames.dtype).max
    frames = clip.frames.copy()
    for frame, contrast, (right, down) in zip(frames, patch.contrast, patch.offsets, strict=True):
        part = frame[top + down : top + down + high, left + right : left + right + wide]
        part[...] = np.rint(part + contrast * (gain * full)).clip(0, full)
    mask = clip.mask
    if mask is not None:
        mask = mask.copy()
        mask[top : top + high, left : left + wide] |= patch.mask
    box = patch.box + np.array([left, top, left, top], dtype=np.float32)
    return Clip(frames, np.vstack([clip.boxes, box]), np.append(clip.labels, patch.label), mask)


def _fade(length: int) -> np.ndarray:
    """Returns (length,) float32 weights: 1 in the middle, down to nearly 0 over the margin at both ends."""
    ramp = (np.arange(MARGIN, dtype=np.float32) + 0.5) / MARGIN
    weights = np.ones(length, dtype=np.float32)
    weights[:MARGIN], weights[-MARGIN:] = ramp, ramp[::-1]
    return weights


def _border_median(patch: np.ndarray) -> float:
    return float(np.median(np.concatenate([patch[0], patch[-1], patch[1:-1, 0], patch[1:-1, -1]])))


def _overlaps(place: np.ndarray, boxes: np.ndarray) -> bool:
    """Returns True if a (4,) box overlaps one of (N, 4) boxes."""
    return bool(((boxes[:, :2] < place[2:]) & (boxes[:, 2:] > place[:2])).all(axis=1).any())
