"""Gates: which track can be matched with which target in a frame, and the distance between the two.

A gate is chosen by name: by overlap, or by the distance between centres, since overlap is hardly informative
for targets of a few pixels. Classes are ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pipeline.structures.boxes import centre_distance, iou
from pipeline.system.errors import UsageError, unknown_name


def iou_distances(targets: np.ndarray, tracks: np.ndarray, limit: float) -> np.ndarray:
    """Returns 1 - IoU of boxes (N, 4) and (M, 4) as (N, M) float64; NaN if the IoU is below `limit`."""
    overlap = iou(np.asarray(targets, dtype=np.float64), np.asarray(tracks, dtype=np.float64))
    return np.where(overlap >= limit, 1 - overlap, np.nan)


def centre_distances(targets: np.ndarray, tracks: np.ndarray, limit: float) -> np.ndarray:
    """Returns the pixels between centres of boxes (N, 4) and (M, 4) as (N, M) float64; NaN above `limit`."""
    distance = centre_distance(np.asarray(targets, dtype=np.float64), np.asarray(tracks, dtype=np.float64))
    return np.where(distance <= limit, distance, np.nan)


def iou_similarities(targets: np.ndarray, tracks: np.ndarray, limit: float) -> np.ndarray:
    """Returns the IoU of boxes (N, 4) and (M, 4) as (N, M) float64; `limit` has no influence."""
    return iou(np.asarray(targets, dtype=np.float64), np.asarray(tracks, dtype=np.float64))


def centre_similarities(targets: np.ndarray, tracks: np.ndarray, limit: float) -> np.ndarray:
    """Returns max(0, 1 - d / (2 * limit)) of boxes (N, 4) and (M, 4) as (N, M) float64.

    d is the distance of their centres in pixels: the similarity is 0.5 at the limit of the gate.
    """
    distance = centre_distance(np.asarray(targets, dtype=np.float64), np.asarray(tracks, dtype=np.float64))
    return np.maximum(0.0, 1 - distance / (2 * limit))


def box_intersections(targets: np.ndarray, tracks: np.ndarray, limit: float) -> np.ndarray:
    """Returns the area that boxes (N, 4) and (M, 4) share as (N, M) float64; `limit` has no influence."""
    first, second = np.asarray(targets, dtype=np.float64), np.asarray(tracks, dtype=np.float64)
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return (high - low).clip(min=0).prod(axis=2)


def centre_intersections(targets: np.ndarray, tracks: np.ndarray, limit: float) -> np.ndarray:
    """Returns 1 for centres of boxes (N, 4) and (M, 4) within `limit` pixels, else 0, as (N, M) float64."""
    return np.isfinite(centre_distances(targets, tracks, limit)).astype(np.float64)


class Gate(NamedTuple):
    """Rule for the pairs of target and track that can be matched."""

    distances: Callable[[np.ndarray, np.ndarray, float], np.ndarray]
    """Boxes of targets (N, 4) and tracks (M, 4), limit → (N, M) distances, NaN for pairs outside the gate."""
    similarities: Callable[[np.ndarray, np.ndarray, float], np.ndarray]
    """Boxes of targets (N, 4) and tracks (M, 4), limit → (N, M) in [0, 1], as HOTA takes them."""
    intersections: Callable[[np.ndarray, np.ndarray, float], np.ndarray]
    """Boxes of targets (N, 4) and tracks (M, 4), limit → (N, M): what they share, as tube AP takes it."""
    of_areas: bool
    """Whether intersections are areas; else frames are counted."""
    limit: float
    """Default limit."""
    max_limit: float
    """Highest valid limit; all must be above 0."""
    unit: str
    """Unit of the distances and of MOTP."""


GATES: dict[str, Gate] = {
    "iou": Gate(
        iou_distances,
        iou_similarities,
        box_intersections,
        of_areas=True,
        limit=0.5,
        max_limit=1.0,
        unit="1 - IoU",
    ),
    "centre": Gate(
        centre_distances,
        centre_similarities,
        centre_intersections,
        of_areas=False,
        limit=5.0,
        max_limit=1e6,
        unit="px",
    ),
}
"""Gates by name. The limit of `iou` is the lowest IoU of a match, of `centre` the greatest distance in px."""


def select_gate(name: str, limit: float | None) -> tuple[Gate, float]:
    """Returns a gate and its limit, the default limit if None.

    Raises UsageError for an unknown name and for a limit out of range.
    """
    if name not in GATES:
        raise unknown_name("gate", name, GATES)
    gate = GATES[name]
    limit = gate.limit if limit is None else limit
    if not 0 < limit <= gate.max_limit:
        raise UsageError(f"limit {limit} of gate '{name}' is not above 0 and at most {gate.max_limit:g}")
    return gate, float(limit)
