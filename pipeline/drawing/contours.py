"""Contours of segmentation masks, drawn around the masks and never over them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pipeline.drawing.primitives import Colour

PALETTE = (
    (0, 255, 255),
    (255, 120, 255),
    (190, 255, 90),
    (255, 215, 100),
    (150, 180, 255),
    (255, 160, 140),
)
"""R, G, B by the index of the segmenter."""
MAX_SHARE = 0.05
"""Maximum share of the image that a mask of tiny targets covers."""


def contour_colour(index: int) -> Colour:
    """Returns the colour, R, G, B, of the segmenter with this index in the order of running."""
    return PALETTE[index % len(PALETTE)]


def protected_pixels(masks: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the pixels, (H, W) bool, that no contour may cover: those of any of the masks, (H, W) bool.

    A mask that covers more than `MAX_SHARE` of the image does not locate targets and is ignored, since it
    would leave no room for the contours of the others. There must be one mask or more.
    """
    plausible = [mask for mask in masks if mask.mean() <= MAX_SHARE]
    return np.any(plausible, axis=0) if plausible else np.zeros(masks[0].shape, bool)


def draw_contours(
    canvas: np.ndarray, masks: Sequence[np.ndarray], *, protected: np.ndarray, thickness: int
) -> None:
    """Draws the contour of the mask of each segmenter, in place.

    The first contour has a distance of one line width from its mask, each further one lies one line width
    outside the previous one, so all are visible if segmenters agree. No line covers its own mask.

    Args:
        canvas: (H, W, 3) uint8 R, G, B.
        masks: one for each segmenter, (H, W) bool.
        protected: (H, W) bool, pixels that no line covers.
        thickness: width of lines in pixels.
    """
    for index, mask in enumerate(masks):
        if mask.any():
            inner, outer = (_dilated(mask, (index + step) * thickness) for step in (1, 2))
            canvas[outer & ~inner & ~protected] = contour_colour(index)


def _dilated(mask: np.ndarray, radius: int) -> np.ndarray:
    """Returns a mask, (H, W) bool, dilated by a disc."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.dilate(mask.astype(np.uint8), disc).astype(bool)
