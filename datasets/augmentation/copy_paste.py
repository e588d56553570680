"""Targets lifted out of one clip and laid onto another."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from datasets.sequences.clips import Clip

MARGIN = 4
"""Pixels round the labelled box that are taken along: hand-drawn boxes lie a little off now and then."""


class Cutting(NamedTuple):
    """A target without its background."""

    contrast: np.ndarray
    """(T, h, w) float32 above the background as a share of the full scale, faded out towards the edge."""
    path: np.ndarray
    """(T, 2) whole pixels (x, y) from the patch's corner in the key frame to its corner in each frame."""
    box: np.ndarray
    """(4,) float32 x1 y1 x2 y2 in the key frame, from the patch's corner."""
    label: int
    mask: np.ndarray | None
    """(h, w) bool of the key frame; None where the data set has boxes alone."""


def cut_out(
    frames: np.ndarray, boxes: list[np.ndarray], label: int, mask: np.ndarray | None = None
) -> Cutting | None:
    """Lift the one target of a window, (T, H, W) frames with one (4,) box each, the key frame last.

    None where the patch does not lie inside the picture in every frame. The background is taken for flat: the
    median of the patch's border is subtracted in each frame.
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
    contrast = np.stack([(patch - _border(patch)) * fade / scale for patch in patches])
    x, y = corners[-1]
    box = (key - np.array([x, y, x, y])).astype(np.float32)
    part = None if mask is None else mask[y : y + high, x : x + wide]
    return Cutting(contrast, np.array(corners) - [x, y], box, label, part)


def paste(clip: Clip, cutting: Cutting, *, gain: float, rng: np.random.Generator) -> Clip:
    """Add a target's contrast × `gain` at a random place; the clip as it was where there is none free.

    The target keeps its own motion. Its patch lies inside the picture in every frame and covers no labelled
    target of the key frame. A clip with a mask takes only targets that have one.
    """
    if clip.mask is not None and cutting.mask is None:
        return clip
    _, height, width = clip.frames.shape
    _, high, wide = cutting.contrast.shape
    low, far = -cutting.path.min(axis=0), np.array([width - wide, height - high]) - cutting.path.max(axis=0)
    if (far < low).any() or len(cutting.path) != len(clip.frames):
        return clip
    for _ in range(8):
        left, top = (int(n) for n in rng.integers(low, far + 1))
        place = np.array([left, top, left + wide, top + high], dtype=np.float32)
        if not _overlaps(place, clip.boxes):
            break
    else:
        return clip
    full = np.iinfo(clip.frames.dtype).max
    frames = clip.frames.copy()
    for frame, contrast, (right, down) in zip(frames, cutting.contrast, cutting.path, strict=True):
        part = frame[top + down : top + down + high, left + right : left + right + wide]
        part[...] = np.rint(part + contrast * (gain * full)).clip(0, full)
    mask = clip.mask
    if mask is not None:
        mask = mask.copy()
        mask[top : top + high, left : left + wide] |= cutting.mask
    box = cutting.box + np.array([left, top, left, top], dtype=np.float32)
    return Clip(frames, np.vstack([clip.boxes, box]), np.append(clip.labels, cutting.label), mask)


def _fade(length: int) -> np.ndarray:
    """1 in the middle, down to nearly 0 over the margin at both ends, (length,) float32."""
    ramp = (np.arange(MARGIN, dtype=np.float32) + 0.5) / MARGIN
    weights = np.ones(length, dtype=np.float32)
    weights[:MARGIN], weights[-MARGIN:] = ramp, ramp[::-1]
    return weights


def _border(patch: np.ndarray) -> float:
    return float(np.median(np.concatenate([patch[0], patch[-1], patch[1:-1, 0], patch[1:-1, -1]])))


def _overlaps(place: np.ndarray, boxes: np.ndarray) -> bool:
    return bool(((boxes[:, :2] < place[2:]) & (boxes[:, 2:] > place[:2])).all(axis=1).any())
