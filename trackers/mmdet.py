"""Trackers of mmdet 3 with the interface of the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from detectors.mmdet_adapter import installation
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.tracks import Tracks, TrackState
from pipeline.system.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from mmengine.structures import InstanceData

SUPPORTED = ("ByteTracker", "OCSORTTracker")
"""Trackers that use boxes and scores only; the others run a network on the pixels."""


class MmdetTracker:
    """A tracker of mmdet, with mmdet's Kalman filter and thresholds.

    If frames are skipped, it still predicts over one frame interval: mmdet supports no others. Tracks that
    are not detected in a frame are not returned. The history of a track is kept as long as the track.

    Args:
        name: one of `SUPPORTED`.
        options: options of mmdet's class, such as `init_track_thr`. Its defaults are for pedestrians: a track
            starts at a score above 0.7.

    Raises UsageError if the name is not supported, an option is unknown, or a package is missing.
    """

    def __init__(self, name: str, **options: Any):
        if name not in SUPPORTED:
            raise unknown_name("mmdet tracker", name, SUPPORTED)
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
        """Removes all tracks: the next frame starts a new sequence, with ids from 1."""
        self._tracker.reset()
        self._first: int | None = None

    def update(self, detections: Detections, frame: Frame) -> Tracks:
        """Returns the tracks that were detected in `frame`, sorted by id."""
        from mmdet.structures import DetDataSample
        from mmengine.structures import InstanceData

        if self._first is None:
            self._first = frame.index
        elapsed = frame.index - self._first
        sample = DetDataSample(metainfo={"frame_id": elapsed})
        rows = (detections.boxes, detections.scores, detections.labels)
        boxes, scores, labels = (torch.from_numpy(row.copy()) for row in rows)
        sample.pred_instances = InstanceData(bboxes=boxes, scores=scores, labels=labels)
        return self._tracks(self._tracker.track(data_sample=sample), elapsed)

    def _tracks(self, instances: InstanceData, elapsed: int) -> Tracks:
        """Returns mmdet's track instances of the frame `elapsed` frames after the first one."""
        ids = instances.instances_id.long().numpy()
        order = np.argsort(ids, kind="stable")
        records = [self._tracker.tracks[number] for number in ids[order].tolist()]
        if not records:
            return Tracks.empty()
        boxes, scores, labels = (
            getattr(instances, name).numpy()[order] for name in ("bboxes", "scores", "labels")
        )
        tentative = np.array([record.tentative for record in records])
        started = np.array([int(record.frame_ids[0]) for record in records])
        return Tracks(
            boxes=boxes,
            scores=scores,
            labels=labels,
            ids=ids[order] + 1,
            state=np.where(tentative, TrackState.TENTATIVE, TrackState.CONFIRMED),
            velocity=np.stack([record.mean[4:6] for record in records]),  # of centre x and y
            age=elapsed - started,
        )
