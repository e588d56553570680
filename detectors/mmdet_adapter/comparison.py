"""Compares our evaluation with mmdet's on the same files.

Detections: AP50, AP, AP75 and AR100 by `pipeline.evaluation.detection.evaluator` and by CocoMetric. Both use
the best 100 boxes of a frame and category. CocoMetric rounds to three decimals; the unrounded values are
compared.

Tracks: MOTA, IDF1 and their parts by `pipeline.evaluation.tracking.scoring` (IoU of 0.5 or more) and by
MOTChallengeMetric. They differ in three points, two of which are compensated here:

- MOTChallengeMetric truncates annotated boxes to whole pixels, which changes the IoU of small targets by
  tenths. IoU is invariant to scale, so it is given boxes that are `BOX_SCALE` times larger.
- It needs a target in each video; videos without any are left out on both sides.
- If several tracks match a target, it prefers that of the previous frame, then the highest IoU; ours prefers
  the last track of the target, also after a gap. MOTA and the number of switches may therefore differ; with
  one target per frame this takes two tracks on it and a gap. IDF1 is not affected.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from detectors.mmdet_adapter import installation
from pipeline.evaluation.detection.evaluator import evaluate
from pipeline.evaluation.tracking.identities import target_identities
from pipeline.evaluation.tracking.scoring import OVERALL, TrackedVideo, score_videos
from pipeline.evaluation.tracking.track_rows import TrackRows, read_tracks
from pipeline.structures.annotations import VideoRecord
from pipeline.structures.boxes import from_xywh
from pipeline.system.errors import UsageError

if TYPE_CHECKING:
    from mmdet.structures import DetDataSample

BOX_SCALE = 2.0**20
"""A power of two, so that boxes stay exact; the truncation is then less than a millionth of a pixel."""


class Comparison(NamedTuple):
    """A metric by both evaluations."""

    name: str
    ours: float
    theirs: float

    @property
    def difference(self) -> float:
        """Ours minus theirs."""
        return self.ours - self.theirs


def select_frames(table: dict, *, stride: int = 1, class_agnostic: bool = False) -> dict:
    """Returns the part of a COCO(-video) dictionary for every `stride`-th annotated frame of each video.

    Images are sorted by video, frame and id. With `class_agnostic` all categories become the one with the
    lowest id.
    """
    images = sorted(table["images"], key=lambda i: (i.get("video_id", 0), i.get("frame_id", 0), i["id"]))
    videos: dict[Any, list[dict]] = {}
    for image in images:
        videos.setdefault(image.get("video_id"), []).append(image)
    images = [image for frames in videos.values() for image in frames[::stride]]
    ids = {image["id"] for image in images}
    rows = [row for row in table["annotations"] if row["image_id"] in ids]
    categories = sorted(table["categories"], key=lambda category: category["id"])
    if class_agnostic:
        categories = categories[:1]
        rows = [{**row, "category_id": categories[0]["id"]} for row in rows]
    categories = [{"name": str(c["id"]), **c} for c in categories]
    return {**table, "images": images, "annotations": rows, "categories": categories}


def compare_detections(
    table: dict, results: Sequence[dict], *, stride: int = 1, class_agnostic: bool = False
) -> list[Comparison]:
    """Evaluates COCO results on a COCO dictionary by both; `stride` and `class_agnostic` as `select_frames`.

    Results on other images are ignored. Raises UsageError if a result is invalid or none is left.
    """
    table = select_frames(table, stride=stride, class_agnostic=class_agnostic)
    ids = {image["id"] for image in table["images"]}
    results = [row for row in results if row.get("image_id") in ids]
    if class_agnostic:
        results = [{**row, "category_id": table["categories"][0]["id"]} for row in results]
    if not results:
        raise UsageError("no detection is on an annotated image; give those of the same dataset")
    ours = evaluate(table, results)
    theirs = coco_metric(table, results)
    names = {"AP50": "ap50", "AP": "ap", "AP75": "ap75", "AR100": "ar100"}
    return [Comparison(name, getattr(ours, field), theirs[name]) for name, field in names.items()]


def coco_metric(table: dict, results: Sequence[dict]) -> dict[str, float]:
    """Returns the unrounded metrics of mmdet's CocoMetric."""
    installation.prepare()
    from mmdet.evaluation import CocoMetric

    labels = {category["id"]: number for number, category in enumerate(table["categories"])}
    by_image: dict[Any, list[dict]] = {image["id"]: [] for image in table["images"]}
    for row in results:
        by_image[row["image_id"]].append(row)
    with (
        TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        _recorded_evaluations() as evaluations,
    ):
        truth = Path(folder, "truth.json")
        truth.write_text(json.dumps(_with_areas(table)), encoding="utf-8")
        metric = CocoMetric(ann_file=str(truth), proposal_nums=(1, 10, 100))
        metric.dataset_meta = {"classes": tuple(category["name"] for category in table["categories"])}
        for image in table["images"]:
            size = (image.get("height", 0), image.get("width", 0))
            rows = by_image[image["id"]]
            boxes = torch.from_numpy(from_xywh(np.array([row["bbox"] for row in rows], dtype=np.float64)))
            predicted = {
                "bboxes": boxes,
                "scores": torch.tensor([row["score"] for row in rows], dtype=torch.float64),
                "labels": torch.tensor([labels[row["category_id"]] for row in rows], dtype=torch.int64),
            }
            metric.process({}, [{"pred_instances": predicted, "img_id": image["id"], "ori_shape": size}])
        metric.evaluate(len(table["images"]))
    stats = evaluations[-1].stats
    return {name: float(stats[index]) for name, index in {"AP": 0, "AP50": 1, "AP75": 2, "AR100": 8}.items()}


