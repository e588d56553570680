"""Scores tracks against annotated targets with motmetrics and trackeval, on the distances of a gate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.evaluation.tracking.frame_rows import FrameRows, TrackedVideo, scored_frames
from pipeline.evaluation.tracking.gates import Gate, select_gate
from pipeline.evaluation.tracking.hota import HotaScores
from pipeline.evaluation.tracking.presence import Presence, presence, sum_presence
from pipeline.evaluation.tracking.scores import TrackScores
from pipeline.evaluation.tracking.track_rows import TrackRows
from pipeline.evaluation.tracking.tubes import TubeAP
from pipeline.structures.annotations import VideoRecord
from pipeline.system.errors import UsageError
from pipeline.system.packages import is_installed

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
    rate: float | None = None,
) -> TrackScores:
    """Scores the tracks of one video against its annotated targets.

    A frame is scored if it is annotated, with or without targets, and is in `frames`. Tracks in other frames
    are ignored. For missing identities see `target_identities`.

    MOTA and the number of false tracks assume that the annotations are complete. If they label one target per
    frame and more are visible, as in drone-ir, every track row on an unlabelled target is a false positive:
    compare trackers by it on the same data only, together with IDR. In drone-ir one identity also spans each
    clip, and a switch is counted when the label moves from one target to another.

    Args:
        record: the ground truth. tracks: rows, or the path of a MOT file (see `read_tracks`). gate: a name in
        `GATES`. limit: limit of the gate: lowest IoU in (0, 1], or greatest distance between centres in
        pixels. None for
            its default, IoU 0.5 or 5 px.
        frames: indices of the processed frames, from 0; None for all. Annotated frames that a run did not
            process would count as misses.
        rate: frames per second; None for that of the record.

    Raises:
        UsageError: the gate is unknown, the limit is out of range, the file is not a MOT file, or targets
            without identities are ambiguous.
    """
    if rate is not None:
        record = replace(record, fps=rate)
    return _Scorer(gate, limit).add(TrackedVideo(record, tracks, frames))


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
    scorer, scores = _Scorer(gate, limit), {}
    for video in (TrackedVideo(*video) for video in videos):
        name = video.record.name
        if name in scores or name == OVERALL:
            raise UsageError(f"tracks of two videos named '{name}'; names must differ, also from {OVERALL}")
        scores[name] = scorer.add(video)
    scores[OVERALL] = scorer.overall()
    return scores


class _Scorer:
    """Scores videos one by one and keeps what the scores of all together need."""

    def __init__(self, gate: str, limit: float | None):
        self._name = gate
        self._gate, self._limit = select_gate(gate, limit)
        self._metrics: list[dict[str, Any]] = []
        self._presence: list[Presence] = []
        self._tubes = TubeAP()
        self._tracks = 0
        self._hota = HotaScores() if is_installed("trackeval") else None

    def add(self, video: TrackedVideo) -> TrackScores:
        """Returns the scores of one more video."""
        rows = list(scored_frames(video))
        accumulator = _accumulate(rows, self._gate, self._limit)
        self._metrics.append(_video_metrics(accumulator))
        self._presence.append(presence(rows, self._gate, self._limit, video.record.fps or None))
        tracks = len({number for row in rows for number in row.tracks.tolist()})
        self._tracks += tracks
        hota = self._hota.add(rows, self._gate, self._limit) if self._hota else {}
        tubes = self._tubes.add(rows, self._gate, self._limit)
        return self._scores(self._metrics[-1], self._presence[-1], hota, tubes, tracks)

    def overall(self) -> TrackScores:
        """Returns the scores of all videos together."""
        hota = self._hota.overall() if self._hota and self._metrics else {}
        metrics, seen = _overall_metrics(self._metrics), sum_presence(self._presence)
        return self._scores(metrics, seen, hota, self._tubes.overall(), self._tracks)

    def _scores(
        self,
        metrics: Mapping[str, Any],
        seen: Presence,
        hota: Mapping[str, Any],
        tubes: tuple[float | None, float | None],
        tracks: int,
    ) -> TrackScores:
        """Gathers the metrics; HOTA is undefined if there are neither targets nor tracks."""
        defined = metrics["num_objects"] or metrics["num_false_positives"]
        return TrackScores(
            gate=self._name,
            limit=self._limit,
            **_clear_and_identity(metrics),
            tracks=tracks,
            **(hota if defined else {}),
            coverage=seen.coverage,
            missed_targets=seen.missed,
            first_confirmation=seen.first_confirmation,
            false_tracks=seen.false_tracks,
            false_tracks_per_minute=seen.false_per_minute,
            false_tracks_per_hour=None if seen.false_per_minute is None else 60 * seen.false_per_minute,
            tube_ap=tubes[0],
            tube_ap50=tubes[1],
        )


def _accumulate(rows: Sequence[FrameRows], gate: Gate, limit: float) -> MOTAccumulator:
    """Returns the events of the scored frames in order."""
    from motmetrics import MOTAccumulator

    accumulator = MOTAccumulator()
    for row in rows:
        distances = gate.distances(row.target_boxes, row.track_boxes, limit)
        accumulator.update(row.targets, row.tracks, distances, frameid=row.frame)
    return accumulator


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


def _clear_and_identity(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metrics of motmetrics by the names of the fields of `TrackScores`; None for NaN."""
    counts = {
        "switches": "num_switches",
        "fragments": "num_fragmentations",
        "misses": "num_misses",
        "false_positives": "num_false_positives",
        "mostly_tracked": "mostly_tracked",
        "mostly_lost": "mostly_lost",
        "boxes": "num_objects",
        "targets": "num_unique_objects",
        "frames": "num_frames",
    }
    ratios = {name: float(metrics[name]) for name in ("mota", "motp", "idf1", "idp", "idr")}
    found: dict[str, Any] = {name: value if math.isfinite(value) else None for name, value in ratios.items()}
    return {**found, **{name: int(metrics[key]) for name, key in counts.items()}}
