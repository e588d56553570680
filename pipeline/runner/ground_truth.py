"""Ground truth of the source that is being processed: checked before a run, scored while it goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.evaluation.detection.evaluator import Evaluator
from pipeline.evaluation.detection.report import DetectionReport
from pipeline.structures.annotations import VideoRecord, load_coco, match_video, video_records
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.structures.results import Result
from pipeline.system.errors import UsageError

if TYPE_CHECKING:
    from pipeline.evaluation.tracking.scores import TrackScores

LIVE_SECONDS = 2.0
"""Minimum seconds between two live scores."""
LIVE_SHARE = 0.02
"""Maximum share of the time of a run that computing live scores may take."""


class SourceAnnotations:
    """The video of a COCO-video file that belongs to a source.

    Frames are counted from 0.

    Args:
        path: COCO-video JSON file.
        info: the source; its name and size select the video.
        start: index of the first frame that the source will give.

    Raises:
        UsageError: the file is not COCO-video ground truth, cannot be scored, or annotates none of the frames
            that the source will give.
    """

    def __init__(self, path: Path, info: SourceInfo, *, start: int = 0):
        self.path = path
        table = load_coco(path)
        self.record = match_video(video_records(table), info.name, (info.width, info.height))
        self._table = _of_video(table, self.record)
        self.evaluator(1)  # raises UsageError for what cannot be scored, before any weights are loaded
        self._check_frames(start, info.frame_count)

    def _check_frames(self, start: int, count: int | None) -> None:
        annotated, name = self.record.image_ids, self.record.name
        last = max(annotated, default=-1) if count is None else start + count - 1
        if not any(start <= frame <= last for frame in annotated):
            raise UsageError(f"the annotations of '{name}' have none of the frames {start} to {last}")
        if start == 0 and min(annotated) == 1 and max(annotated) == count:
            raise UsageError(f"the annotations of '{name}' count frames from 1; frame_id must count from 0")

    def image_id(self, frame: Frame) -> int | None:
        """Returns the COCO image id of a frame; None if it is not annotated."""
        return self.record.image_ids.get(frame.index)

    def category_ids(self, num_classes: int) -> dict[int, int] | None:
        """Maps labels to category ids, both in ascending order; None if the numbers of classes differ."""
        ids = sorted(category["id"] for category in self._table["categories"])
        return dict(enumerate(ids)) if num_classes == len(ids) else None

    def evaluator(self, num_classes: int) -> Evaluator:
        """Returns an empty evaluator, class-agnostic if the detector has another number of classes."""
        return Evaluator(self._table, classes=self.category_ids(num_classes) is not None)


class GroundTruth:
    """Scores the results of a run against the annotations of its source as they come.

    Args:
        annotations: the annotations of the source.
        num_classes: number of classes of the detector.
    """

    def __init__(self, annotations: SourceAnnotations, num_classes: int):
        self.path = annotations.path
        self.image_id = annotations.image_id
        self.category_ids = annotations.category_ids(num_classes)
        """Category id of each label; None if the numbers of classes differ."""
        self.not_annotated = 0
        """Number of frames added that have no image id."""
        self._record: VideoRecord = annotations.record
        self._evaluator = annotations.evaluator(num_classes)
        self._scored: list[int] = []
        self._live, self._next_live = "", 0.0

    def add(self, result: Result) -> None:
        """Scores one more frame if it is annotated."""
        number = self.image_id(result.frame)
        if number is None:
            self.not_annotated += 1
        else:
            self._evaluator.add(number, result.detections)
            self._scored.append(result.frame.index)

    @property
    def frames(self) -> int:
        """Number of frames scored, with or without targets."""
        return len(self._scored)

    def live(self) -> str:
        """Returns the AP50 of the frames so far as text, empty before the first target.

        The value is computed at most every `LIVE_SECONDS` and takes at most `LIVE_SHARE` of the time.
        """
        began = time.monotonic()
        if began >= self._next_live:
            ap50 = self._evaluator.ap50()
            self._live = "" if ap50 is None else f"AP50 {ap50:.3f}"
            ended = time.monotonic()
            self._next_live = ended + max(LIVE_SECONDS, (ended - began) / LIVE_SHARE)
        return self._live

    def score(self, threshold: float) -> DetectionReport:
        """Returns the detection metrics of the frames added, with the operating point at a score."""
        return self._evaluator.report(threshold)

    def score_tracks(self, tracks: Path) -> dict[str, TrackScores]:
        """Returns the scores of a MOT file over the frames added, by the name of the gate.

        Raises UsageError if the annotations do not tell targets apart.
        """
        from pipeline.evaluation.tracking.gates import GATES
        from pipeline.evaluation.tracking.scoring import score_tracks

        return {gate: score_tracks(self._record, tracks, gate=gate, frames=self._scored) for gate in GATES}


def _of_video(table: dict, record: VideoRecord) -> dict:
    """Returns the part of a COCO dictionary that describes one video."""
    ids = set(record.image_ids.values())
    return {
        "videos": [video for video in table["videos"] if video["name"] == record.name],
        "images": [image for image in table["images"] if image["id"] in ids],
        "annotations": [row for row in table["annotations"] if row["image_id"] in ids],
        "categories": table["categories"],
    }
