"""The annotations of the source that is being processed."""

from __future__ import annotations

import json
from pathlib import Path

from datasets.records import load_coco, match_video, video_records
from pipeline.errors import UsageError
from pipeline.evaluate import Scores, evaluate
from pipeline.frame import Frame, SourceInfo


class GroundTruth:
    """One sequence of a COCO-video file: names its frames and scores what was found in them.

    Frames are counted from 0. Raises UsageError when the file is not COCO-video ground truth, or holds none
    of the frames from index `start` on that the source will give.
    """

    def __init__(self, path: Path, info: SourceInfo, *, start: int = 0):
        self._table = load_coco(path)
        self._record = match_video(video_records(self._table), info.name, (info.width, info.height))
        self._seen: list[int] = []
        self.not_annotated = 0
        """Frames asked for that have no image id."""
        self._check_frames(start, info.frame_count)

    def _check_frames(self, start: int, count: int | None) -> None:
        annotated, name = self._record.image_ids, self._record.name
        last = max(annotated, default=-1) if count is None else start + count - 1
        if not any(start <= frame <= last for frame in annotated):
            raise UsageError(f"the annotations of '{name}' have none of the frames {start} to {last}")
        if start == 0 and min(annotated) == 1 and max(annotated) == count:
            raise UsageError(f"the annotations of '{name}' count frames from 1; frame_id must count from 0")

    def image_id(self, frame: Frame) -> int | None:
        """The COCO image id of a frame; None for one that is not annotated. Frames asked for are scored."""
        number = self._record.image_ids.get(frame.index)
        if number is None:
            self.not_annotated += 1
        else:
            self._seen.append(number)
        return number

    def category_ids(self, num_classes: int) -> dict[int, int] | None:
        """Label → category id, by order; None for a detector that has other classes than the annotations."""
        ids = sorted(category["id"] for category in self._table["categories"])
        return dict(enumerate(ids)) if num_classes == len(ids) else None

    def score(self, detections: Path, num_classes: int) -> Scores:
        """Scores of a COCO results file over the frames seen, those without targets included.

        A detector of another number of classes than the annotations have is scored class-agnostic.
        """
        results = json.loads(detections.read_text(encoding="utf-8"))
        by_class = self.category_ids(num_classes) is not None
        return evaluate(self._table, results, image_ids=self._seen, classes=by_class)
