"""Box algebra on numpy arrays: x1 y1 x2 y2 in pixels, right and bottom exclusive."""

from __future__ import annotations

import numpy as np


def from_xywh(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) left, top, width, height → x1 y1 x2 y2."""
    boxes = np.asarray(boxes).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def to_xywh(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) x1 y1 x2 y2 → left, top, width, height."""
    boxes = np.asarray(boxes).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def from_centres(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) centre x, centre y, width, height → x1 y1 x2 y2."""
    boxes = np.asarray(boxes).reshape(-1, 4)
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def to_centres(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) x1 y1 x2 y2 → centre x, centre y, width, height."""
    boxes = np.asarray(boxes).reshape(-1, 4)
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def area(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) → (N,) square pixels; 0 for boxes turned inside out."""
    boxes = np.asarray(boxes).reshape(-1, 4)
    return (boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1)


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, 4) and (M, 4) → (N, M) intersection over union; 0 where both boxes are empty."""
    first, second = np.asarray(first).reshape(-1, 4), np.asarray(second).reshape(-1, 4)
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    intersection = (high - low).clip(min=0).prod(axis=2)
    union = area(first)[:, None] + area(second)[None] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union, dtype=float), where=union > 0)


def centre_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, 4) and (M, 4) → (N, M) distance between centres in pixels."""
    difference = to_centres(first)[:, None, :2] - to_centres(second)[None, :, :2]
    return np.hypot(difference[..., 0], difference[..., 1])


def clip(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """(N, 4) boxes cut to the picture."""
    return np.asarray(boxes).clip(0, [width, height, width, height])
