"""Real clips with the detections of a network as scenes for trackers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.evaluation.detection.predictions import load_results
from pipeline.sources.opening import open_source
from pipeline.stages.camera_motion import CameraMotion
from pipeline.structures.annotations import VideoRecord, video_records
from pipeline.structures.boxes import from_xywh
from pipeline.structures.coco_tables import load_coco
from pipeline.structures.detections import Detections
from tests.support.track_scenarios import TrackScene

UNLABELLED = frozenset(
    f"IR_{name}"
    for name in (
        *("AIRPLANE_024", "AIRPLANE_025", "BIRD_024", "BIRD_027", "BIRD_030", "BIRD_031"),
        *("DRONE_052", "DRONE_053", "DRONE_054", "DRONE_055", "DRONE_056"),
    )
)
"""Clips of drone-ir val in which things fly that have no label: birds, an insect, distant aeroplanes. Found
by looking at the greatest difference of each pixel from its median over the clip, not by any tracker."""
MIN_SCORE = 0.05
"""Detections below are left out, as in a run."""


def real_scenes(
    root: Path, detections: Path, *, split: str = "val", motion: Path | None = None
) -> list[TrackScene]:
    """Returns the annotated videos of a data set with COCO results as detections.

    Args:
        root: folder of the data set.
        detections: COCO results on the split.
        split: annotations/SPLIT.json are the labels.
        motion: folder that keeps the motion of the camera in each video; None for standing cameras.

    Raises:
        MoteError: a file is missing or malformed.
    """
    records = video_records(load_coco(root / "annotations" / f"{split}.json"))
    found = by_image(load_results(detections))
    return [_scene(record, found, root, motion) for record in records]


def by_image(rows: Iterable[dict], conf: float = MIN_SCORE) -> dict[int, Detections]:
    """Groups COCO results with a score of at least `conf` by image id."""
    grouped: dict[int, list[dict]] = {}
    for row in rows:
        if row["score"] >= conf:
            grouped.setdefault(row["image_id"], []).append(row)
    return {
        image: Detections(
            from_xywh([row["bbox"] for row in found]).astype(np.float32),
            np.array([row["score"] for row in found], np.float32),
            np.zeros(len(found), np.int64),
        )
        for image, found in grouped.items()
    }


def _scene(record: VideoRecord, found: dict[int, Detections], root: Path, motion: Path | None) -> TrackScene:
    frames = range(len(record))
    none = Detections.empty()
    return TrackScene(
        record=replace(record, fps=record.fps or 30.0),
        detections=tuple(found.get(record.image_ids.get(frame, -1), none) for frame in frames),
        motion=(None,) * len(record) if motion is None else camera_motion(record, root, motion),
        counts_false=record.name not in UNLABELLED,
    )


def camera_motion(record: VideoRecord, root: Path, folder: Path) -> tuple[np.ndarray | None, ...]:
    """Returns the motion of the camera in each frame; it is kept in `folder/NAME.npy`."""
    path = folder / f"{record.name}.npy"
    if not path.exists():
        place = root / record.file_name if record.file_name else (root / record.files[0]).parent
        estimate, steps = CameraMotion(), np.full((len(record), 2, 3), np.nan)
        with open_source(place) as source:
            for frame in source:
                step = estimate(frame).motion
                if step is not None and frame.index < len(steps):
                    steps[frame.index] = step
        folder.mkdir(parents=True, exist_ok=True)
        np.save(path, steps)
    return tuple(None if np.isnan(step).any() else step for step in np.load(path))
