"""The outlines of what segmenters marked, beside the pixels and never on them."""

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
"""R, G, B by the segmenter's place among those that ran."""


MAX_SHARE = 0.05
"""Of the picture; who marks more than this has found no tiny targets."""


def contour_colour(place: int) -> Colour:
    """R, G, B of the segmenter that ran in this place, from 0."""
    return PALETTE[place % len(PALETTE)]


def spared(masks: Sequence[np.ndarray]) -> np.ndarray:
    """(H, W) bool: the pixels that no contour may cover, marked by any segmenter, of one mask or more.

    A segmenter that marks a large part of the picture does not show where targets are: its pixels are not
    among them, or there would be no room for the contours of the others.
    """
    sane = [mask for mask in masks if mask.mean() <= MAX_SHARE]
    return np.any(sane, axis=0) if sane else np.zeros(masks[0].shape, bool)


def draw_contours(
    canvas: np.ndarray, masks: Sequence[np.ndarray], *, spare: np.ndarray, thickness: int
) -> None:
    """Outline the marked pixels of each segmenter, in the order in which they ran, in place.

    `masks` are (H, W) bool at the canvas's size. The first line leaves a line's width free around what it
    outlines, each further one lies a line's width outside the one before, so that all can be seen where
    segmenters agree. No line covers a pixel that its segmenter marked, nor one of `spare`, (H, W) bool.
    """
    for place, mask in enumerate(masks):
        if mask.any():
            inner, outer = (_grown(mask, (place + step) * thickness) for step in (1, 2))
            canvas[outer & ~inner & ~spare] = contour_colour(place)


def _grown(mask: np.ndarray, by: int) -> np.ndarray:
    """The mask and all pixels within `by` of it."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * by + 1, 2 * by + 1))
    return cv2.dilate(mask.astype(np.uint8), disc).astype(bool)
