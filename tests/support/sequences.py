"""Small sequences and clips whose targets are brighter than the background."""

from __future__ import annotations

import numpy as np

from datasets.augmentation.options import AugmentationOptions
from datasets.sequences.clips import Clip, VideoSequence, clip_at

PLAIN = AugmentationOptions(
    flip=False,
    scale=(1, 1),
    gain=1,
    offset=0,
    drop_share=0,
    pan_share=0,
    noise_share=0,
    blur_share=0,
    paste_share=0,
)
"""Options without any change."""

WIDTH, HEIGHT, LENGTH = 48, 40, 5


def sequence_of(boxes, *, seed: int = 0, name: str = "made") -> VideoSequence:
    """Returns one frame per entry of `boxes`: dim noise with the pixels inside the boxes at 255."""
    frames = np.random.default_rng(seed).integers(0, 40, (len(boxes), HEIGHT, WIDTH), np.uint8)
    for frame, rows in zip(frames, boxes, strict=True):
        for left, top, right, bottom in rows:
            frame[top:bottom, left:right] = 255
    arrays = tuple(np.array(rows, dtype=np.float32).reshape(-1, 4) for rows in boxes)
    return VideoSequence(name, frames, arrays, tuple(np.arange(len(rows)) for rows in boxes))


def random_clip(seed: int, targets: int = 3) -> Clip:
    """Returns a clip with targets that are three, five, … pixels wide and do not touch."""
    chance = np.random.default_rng(seed)
    columns = np.sort(chance.choice(np.arange(1, 5), targets, replace=False)) * 9
    rows = chance.integers(0, 36, targets)
    boxes = [(c, r, c + 3 + 2 * i, r + 3) for i, (c, r) in enumerate(zip(columns, rows, strict=True))]
    return clip_at(sequence_of([boxes] * LENGTH, seed=seed), LENGTH - 1, length=LENGTH)


def bright_box(frame: np.ndarray, near: np.ndarray) -> list[int]:
    """Returns x1 y1 x2 y2 of the bright pixels within two pixels of a box."""
    left, top = np.maximum(near[:2].astype(int) - 2, 0)
    right, bottom = near[2:].astype(int) + 2
    rows, columns = np.nonzero(frame[top:bottom, left:right] > 128)
    corner = [columns.min() + left, rows.min() + top, columns.max() + left + 1, rows.max() + top + 1]
    return [int(n) for n in corner]


def assert_boxes_cover_pixels(clip: Clip) -> None:
    assert (clip.frames == clip.frames[-1:])[clip.frames > 128].all()
    for box in clip.boxes:
        assert bright_box(clip.frames[-1], box) == box.tolist()
