"""Trackers of mmdet behind our protocol."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from detectors.mmdet_adapter import installation
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.tracks import Tracks, TrackState
from pipeline.system.errors import UsageError, unknown_name

TRACKERS = ("ByteTracker", "OCSORTTracker")
"""Those that need boxes and scores alone; the others look at pixels with a network of their own."""


class MmdetTracker:
    """A tracker of mmdet by its name in its registry, with mmdet's Kalman filter and thresholds.

    Where indices skip, it predicts over one frame interval all the same: mmdet knows no others.
    A track that is not seen has no row. The history of a track is kept for as long as it lives.

    Args:
        name: one of `TRACKERS`.
        options: of mmdet's class, such as `init_track_thr`. Its defaults are made for pedestrians: a track
            starts at scores above 0.7.

    Raises UsageError for another name, an option that the class does not have, and a missing package.
    """

    def __init__(self, name: str, **options: Any):
        if name not in TRACKERS:
            raise unknown_name("mmdet tracker", name, TRACKERS)
        installation.prepare("lap")
        from mmdet.registry import MODELS

        self.options = dict(options)
        try:
            self._tracker = MODELS.build({"type": name, "motion": {"type": "KalmanFilter"}, **options})
        except (TypeError, ValueError, KeyError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise UsageError(f"cannot build tracker 'mmdet:{name}': {reason}") from error
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next frame starts a new sequence, with ids from 1 again."""
        self._tracker.reset()
        self._first: int | None = None

    def update(self, detections: Detections, frame: Frame) -> Tracks:
        """The tracks that were seen in `frame`, in the order of their ids."""
        from mmdet.structures import DetDataSample
        from mmengine.structures import InstanceData

        if self._first is None:
            self._first = frame.index
        sample = DetDataSample(metainfo={"frame_id": frame.index - self._first})
        rows = (detections.boxes, detections.scores, detections.labels)
        boxes, scores, labels = (torch.from_numpy(row.copy()) for row in rows)
        sample.pred_instances = InstanceData(bboxes=boxes, scores=scores, labels=labels)
        return self._tracks(self._tracker.track(data_sample=sample), frame)

    def _tracks(self, found: Any, frame: Frame) -> Tracks:
        """What mmdet tells of this frame, and of each track's life."""
        ids = found.instances_id.long().numpy()
        order = np.argsort(ids, kind="stable")
        lives = [self._tracker.tracks[number] for number in ids[order].tolist()]
        if not lives:
            return Tracks.empty()
        boxes, scores, labels = (
            getattr(found, name).numpy()[order] for name in ("bboxes", "scores", "labels")
        )
        tentative = np.array([life.tentative for life in lives])
        started = np.array([int(life.frame_ids[0]) for life in lives])
        return Tracks(
            boxes=boxes,
            scores=scores,
            labels=labels,
            ids=ids[order] + 1,
            state=np.where(tentative, TrackState.TENTATIVE, TrackState.CONFIRMED),
            velocity=np.stack([life.mean[4:6] for life in lives]),  # of centre x and y
            age=frame.index - self._first - started,
        )
