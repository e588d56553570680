"""Box algebra on numpy arrays: boxes x1 y1 x2 y2 in pixels, right and bottom exclusive."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def from_xywh(boxes: ArrayLike) -> np.ndarray:
    """Converts (N, 4) left, top, width, height to x1 y1 x2 y2."""
    boxes = np.asarray(boxes).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def to_xywh(boxes: ArrayLike) -> np.ndarray:
    """Converts (N, 4) x1 y1 x2 y2 to left, top, width, height."""
    boxes = np.asarray(boxes).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def from_centres(boxes: ArrayLike) -> np.ndarray:
    """Converts (N, 4) centre x, centre y, width, height to x1 y1 x2 y2."""
    boxes = np.asarray(boxes).reshape(-1, 4)
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def to_centres(boxes: ArrayLike) -> np.ndarray:
    """Converts (N, 4) x1 y1 x2 y2 to centre x, centre y, width, height."""
    boxes = np.asarray(boxes).reshape(-1, 4)
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def grow(boxes: ArrayLike, margin: float) -> np.ndarray:
    """Returns boxes (N, 4) with `margin` pixels added to each side, about the same centres.

    A negative margin shrinks them, down to a width and height of 1 pixel.
    """
    boxes = to_centres(boxes)
    sides = np.maximum(boxes[:, 2:] + 2 * margin, np.minimum(boxes[:, 2:], 1.0))
    return from_centres(np.concatenate([boxes[:, :2], sides], axis=1))


def area(boxes: ArrayLike) -> np.ndarray:
    """Returns the areas (N,) of boxes (N, 4) in square pixels; 0 if x2 < x1 or y2 < y1."""
    boxes = np.asarray(boxes).reshape(-1, 4)
    return (boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1)


def iou(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Returns the intersection over union (N, M) of boxes (N, 4) and (M, 4); 0 if both are empty."""
    first, second = np.asarray(first).reshape(-1, 4), np.asarray(second).reshape(-1, 4)
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    intersection = (high - low).clip(min=0).prod(axis=2)
    union = area(first)[:, None] + area(second)[None] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union, dtype=float), where=union > 0)


def centre_distance(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Returns the distances (N, M) between the centres of boxes (N, 4) and (M, 4) in pixels."""
    difference = to_centres(first)[:, None, :2] - to_centres(second)[None, :, :2]
    return np.hypot(difference[..., 0], difference[..., 1])


def clip(boxes: ArrayLike, width: int, height: int) -> np.ndarray:
    """Returns boxes (N, 4) clipped to an image of this size."""
    return np.asarray(boxes).clip(0, [width, height, width, height])
