"""The annotations of the source that is being processed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.evaluation.detection.evaluator import Evaluator
from pipeline.evaluation.detection.report import Report
from pipeline.structures.annotations import VideoRecord, load_coco, match_video, video_records
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.structures.results import Result
from pipeline.system.errors import UsageError

if TYPE_CHECKING:
    from pipeline.evaluation.tracking import TrackScores

LIVE_SECONDS, LIVE_SHARE = 2.0, 0.02
"""Least time between two live scores, and the most of all time that computing them may take."""


class GroundTruth:
    """One sequence of a COCO-video file: names its frames and scores what is found in them as it is found.

    Frames are counted from 0. Raises UsageError when the file is not COCO-video ground truth, or holds none
    of the frames from index `start` on that the source will give.
    """

    def __init__(self, path: Path, info: SourceInfo, *, start: int = 0):
        self.path = path
        table = load_coco(path)
        self._record = match_video(video_records(table), info.name, (info.width, info.height))
        self._table = _of_video(table, self._record)
        self._evaluator = Evaluator(self._table)  # refuses what cannot be scored before weights are loaded
        self._seen: list[int] = []
        self._live, self._next_live = "", 0.0
        self.not_annotated = 0
        """Frames added that have no image id."""
        self._check_frames(start, info.frame_count)

    def _check_frames(self, start: int, count: int | None) -> None:
        annotated, name = self._record.image_ids, self._record.name
        last = max(annotated, default=-1) if count is None else start + count - 1
        if not any(start <= frame <= last for frame in annotated):
            raise UsageError(f"the annotations of '{name}' have none of the frames {start} to {last}")
        if start == 0 and min(annotated) == 1 and max(annotated) == count:
            raise UsageError(f"the annotations of '{name}' count frames from 1; frame_id must count from 0")

    def image_id(self, frame: Frame) -> int | None:
        """The COCO image id of a frame; None for one that is not annotated."""
        return self._record.image_ids.get(frame.index)

    def category_ids(self, num_classes: int) -> dict[int, int] | None:
        """Label → category id, by order; None for a detector that has other classes than the annotations."""
        ids = sorted(category["id"] for category in self._table["categories"])
        return dict(enumerate(ids)) if num_classes == len(ids) else None

    def begin(self, num_classes: int) -> None:
        """Take results of a detector of so many classes from now on.

        One of another number of classes than the annotations have is scored class-agnostic.
        """
        by_class = self.category_ids(num_classes) is not None
        self._evaluator = Evaluator(self._table, classes=by_class)

    def add(self, result: Result) -> None:
        """Score one more frame, if it is annotated."""
        number = self.image_id(result.frame)
        if number is None:
            self.not_annotated += 1
        else:
            self._evaluator.add(number, result.detections)
            self._seen.append(result.frame.index)

    @property
    def frames(self) -> int:
        """Frames that were scored; those without targets count."""
        return len(self._seen)

    def live(self) -> str:
        """AP50 of the frames so far, in words; empty before the first target. Computed anew now and then."""
        began = time.monotonic()
        if began >= self._next_live:
            ap50 = self._evaluator.ap50()
            self._live = "" if ap50 is None else f"AP50 {ap50:.3f}"
            ended = time.monotonic()
            self._next_live = ended + max(LIVE_SECONDS, (ended - began) / LIVE_SHARE)
        return self._live

    def score(self, threshold: float) -> Report:
        """All numbers over the frames that were added; `threshold` is where one is needed."""
        return self._evaluator.report(threshold)

    def score_tracks(self, tracks: Path) -> dict[str, TrackScores]:
        """Scores of a MOT file over the frames that were added, by the name of the gate.

        Raises UsageError where targets cannot be told apart.
        """
        from pipeline.evaluation.tracking import GATES, track_scores

        return {gate: track_scores(self._record, tracks, gate=gate, frames=self._seen) for gate in GATES}


def _of_video(table: dict, record: VideoRecord) -> dict:
    """The part of a COCO dictionary that is about one video."""
    ids = set(record.image_ids.values())
    return {
        "videos": [video for video in table["videos"] if video["name"] == record.name],
        "images": [image for image in table["images"] if image["id"] in ids],
        "annotations": [row for row in table["annotations"] if row["image_id"] in ids],
        "categories": table["categories"],
    }
