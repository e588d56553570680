"""Tube AP: average precision of whole tracks, which is also called spatio-temporal or video mAP.

A tube is a target or a track over all scored frames. The overlap of two tubes is the sum of their
intersections over the sum of their unions, frame by frame (Yang et al., "Video Instance Segmentation", ICCV
2019, equation 1, with boxes in place of masks; Dave et al., "TAO", ECCV 2020). With the gate of centres, a
frame in which both are within the limit counts as the intersection, and a frame that has either as the union.
A track's score is the mean of those of its rows. Classes are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.evaluation.detection.curves import PrecisionRecallCurve
from pipeline.evaluation.tracking.frame_rows import FrameRows
from pipeline.evaluation.tracking.gates import Gate
from pipeline.structures.boxes import area

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""(10,) lowest overlaps of a hit; tube AP is the mean over them, as AP of COCO is."""


def tube_overlaps(rows: Sequence[FrameRows], gate: Gate, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the overlaps (N, M) of the targets and tracks of a video, and the scores (M,) of the tracks.

    Targets and tracks are in the order of their identities and ids.
    """
    targets = np.unique(np.concatenate([np.zeros(0, np.int64), *(row.targets for row in rows)]))
    tracks = np.unique(np.concatenate([np.zeros(0, np.int64), *(row.tracks for row in rows)]))
    common = np.zeros((len(targets), len(tracks)))
    of_targets, of_tracks = np.zeros(len(targets)), np.zeros(len(tracks))
    scores, counts = np.zeros(len(tracks)), np.zeros(len(tracks))
    for row in rows:
        first, second = np.searchsorted(targets, row.targets), np.searchsorted(tracks, row.tracks)
        common[first[:, None], second] += gate.intersections(row.target_boxes, row.track_boxes, limit)
        of_targets[first] += area(row.target_boxes.astype(np.float64)) if gate.of_areas else 1.0
        of_tracks[second] += area(row.track_boxes.astype(np.float64)) if gate.of_areas else 1.0
        scores[second] += row.scores
        counts[second] += 1
    union = of_targets[:, None] + of_tracks - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0), scores / np.maximum(
        counts, 1
    )


class TubeAP:
    """Tube AP of one video after another, and of all together."""

    def __init__(self) -> None:
        self._scores: list[np.ndarray] = []
        self._hits: list[np.ndarray] = []
        self._targets: list[int] = []

    def add(self, rows: Sequence[FrameRows], gate: Gate, limit: float) -> tuple[float | None, float | None]:
        """Adds a video; returns its tube AP and tube AP50, None without targets."""
        overlaps, scores = tube_overlaps(rows, gate, limit)
        self._scores.append(scores)
        self._hits.append(np.array([_hits(overlaps, scores, threshold) for threshold in THRESHOLDS]))
        self._targets.append(len(overlaps))
        return _average(scores, self._hits[-1], len(overlaps))

    def overall(self) -> tuple[float | None, float | None]:
        """Returns tube AP and tube AP50 of the tracks of all videos, ranked together."""
        scores = np.concatenate([np.zeros(0), *self._scores])
        hits = np.concatenate([np.zeros((len(THRESHOLDS), 0), bool), *self._hits], axis=1)
        return _average(scores, hits, sum(self._targets))


def _hits(overlaps: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Returns (M,) bool: tracks take the target of the greatest overlap that is free, by descending score."""
    hits, free = np.zeros(len(scores), bool), np.ones(len(overlaps), bool)
    enough = overlaps >= threshold
    for track in np.argsort(-scores, kind="stable"):
        candidates = np.flatnonzero(enough[:, track] & free)
        if len(candidates):
            hits[track] = True
            free[candidates[np.argmax(overlaps[candidates, track])]] = False
    return hits


def _average(scores: np.ndarray, hits: np.ndarray, targets: int) -> tuple[float | None, float | None]:
    """Returns AP as the mean over the thresholds, and at the first; interpolated as COCO does."""
    if not targets:
        return None, None
    values = [PrecisionRecallCurve(scores, row, targets=targets, frames=0).average_precision for row in hits]
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)), defined[0]
