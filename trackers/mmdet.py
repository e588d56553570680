"""Trackers of mmdet 3 with the interface of the pipeline."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from detectors.mmdet_adapter import installation
from pipeline.config.parsing import build
from pipeline.config.ranges import require_range
from pipeline.structures.boxes import from_centres, to_centres
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.tracks import Tracks, TrackState
from pipeline.system.errors import UsageError, reason_of, unknown_name
from trackers.centre_options import CentreOptions

if TYPE_CHECKING:
    from mmengine.structures import InstanceData

START_SCORE, LOW_SCORE = CentreOptions.high_score, CentreOptions.low_score
"""Default thresholds of scores: those of our default tracker, since mmdet's are for pedestrians, whose tracks
start at 0.7. The scores of our detectors rarely exceed 0.6."""
ENLARGE = 4.0
"""Default factor by which boxes are enlarged about their centres for the tracker. Those of targets of a few
pixels would not overlap between frames, and mmdet's motion noise, a share of the size, would be too small."""


@dataclass(frozen=True)
class ScoreThresholds:
    """Thresholds of scores in the two rounds of ByteTrack."""

    high: float = START_SCORE
    """Detections above this are assigned first, and start tracks if they are left over."""
    low: float = LOW_SCORE
    """Detections from this up to `high` are assigned to tracks that are left over."""

    def __post_init__(self) -> None:
        require_range(self, "high", "low", low=0, high=1)


@dataclass(frozen=True)
class IouThresholds:
    """Minimum IoU of a detection and a track in each round of ByteTrack."""

    high: float = 0.1
    low: float = 0.5
    tentative: float = 0.3

    def __post_init__(self) -> None:
        require_range(self, "high", "low", "tentative", low=0, high=1)


@dataclass(frozen=True)
class ByteOptions:
    """Options of mmdet's ByteTracker; those that are left out keep these defaults."""

    enlarge: float = ENLARGE
    obj_score_thrs: ScoreThresholds = field(default_factory=ScoreThresholds)
    init_track_thr: float | None = None
    """Score above which a detection starts a track while there is none; None: `obj_score_thrs.high`."""
    weight_iou_with_det_scores: bool = True
    match_iou_thrs: IouThresholds = field(default_factory=IouThresholds)
    num_tentatives: int = 3
    """Number of frames that confirm a track."""
    num_frames_retain: int = 10
    """Number of frames without a detection after which a track ends."""

    def __post_init__(self) -> None:
        if self.init_track_thr is None:
            object.__setattr__(self, "init_track_thr", self.obj_score_thrs.high)
        require_range(self, "enlarge", low=1, high=100)
        require_range(self, "init_track_thr", low=0, high=1)
        require_range(self, "num_tentatives", "num_frames_retain", low=1)


@dataclass(frozen=True)
class OcsortOptions:
    """Options of mmdet's OCSORTTracker; those that are left out keep these defaults."""

    enlarge: float = ENLARGE
    obj_score_thr: float = LOW_SCORE
    """Score above which detections are assigned to tracks."""
    init_track_thr: float = START_SCORE
    """Score above which a detection starts a track."""
    weight_iou_with_det_scores: bool = True
    match_iou_thr: float = 0.3
    """Minimum IoU of a detection and a track."""
    num_tentatives: int = 3
    """Number of frames that confirm a track."""
    vel_consist_weight: float = 0.2
    vel_delta_t: int = 3
    num_frames_retain: int = 10
    """Number of frames without a detection after which a track ends."""

    def __post_init__(self) -> None:
        require_range(self, "enlarge", low=1, high=100)
        require_range(self, "obj_score_thr", "init_track_thr", "match_iou_thr", low=0, high=1)
        require_range(self, "vel_consist_weight", low=0)
        require_range(self, "num_tentatives", "num_frames_retain", "vel_delta_t", low=1)


SUPPORTED: dict[str, type[ByteOptions] | type[OcsortOptions]] = {
    "ByteTracker": ByteOptions,
    "OCSORTTracker": OcsortOptions,
}
"""Trackers that use boxes and scores only, with their options; the others run a network on the pixels."""


class MmdetTracker:
    """A tracker of mmdet, with mmdet's Kalman filter and thresholds for the scores of our detectors.

    If frames are skipped, it still predicts over one frame interval: mmdet supports no others. Tracks that
    are not detected in a frame are not returned. The history of a track is kept as long as the track.

    Args:
        name: one of `SUPPORTED`.
        options: fields of `ByteOptions` or `OcsortOptions`, such as `init_track_thr`; a table of thresholds
            may hold some of them.

    Raises UsageError if the name is not supported, an option is unknown or out of range, or a package is
    missing.
    """

    def __init__(self, name: str, **options: Any):
        if name not in SUPPORTED:
            raise unknown_name("mmdet tracker", name, SUPPORTED)
        self.options: ByteOptions | OcsortOptions = build(SUPPORTED[name], options, "tracker.options.")
        installation.prepare("lap")
        from mmdet.registry import MODELS

        known = asdict(self.options)
        self._enlarge = known.pop("enlarge")
        try:
            self._tracker = MODELS.build({"type": name, "motion": {"type": "KalmanFilter"}, **known})
        except (TypeError, ValueError, KeyError, AssertionError) as error:
            raise UsageError(f"cannot build tracker 'mmdet:{name}': {reason_of(error)}") from error
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
        elapsed = (frame.index - self._first) // frame.stride  # its motion models predict one step a frame
        sample = DetDataSample(metainfo={"frame_id": elapsed})
        rows = (scaled(detections.boxes, self._enlarge), detections.scores, detections.labels)
        boxes, scores, labels = (torch.from_numpy(row.copy()) for row in rows)
        sample.pred_instances = InstanceData(bboxes=boxes, scores=scores, labels=labels)
        return self._tracks(self._tracker.track(data_sample=sample), elapsed, stride=frame.stride)

    def _tracks(self, instances: InstanceData, elapsed: int, *, stride: int) -> Tracks:
        """Returns mmdet's track instances of the frame `elapsed` steps of `stride` after the first one."""
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
            boxes=scaled(boxes, 1 / self._enlarge),
            scores=scores,
            labels=labels,
            ids=ids[order] + 1,
            state=np.where(tentative, TrackState.TENTATIVE, TrackState.CONFIRMED),
            velocity=np.stack([record.mean[4:6] for record in records]) / stride,  # of centre x and y
            age=(elapsed - started) * stride,
        )


def scaled(boxes: np.ndarray, factor: float) -> np.ndarray:
    """Returns boxes (N, 4) float32 x1 y1 x2 y2 with sides multiplied by `factor`, about the same centres."""
    rows = to_centres(boxes.astype(np.float64))
    rows[:, 2:] *= factor
    return from_centres(rows).astype(np.float32)
