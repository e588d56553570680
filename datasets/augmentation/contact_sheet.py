"""Contact sheets: the frames of many clips on one image, for checking the input of a network."""

from __future__ import annotations

import cv2
import numpy as np

from datasets.sequences.clips import Clip

SPACING = 4
"""Pixels between frames."""
BACKGROUND = 32
"""Grey level of the sheet."""
BOX_COLOUR = (0, 200, 255)
"""Orange, as B, G, R."""
BOX_MARGIN = 3
"""Pixels between an outline and the box that it shows."""


def contact_sheet(clips: list[Clip], *, columns: int = 1) -> np.ndarray:
    """Draws each clip as a row of frames, oldest first; returns (H, W, 3) uint8 B, G, R.

    Boxes are outlined in the key frame, the last one. The contrast of each clip is stretched to its minimum
    and maximum. `columns` clips are drawn side by side. Raises ValueError if there are no clips.
    """
    if not clips:
        raise ValueError("a contact sheet needs one clip or more")
    strips = [_draw_clip(clip) for clip in clips]
    high, wide = (max(strip.shape[axis] for strip in strips) for axis in (0, 1))
    lines = -(-len(strips) // columns)
    size = (lines * (high + SPACING) + SPACING, columns * (wide + 3 * SPACING) - SPACING, 3)
    page = np.full(size, BACKGROUND, np.uint8)
    for number, strip in enumerate(strips):
        top = SPACING + number // columns * (high + SPACING)
        left = SPACING + number % columns * (wide + 3 * SPACING)
        page[top : top + strip.shape[0], left : left + strip.shape[1]] = strip
    return page


def _draw_clip(clip: Clip) -> np.ndarray:
    """Draws the frames of a clip side by side."""
    low, high = int(clip.frames.min()), int(clip.frames.max())
    levels = (clip.frames.astype(np.float32) - low) * (255 / max(high - low, 1))
    frames = [cv2.cvtColor(frame.astype(np.uint8), cv2.COLOR_GRAY2BGR) for frame in levels]
    if clip.mask is not None:
        outlines, _ = cv2.findContours(clip.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(frames[-1], outlines, -1, BOX_COLOUR, 1)
    for left, top, right, bottom in clip.boxes.round().astype(int):
        corner = (int(right) + BOX_MARGIN - 1, int(bottom) + BOX_MARGIN - 1)
        cv2.rectangle(frames[-1], (int(left) - BOX_MARGIN, int(top) - BOX_MARGIN), corner, BOX_COLOUR, 1)
    space = np.full((frames[0].shape[0], SPACING, 3), BACKGROUND, np.uint8)
    parts = [part for frame in frames for part in (frame, space)][:-1]
    return np.hstack(parts)