def _with_areas(table: dict) -> dict:
    """Returns the dictionary with the fields that pycocotools expects in each annotation."""
    rows = [
        {"iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3], **row, "id": number}
        for number, row in enumerate(table["annotations"], start=1)
    ]
    return {"info": {}, **table, "annotations": rows}


@contextlib.contextmanager
def _recorded_evaluations() -> Iterator[list]:
    """Yields a list that collects the COCOeval objects that CocoMetric creates in the block.

    CocoMetric does not keep them and returns rounded values only.
    """
    from mmdet.evaluation.metrics import coco_metric as module

    evaluations: list = []
    original = module.COCOeval

    def record(*arguments: Any, **options: Any) -> Any:
        evaluations.append(original(*arguments, **options))
        return evaluations[-1]

    module.COCOeval = record
    try:
        yield evaluations
    finally:
        module.COCOeval = original


def compare_tracks(
    records: Sequence[VideoRecord], tracks: Mapping[str, TrackRows | Path]
) -> list[Comparison]:
    """Evaluates tracks, or MOT files, by both; `tracks` maps names of videos to them.

    Videos that are missing in `tracks` are left out. Raises UsageError as
    `pipeline.evaluation.tracking.scoring.score_tracks`, and if no video is left.
    """
    videos = [
        TrackedVideo(record, source if isinstance(source, TrackRows) else read_tracks(source))
        for record in records
        if (source := tracks.get(record.name)) is not None and any(map(len, record.boxes))
    ]
    if not videos:
        raise UsageError(
            "no file of tracks belongs to a video with targets; name the files NAME-OF-VIDEO.txt"
        )
    ours = score_videos(videos)[OVERALL]
    theirs = mot_challenge_metric(videos)
    names = {"MOTA": "mota", "IDF1": "idf1", "IDP": "idp", "IDR": "idr"}
    rows = [
        Comparison(name, _zero_if_none(getattr(ours, field)), theirs[name]) for name, field in names.items()
    ]
    counts = {"IDSW": "switches", "FN": "misses", "FP": "false_positives"}
    return rows + [Comparison(field, getattr(ours, field), theirs[name]) for name, field in counts.items()]


def _zero_if_none(value: float | None) -> float:
    """Returns 0 for None: ours for a ratio without denominator, for which theirs is 0."""
    return 0.0 if value is None else value


def mot_challenge_metric(videos: Sequence[TrackedVideo]) -> dict[str, float]:
    """Returns the metrics of mmdet's MOTChallengeMetric over all annotated frames of the videos."""
    installation.prepare("trackeval")
    from mmdet.evaluation import MOTChallengeMetric

    with contextlib.redirect_stdout(io.StringIO()):
        # the only benchmark that filters neither targets nor tracks
        metric = MOTChallengeMetric(metric=["CLEAR", "Identity"], benchmark="MOT15")
        for number, video in enumerate(videos):
            metric.process({}, [{"video_data_samples": list(_samples(video, f"video-{number}"))}])
        return {name: float(value) for name, value in _without_prefix(metric.evaluate(len(videos))).items()}


def _without_prefix(numbers: Mapping[str, float]) -> dict[str, float]:
    """Returns the values with the prefix of the metric removed from their names."""
    return {name.rpartition("/")[2]: value for name, value in numbers.items()}


def _samples(video: TrackedVideo, name: str) -> Iterator[DetDataSample]:
    """Yields the annotated frames of a video as data samples of mmdet."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    record, rows = video.record, video.tracks
    assert isinstance(rows, TrackRows)  # `compare_tracks` has read the files
    targets, frames = target_identities(record), sorted(record.image_ids)
    for number, frame in enumerate(frames):
        in_frame = rows.frames == frame
        annotated = zip(targets[frame].tolist(), (record.boxes[frame] * BOX_SCALE).tolist(), strict=True)
        instances = [
            {"instance_id": target, "bbox": box, "mot_conf": 1, "category_id": 1, "visibility": 1}
            for target, box in annotated
        ]
        metadata = {"ori_video_length": len(frames), "frame_id": number, "instances": instances}
        path = os.sep.join((name, "img1", f"{number}.png"))  # mmdet takes the name of the video from it
        sample = DetDataSample(metainfo={**metadata, "img_path": path})
        sample.pred_track_instances = InstanceData(
            instances_id=torch.from_numpy(rows.ids[in_frame]),
            bboxes=torch.from_numpy(rows.boxes[in_frame].astype(np.float64) * BOX_SCALE),
            scores=torch.ones(int(in_frame.sum()), dtype=torch.float64),
        )
        yield sample


def format_table(rows: Sequence[Comparison]) -> str:
    """Returns the comparisons as a text table."""
    lines = [f"{'':<18}{'ours':>12}{'mmdet':>12}{'difference':>14}"]
    for row in rows:
        form = "d" if isinstance(row.ours, int) else ".6f"
        theirs = int(row.theirs) if form == "d" else row.theirs
        lines.append(f"{row.name:<18}{row.ours:>12{form}}{theirs:>12{form}}{row.difference:>14.2g}")
    return "\n".join(lines)
