"""Runs a tracker over scenes and scores its tracks, with the metrics of the package trackeval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from pipeline.evaluation.tracking.frame_rows import FrameRows, TrackedVideo, scored_frames
from pipeline.evaluation.tracking.gates import GATES
from pipeline.evaluation.tracking.hota import trackeval_data
from pipeline.evaluation.tracking.presence import Presence, presence, sum_presence
from pipeline.evaluation.tracking.track_rows import TrackRows
from pipeline.structures.frame import Frame
from pipeline.structures.protocols import Tracker
from pipeline.structures.tracks import TrackState
from tests.support.track_scenarios import SCENARIOS, TrackScene, make_scene

SEEDS = (3, 4, 5)
"""Seeds of reported numbers. Settings are chosen on others."""
SYNTHETIC_LIMIT, REAL_LIMIT = 3.0, 5.0
"""Greatest distance between the centres of a target and its track in pixels."""


class Scores(NamedTuple):
    """Metrics of one or several scenes together; rates are None without what they are a share of."""

    idf1: float
    hota: float | None
    """None if it was not asked for."""
    mota: float
    switches: int
    coverage: float | None
    false_per_minute: float | None
    missed: int
    """Targets with less than a fifth of their boxes covered."""
    targets: int
    first_confirmation: float | None
    """Seconds."""


def tracked(tracker: Tracker, scene: TrackScene, *, coasting: bool = False) -> TrackRows:
    """Returns the rows of the confirmed tracks of a scene, those of coasting ones on request."""
    record, frames, ids, boxes = scene.record, [], [], []
    picture = np.zeros((record.height, record.width), np.uint8)  # trackers only use its size
    states = [TrackState.CONFIRMED, *([TrackState.COASTING] if coasting else [])]
    tracker.reset()
    for index, (detections, motion) in enumerate(zip(scene.detections, scene.motion, strict=True)):
        time = Fraction(index) / Fraction(record.fps)
        frame = Frame(image=picture, index=index, pts=time, source=record.name, motion=motion)
        tracks = tracker.update(detections, frame)
        kept = np.isin(tracks.state, states)
        frames += [index] * int(kept.sum())
        ids += tracks.ids[kept].tolist()
        boxes.append(tracks.boxes[kept])
    return TrackRows(frames, ids, np.concatenate(boxes))


class SceneScorer:
    """Scores the tracks of scenes, by the distance of centres in pixels."""

    def __init__(self, limit: float, *, hota: bool = True):
        from trackeval.metrics import CLEAR, HOTA, Identity

        quiet = {"PRINT_CONFIG": False}  # 0.5 is the similarity at the limit, and the threshold of both
        self._metrics: dict[str, Any] = {"clear": CLEAR(quiet), "identity": Identity(quiet)}
        if hota:
            self._metrics["hota"] = HOTA()
        self._limit = limit
        self._results: list[dict[str, Any]] = []
        self._presence: list[Presence] = []
        self._uncounted = 0

    def add(self, scene: TrackScene, rows: TrackRows) -> None:
        """Adds the tracks of a scene."""
        found: Sequence[FrameRows] = list(scored_frames(TrackedVideo(scene.record, rows)))
        gate = GATES["centre"]
        data = trackeval_data(found, gate, self._limit)
        self._results.append({name: m.eval_sequence(data) for name, m in self._metrics.items()})
        seen = presence(found, gate, self._limit, scene.record.fps)
        # where unlabelled things fly, neither false tracks nor the time that they are counted over
        self._presence.append(seen if scene.counts_false else replace(seen, false_tracks=0, seconds=0.0))

    def scores(self) -> Scores:
        """Returns the metrics of all scenes together: counts are summed."""
        found = {
            name: metric.combine_sequences({i: result[name] for i, result in enumerate(self._results)})
            for name, metric in self._metrics.items()
        }
        seen = sum_presence(self._presence)
        return Scores(
            idf1=float(found["identity"]["IDF1"]),
            hota=float(np.mean(found["hota"]["HOTA"])) if "hota" in found else None,
            mota=float(found["clear"]["MOTA"]),
            switches=int(found["clear"]["IDSW"]),
            coverage=seen.coverage,
            false_per_minute=seen.false_per_minute,
            missed=seen.missed,
            targets=seen.targets,
            first_confirmation=seen.first_confirmation,
        )


def score(
    build_tracker: Callable[[], Tracker],
    scenarios: Iterable[str] = tuple(SCENARIOS),
    seeds: Iterable[int] = SEEDS,
    *,
    hota: bool = True,
    coasting: bool = False,
) -> dict[str, Scores]:
    """Scores a tracker on scenarios; returns scores over all seeds by the name of the scenario.

    Args:
        build_tracker: returns a new tracker.
        scenarios: names of `SCENARIOS`.
        seeds: of the scenes.
        hota: whether HOTA is computed, which takes longest.
        coasting: whether predicted rows count.
    """
    seeds = tuple(seeds)
    return {
        name: score_scenes(
            build_tracker, [make_scene(name, seed) for seed in seeds], hota=hota, coasting=coasting
        )
        for name in scenarios
    }


def score_scenes(
    build_tracker: Callable[[], Tracker],
    scenes: Iterable[TrackScene],
    *,
    limit: float = SYNTHETIC_LIMIT,
    hota: bool = True,
    coasting: bool = False,
) -> Scores:
    """Scores a tracker on scenes together; see `score`. `limit` is the gate in pixels."""
    scorer = SceneScorer(limit, hota=hota)
    for scene in scenes:
        scorer.add(scene, tracked(build_tracker(), scene, coasting=coasting))
    return scorer.scores()


def mean_scores(scores: Mapping[str, Scores]) -> Scores:
    """Returns the means of ratios and rates over scenarios, and the sums of counts.

    A mean leaves out scenarios in which the value is undefined.
    """
    columns = {name: [getattr(row, name) for row in scores.values()] for name in Scores._fields}
    means = {
        name: float(np.mean([v for v in values if v is not None]))
        if any(v is not None for v in values)
        else None
        for name, values in columns.items()
    }
    sums = {name: sum(columns[name]) for name in ("switches", "missed", "targets")}
    return Scores(**{**means, **sums})
