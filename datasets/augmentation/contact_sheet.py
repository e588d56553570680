"""Contact sheets: what the network sees, on one page."""

from __future__ import annotations

import cv2
import numpy as np

from datasets.sequences.clips import Clip

GAP = 4
"""Pixels between pictures."""
PAPER = 32
BOX = (0, 200, 255)
"""Orange, as B, G, R."""
AROUND = 3
"""Pixels that an outline keeps off the box it shows."""


def sheet(clips: list[Clip], *, columns: int = 1) -> np.ndarray:
    """One row of pictures for each clip, oldest frame left, as (H, W, 3) uint8 B, G, R.

    Boxes are outlined in the key frame, at the right; each clip is stretched to its own darkest and brightest
    pixel. `columns` clips stand beside each other.
    """
    if not clips:
        raise ValueError("a contact sheet needs one clip or more")
    rows = [_row(clip) for clip in clips]
    high, wide = (max(row.shape[axis] for row in rows) for axis in (0, 1))
    lines = -(-len(rows) // columns)
    page = np.full((lines * (high + GAP) + GAP, columns * (wide + 3 * GAP) - GAP, 3), PAPER, np.uint8)
    for number, row in enumerate(rows):
        top = GAP + number // columns * (high + GAP)
        left = GAP + number % columns * (wide + 3 * GAP)
        page[top : top + row.shape[0], left : left + row.shape[1]] = row
    return page


def _row(clip: Clip) -> np.ndarray:
    low, high = int(clip.frames.min()), int(clip.frames.max())
    levels = (clip.frames.astype(np.float32) - low) * (255 / max(high - low, 1))
    pictures = [cv2.cvtColor(frame.astype(np.uint8), cv2.COLOR_GRAY2BGR) for frame in levels]
    if clip.mask is not None:
        outlines, _ = cv2.findContours(clip.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(pictures[-1], outlines, -1, BOX, 1)
    for left, top, right, bottom in clip.boxes.round().astype(int):
        corner = (int(right) + AROUND - 1, int(bottom) + AROUND - 1)
        cv2.rectangle(pictures[-1], (int(left) - AROUND, int(top) - AROUND), corner, BOX, 1)
    between = np.full((pictures[0].shape[0], GAP, 3), PAPER, np.uint8)
    parts = [part for picture in pictures for part in (picture, between)][:-1]
    return np.hstack(parts)
