"""HOTA, and the other metrics of the package trackeval, on the similarities of a gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.evaluation.tracking.frame_rows import FrameRows
from pipeline.evaluation.tracking.gates import Gate


def trackeval_data(rows: Sequence[FrameRows], gate: Gate, limit: float) -> dict[str, Any]:
    """Returns the frames of a video in the form that the metrics of trackeval take.

    Identities become indices from 0. Similarities (N, M) are those of `Gate.similarities`.
    """
    targets = np.unique(np.concatenate([row.targets for row in rows] or [np.zeros(0, np.int64)]))
    tracks = np.unique(np.concatenate([row.tracks for row in rows] or [np.zeros(0, np.int64)]))
    return {
        "num_timesteps": len(rows),
        "num_gt_ids": len(targets),
        "num_tracker_ids": len(tracks),
        "num_gt_dets": sum(len(row.targets) for row in rows),
        "num_tracker_dets": sum(len(row.tracks) for row in rows),
        "gt_ids": [np.searchsorted(targets, row.targets) for row in rows],
        "tracker_ids": [np.searchsorted(tracks, row.tracks) for row in rows],
        "similarity_scores": [gate.similarities(row.target_boxes, row.track_boxes, limit) for row in rows],
    }


class HotaScores:
    """HOTA of one video after another, and of all together.

    HOTA is the metric of Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking",
    IJCV 2021, as the package trackeval computes it: the geometric mean of DetA and AssA, averaged over 19
    thresholds of the similarity, 0.05 to 0.95. Targets without tracks and tracks without targets are counted.

    Raises ImportError if trackeval is not installed.
    """

    def __init__(self) -> None:
        from trackeval.metrics import HOTA  # takes seconds to load

        self._metric = HOTA()
        self._results: dict[int, Any] = {}

    def add(self, rows: Sequence[FrameRows], gate: Gate, limit: float) -> dict[str, float]:
        """Adds a video; returns its `hota`, `deta` and `assa`."""
        result = self._metric.eval_sequence(trackeval_data(rows, gate, limit))
        self._results[len(self._results)] = result
        return _means(result)

    def overall(self) -> dict[str, float]:
        """Returns `hota`, `deta` and `assa` of all videos added, of which there must be one or more.

        Counts are summed over the videos, and AssA is weighted by the matches of each.
        """
        return _means(self._metric.combine_sequences(self._results))


def _means(result: dict[str, Any]) -> dict[str, float]:
    return {name.lower(): float(np.mean(result[name])) for name in ("HOTA", "DetA", "AssA")}
