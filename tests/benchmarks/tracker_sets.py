"""Real clips with the detections of a network as scenes for trackers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.evaluation.detection.predictions import load_results
from pipeline.structures.annotations import VideoRecord, video_records
from pipeline.structures.boxes import from_xywh
from pipeline.structures.coco_tables import load_coco
from pipeline.structures.detections import Detections
from tests.support.track_scenarios import TrackScene

UNLABELLED: frozenset[str] = frozenset()
"""Clips in which things fly that have no label."""
MIN_SCORE = 0.05
"""Detections below are left out, as in a run."""


def real_scenes(root: Path, detections: Path, split: str = "val") -> list[TrackScene]:
    """Returns the annotated videos of a data set with COCO results as detections.

    Raises UsageError if a file is malformed.
    """
    records = video_records(load_coco(root / "annotations" / f"{split}.json"))
    found = by_image(load_results(detections))
    return [_scene(record, found) for record in records]


def by_image(rows: Iterable[dict]) -> dict[int, Detections]:
    """Groups COCO results with a score of at least `MIN_SCORE` by image id."""
    grouped: dict[int, list[dict]] = {}
    for row in rows:
        if row["score"] >= MIN_SCORE:
            grouped.setdefault(row["image_id"], []).append(row)
    return {
        image: Detections(
            from_xywh([row["bbox"] for row in found]).astype(np.float32),
            np.array([row["score"] for row in found], np.float32),
            np.zeros(len(found), np.int64),
        )
        for image, found in grouped.items()
    }


def _scene(record: VideoRecord, found: dict[int, Detections]) -> TrackScene:
    detections = [
        found.get(record.image_ids.get(frame, -1), Detections.empty()) for frame in range(len(record))
    ]
    return TrackScene(
        record=replace(record, fps=record.fps or 30.0),
        detections=tuple(detections),
        motion=(None,) * len(record),
        counts_false=record.name not in UNLABELLED,
    )
