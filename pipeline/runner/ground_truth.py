"""Ground truth of the source that is being processed: checked before a run, scored while it goes on."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.evaluation.detection.evaluator import Evaluator
from pipeline.evaluation.detection.report import DetectionReport
from pipeline.evaluation.truth.box_conventions import suspect_boxes
from pipeline.evaluation.truth.frame_match import AnnotatedSource, align, with_videos
from pipeline.evaluation.truth.video_match import choose_video, choose_videos, is_named_like
from pipeline.structures.annotations import VideoRecord, video_records
from pipeline.structures.coco_tables import load_coco, sorted_categories
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.structures.results import Result
from pipeline.system.errors import UsageError
from pipeline.system.packages import require_package
from pipeline.system.terminal import printable

if TYPE_CHECKING:
    from pipeline.evaluation.tracking.scores import TrackScores

LIVE_SECONDS = 2.0
"""Minimum seconds between two live scores."""
LIVE_SHARE = 0.02
"""Maximum share of the time of a run that computing live scores may take."""

log = logging.getLogger(__name__)


class SourceAnnotations:
    """The video of a COCO-video file that belongs to a source, with the frame numbers of the source.

    Args:
        path: the COCO-video JSON file.
        table: its content.
        video: the row of `videos` that belongs to the source.
        source: what the source tells about itself.

    Raises:
        UsageError: the video is not COCO-video ground truth, cannot be scored, contradicts the source, or
            annotates none of the frames that the source will give.
    """

    def __init__(self, path: Path, table: dict, video: dict, source: AnnotatedSource):
        self.path = path
        self._table, self.remarks = align(table, video, source)
        (self.record,) = video_records(self._table)
        _require_size(self.record, source)
        self.evaluator(1)  # raises UsageError for what cannot be scored, before any weights are loaded
        self._check_frames(source)
        self.remarks += suspect_boxes([self.record])

    def _check_frames(self, source: AnnotatedSource) -> None:
        annotated, name = self.record.image_ids, self.record.name
        start, stride, count = source.start, source.stride, source.frame_count
        last = max(annotated, default=-1) if count is None else start + (count - 1) * stride
        if not any(frame in range(start, last + 1, stride) for frame in annotated):
            some = f" that are processed, one in {stride}" if stride > 1 else ""
            raise UsageError(f"the annotations of '{name}' have none of the frames {start} to {last}{some}")
        if stride == 1 and start == 0 and min(annotated) == 1 and max(annotated) == count:
            raise UsageError(f"the annotations of '{name}' count frames from 1; frame_id must count from 0")

    def image_id(self, frame: Frame) -> int | None:
        """Returns the COCO image id of a frame; None if it is not annotated."""
        return self.record.image_ids.get(frame.index)

    def category_ids(self, num_classes: int) -> dict[int, int] | None:
        """Maps labels to category ids, both in ascending order; None if the numbers of classes differ."""
        ids = [category["id"] for category in sorted_categories(self._table)]
        return dict(enumerate(ids)) if num_classes == len(ids) else None

    def evaluator(self, num_classes: int) -> Evaluator:
        """Returns an empty evaluator, class-agnostic if the detector has another number of classes."""
        return Evaluator(self._table, classes=self.category_ids(num_classes) is not None)

    def of_labels(self, labels: Sequence[int] | None, num_classes: int) -> SourceAnnotations:
        """Returns the annotations of these labels; all for None, or if the numbers of classes differ."""
        ids = self.category_ids(num_classes)
        if labels is None or ids is None:
            return self
        kept = {ids[label] for label in labels}
        known = copy.copy(self)
        rows = [row for row in self._table["annotations"] if row.get("category_id") in kept]
        known._table = {**self._table, "annotations": rows}
        (known.record,) = video_records(known._table)
        return known


def read_annotations(
    path: Path, sources: Sequence[AnnotatedSource], *, among: int = 1, named: str = ""
) -> list[SourceAnnotations | None]:
    """Reads the annotations of sources from a COCO-video file; None for a source that it does not annotate.

    Remarks about what was decided are logged as warnings.

    Args:
        path: the file.
        sources: the sources that are open.
        among: number of sources of the run. One alone must be annotated; of several, each is by its name.
        named: name of the video of a single source, whatever the source is called; empty: that of its name.

    Raises:
        UsageError: the sources and the videos do not fit, or as `SourceAnnotations` raises it.
    """
    if named and among > 1:
        raise UsageError(f"--annotated-as '{named}' is the video of one source, and {among} are given")
    table = load_coco(path)
    remarks: list[str] = []
    if not table.get("videos"):
        table, remarks = with_videos(table, numbered=not all(source.pictures for source in sources))
    videos: Sequence[dict | None]
    if among == 1:
        videos = [choose_video(table, source, named=named) for source in sources]
    else:
        videos = choose_videos(table, sources, complete=among == len(sources))
    found = []
    for video, source in zip(videos, sources, strict=True):
        known = SourceAnnotations(path, table, video, source) if video else None
        found.append(known)
        texts = [*remarks, *known.remarks] if known else ["there are none, so it is not scored"]
        if video and not named and not is_named_like(video, source):
            texts.insert(0, f"those of '{video['name']}', whose file names fit the pictures")
        for text in texts:
            log.warning("annotations of %s: %s", printable(source.name), printable(text))
    return found


def annotated_source(
    info: SourceInfo, *, start: int = 0, stride: int = 1, pictures: Sequence[str] = ()
) -> AnnotatedSource:
    """Returns what a source tells about itself; `pictures` are the image files of its frames, if any."""
    return AnnotatedSource(info.name, info.width, info.height, start, info.frame_count, pictures, stride)


def _require_size(record: VideoRecord, source: AnnotatedSource) -> None:
    if (record.width, record.height) != (source.width, source.height):
        raise UsageError(
            f"'{Path(source.name).name}' is {source.width}x{source.height}, "
            f"annotated as {record.width}x{record.height}"
        )


class GroundTruth:
    """Scores the results of a run against the annotations of its source as they come.

    Args:
        annotations: the annotations of the source.
        num_classes: number of classes of the detector.
        labels: labels of the detections that are kept; the targets of others are not scored. None for all.
    """

    def __init__(
        self, annotations: SourceAnnotations, num_classes: int, *, labels: Sequence[int] | None = None
    ):
        require_package("motmetrics", "--annotations")  # used at the end of the run
        annotations = annotations.of_labels(labels, num_classes)
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

    def score_tracks(self, tracks: Path, rate: float | None = None) -> dict[str, TrackScores]:
        """Returns the scores of a MOT file over the frames added, by the name of the gate.

        `rate` are the frames per second of the source; None for those of the annotations.

        Raises UsageError if the annotations do not tell targets apart.
        """
        from pipeline.evaluation.tracking.gates import GATES
        from pipeline.evaluation.tracking.scoring import score_tracks

        return {
            gate: score_tracks(self._record, tracks, gate=gate, frames=self._scored, rate=rate)
            for gate in GATES
        }
