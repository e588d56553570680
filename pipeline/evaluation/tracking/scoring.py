"""Scores tracks against annotated targets with motmetrics, on the distances of a gate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.evaluation.tracking.frame_rows import TrackedVideo, scored_frames
from pipeline.evaluation.tracking.gates import Gate, select_gate
from pipeline.evaluation.tracking.scores import TrackScores
from pipeline.evaluation.tracking.track_rows import TrackRows
from pipeline.structures.annotations import VideoRecord
from pipeline.system.errors import UsageError

if TYPE_CHECKING:
    from motmetrics import MOTAccumulator

OVERALL = "OVERALL"
"""Key of the scores of all videos together in the result of `score_videos`."""
_METRICS = [
    *("mota", "motp", "idf1", "idp", "idr", "num_switches", "num_fragmentations", "num_misses"),
    *("num_false_positives", "mostly_tracked", "mostly_lost", "num_objects", "num_unique_objects"),
    "num_frames",
]
"""Metrics to compute, by their names in motmetrics."""


def score_tracks(
    record: VideoRecord,
    tracks: TrackRows | str | Path,
    *,
    gate: str = "iou",
    limit: float | None = None,
    frames: Iterable[int] | None = None,
) -> TrackScores:
    """Scores the tracks of one video against its annotated targets.

    A frame is scored if it is annotated, with or without targets, and is in `frames`. Tracks in other frames
    are ignored. For missing identities see `target_identities`.

    MOTA assumes that the annotations are complete. If they label one target per frame and more are visible,
    as in drone-ir, every track row on an unlabelled target is a false positive: compare trackers by it on the
    same data only, together with IDR. In drone-ir one identity also spans each clip, and a switch is counted
    when the label moves from one target to another.

    Args:
        record: the ground truth. tracks: rows, or the path of a MOT file (see `read_tracks`). gate: a name in
        `GATES`. limit: limit of the gate: lowest IoU in (0, 1], or greatest distance between centres in
        pixels. None for
            its default, IoU 0.5 or 5 px.
        frames: indices of the processed frames, from 0; None for all. Annotated frames that a run did not
            process would count as misses.

    Raises:
        UsageError: the gate is unknown, the limit is out of range, the file is not a MOT file, or targets
            without identities are ambiguous.
    """
    selected, limit = select_gate(gate, limit)
    accumulator, ids = _accumulate(TrackedVideo(record, tracks, frames), selected, limit)
    return _track_scores(_video_metrics(accumulator), gate=gate, limit=limit, tracks=len(ids))


def score_videos(
    videos: Iterable[TrackedVideo | tuple], *, gate: str = "iou", limit: float | None = None
) -> dict[str, TrackScores]:
    """Scores several videos one by one and together.

    Args:
        videos: `TrackedVideo`, or tuples (record, tracks) or (record, tracks, frames).
        gate: a name in `GATES`.
        limit: see `score_tracks`.

    Returns:
        Scores by the name of the video, in the order given, then those of all videos together under
        `OVERALL`: counts are summed and ratios computed from the sums; identities and tracks of different
        videos are distinct.

    Raises:
        UsageError: as `score_tracks`, or two videos have the same name.
    """
    selected, limit = select_gate(gate, limit)
    metrics, scores, tracks = [], {}, 0
    for video in (TrackedVideo(*video) for video in videos):
        name = video.record.name
        if name in scores or name == OVERALL:
            raise UsageError(f"tracks of two videos named '{name}'; names must differ, also from {OVERALL}")
        accumulator, ids = _accumulate(video, selected, limit)
        metrics.append(_video_metrics(accumulator))
        tracks += len(ids)
        scores[name] = _track_scores(metrics[-1], gate=gate, limit=limit, tracks=len(ids))
    scores[OVERALL] = _track_scores(_overall_metrics(metrics), gate=gate, limit=limit, tracks=tracks)
    return scores


def _accumulate(video: TrackedVideo, gate: Gate, limit: float) -> tuple[MOTAccumulator, set[int]]:
    """Returns the events of the scored frames in order, and the ids of the tracks in these frames."""
    from motmetrics import MOTAccumulator

    accumulator, seen = MOTAccumulator(), set()
    for row in scored_frames(video):
        distances = gate.distances(row.target_boxes, row.track_boxes, limit)
        accumulator.update(row.targets, row.tracks, distances, frameid=row.frame)
        seen.update(row.tracks.tolist())
    return accumulator, seen


def _video_metrics(accumulator: MOTAccumulator) -> dict[str, Any]:
    """Returns `_METRICS` of one video and the intermediate values that sums over videos need."""
    from motmetrics import metrics

    host = metrics.create()
    return host.compute(accumulator, metrics=_METRICS, return_dataframe=False, return_cached=True)


def _overall_metrics(videos: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns `_METRICS` of all videos together.

    Takes the steps of `compute_many` of motmetrics, which itself configures the logging of the whole process.
    """
    from motmetrics import metrics

    # motmetrics weighs each MOTP by the matches of its video; without matches 0 × NaN would make the mean NaN
    videos = [v if v["num_detections"] else {**v, "motp": 0.0} for v in videos]
    return metrics.create().compute_overall(videos, metrics=_METRICS, return_dataframe=False)


def _track_scores(metrics: Mapping[str, Any], *, gate: str, limit: float, tracks: int) -> TrackScores:
    def ratio(name: str) -> float | None:
        return float(metrics[name]) if math.isfinite(metrics[name]) else None

    return TrackScores(
        gate=gate,
        limit=limit,
        mota=ratio("mota"),
        motp=ratio("motp"),
        idf1=ratio("idf1"),
        idp=ratio("idp"),
        idr=ratio("idr"),
        switches=int(metrics["num_switches"]),
        fragments=int(metrics["num_fragmentations"]),
        misses=int(metrics["num_misses"]),
        false_positives=int(metrics["num_false_positives"]),
        mostly_tracked=int(metrics["mostly_tracked"]),
        mostly_lost=int(metrics["mostly_lost"]),
        boxes=int(metrics["num_objects"]),
        targets=int(metrics["num_unique_objects"]),
        tracks=tracks,
        frames=int(metrics["num_frames"]),
    )
