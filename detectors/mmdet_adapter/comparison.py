"""Our evaluation beside mmdet's, on the same files.

Detections: AP50, AP, AP75 and AR100 by `pipeline.evaluation.detection.evaluator` and by CocoMetric. Both
take the best 100 boxes of a frame and category. CocoMetric rounds to three decimals; what is compared are
its numbers before that.

Tracks: MOTA, IDF1 and what they are made of by `pipeline.evaluation.tracking` (gate: IoU 0.5) and by
MOTChallengeMetric. Three things differ, and what can be made alike is:

- MOTChallengeMetric cuts labelled boxes to whole pixels, which moves the IoU of small targets by tenths. IoU
  does not depend on the scale, so it is given all boxes `SCALE` times larger.
- It needs a target in each video; a video without any is left out on both sides.
- Where several tracks lie within the gate of a target, it prefers the one of the frame before, then that of
  the highest IoU; ours prefers the one that the target had last, also after a pause. So MOTA and switches
  may differ by such cases: with one target a frame they need two tracks on it, and a gap. IDF1 has no such
  choice.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from detectors.mmdet_adapter import installation
from pipeline.evaluation.detection.evaluator import evaluate
from pipeline.evaluation.tracking import OVERALL, Tracked, TrackRows, identities, pooled, read_tracks
from pipeline.structures.annotations import VideoRecord
from pipeline.structures.boxes import from_xywh
from pipeline.system.errors import UsageError

SCALE = 2.0**20
"""A power of two: numbers stay exact. What is cut off is less than a millionth of a pixel then."""


class Row(NamedTuple):
    """One number by both."""

    name: str
    ours: float
    theirs: float

    @property
    def difference(self) -> float:
        """Ours less theirs."""
        return self.ours - self.theirs


def chosen_table(table: dict, *, stride: int = 1, class_agnostic: bool = False) -> dict:
    """A COCO(-video) dictionary of every `stride`-th annotated frame of each video, in order of the ids.

    `class_agnostic` makes all categories the one with the lowest id.
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
) -> list[Row]:
    """COCO results against a COCO dictionary, by both; for `stride` and `class_agnostic` see `chosen_table`.

    Results on other images are left out. Raises UsageError for what is no COCO result, and where none is
    left.
    """
    table = chosen_table(table, stride=stride, class_agnostic=class_agnostic)
    ids = {image["id"] for image in table["images"]}
    results = [row for row in results if row.get("image_id") in ids]
    if class_agnostic:
        results = [{**row, "category_id": table["categories"][0]["id"]} for row in results]
    if not results:
        raise UsageError("no detection is on an annotated image; give those of the same dataset")
    ours = evaluate(table, results)
    theirs = coco_metric(table, results)
    names = {"AP50": "ap50", "AP": "ap", "AP75": "ap75", "AR100": "ar100"}
    return [Row(name, getattr(ours, field), theirs[name]) for name, field in names.items()]


def coco_metric(table: dict, results: Sequence[dict]) -> dict[str, float]:
    """What mmdet's CocoMetric finds, not rounded."""
    installation.prepare()
    from mmdet.evaluation import CocoMetric

    labels = {category["id"]: number for number, category in enumerate(table["categories"])}
    found: dict[Any, list[dict]] = {image["id"]: [] for image in table["images"]}
    for row in results:
        found[row["image_id"]].append(row)
    with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), _evaluations() as made:
        truth = Path(folder, "truth.json")
        truth.write_text(json.dumps(_with_areas(table)), encoding="utf-8")
        metric = CocoMetric(ann_file=str(truth), proposal_nums=(1, 10, 100))
        metric.dataset_meta = {"classes": tuple(category["name"] for category in table["categories"])}
        for image in table["images"]:
            size = (image.get("height", 0), image.get("width", 0))
            rows = found[image["id"]]
            boxes = torch.from_numpy(from_xywh(np.array([row["bbox"] for row in rows], dtype=np.float64)))
            predicted = {
                "bboxes": boxes,
                "scores": torch.tensor([row["score"] for row in rows], dtype=torch.float64),
                "labels": torch.tensor([labels[row["category_id"]] for row in rows], dtype=torch.int64),
            }
            metric.process({}, [{"pred_instances": predicted, "img_id": image["id"], "ori_shape": size}])
        metric.evaluate(len(table["images"]))
    stats = made[-1].stats
    return {name: float(stats[place]) for name, place in {"AP": 0, "AP50": 1, "AP75": 2, "AR100": 8}.items()}


def _with_areas(table: dict) -> dict:
    """With the fields that pycocotools expects in each annotation."""
    rows = [
        {"iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3], **row, "id": number}
        for number, row in enumerate(table["annotations"], start=1)
    ]
    return {"info": {}, **table, "annotations": rows}


@contextlib.contextmanager
def _evaluations() -> Iterator[list]:
    """The COCOeval objects that CocoMetric makes meanwhile: it keeps none, and rounds what it tells."""
    from mmdet.evaluation.metrics import coco_metric as module

    made, kind = [], module.COCOeval

    def remembering(*arguments, **options):
        made.append(kind(*arguments, **options))
        return made[-1]

    module.COCOeval = remembering
    try:
        yield made
    finally:
        module.COCOeval = kind


def compare_tracks(records: Sequence[VideoRecord], tracks: Mapping[str, TrackRows | Path]) -> list[Row]:
    """Tracks by the name of their video, by both; videos without tracks in the mapping are left out.

    Raises UsageError as `pipeline.evaluation.tracking.track_scores` does, and where nothing is left to score.
    """
    runs = [
        Tracked(record, found if isinstance(found, TrackRows) else read_tracks(found))
        for record in records
        if (found := tracks.get(record.name)) is not None and any(map(len, record.boxes))
    ]
    if not runs:
        raise UsageError(
            "no tracks are those of a video with targets; their files are named NAME-OF-VIDEO.txt"
        )
    ours = pooled(runs)[OVERALL]
    theirs = mot_challenge_metric(runs)
    names = {"MOTA": "mota", "IDF1": "idf1", "IDP": "idp", "IDR": "idr"}
    rows = [Row(name, _number(getattr(ours, field)), theirs[name]) for name, field in names.items()]
    counts = {"IDSW": "switches", "FN": "misses", "FP": "false_positives"}
    return rows + [Row(field, getattr(ours, field), theirs[name]) for name, field in counts.items()]


def _number(value: float | None) -> float:
    """Ours is None where a ratio has no denominator; theirs is 0 then."""
    return 0.0 if value is None else value


def mot_challenge_metric(runs: Sequence[Tracked]) -> dict[str, float]:
    """What mmdet's MOTChallengeMetric finds in all annotated frames of the videos together."""
    installation.prepare("trackeval")
    from mmdet.evaluation import MOTChallengeMetric

    with contextlib.redirect_stdout(io.StringIO()):
        # of the benchmarks the one that leaves out neither targets nor tracks before it counts
        metric = MOTChallengeMetric(metric=["CLEAR", "Identity"], benchmark="MOT15")
        for number, run in enumerate(runs):
            metric.process({}, [{"video_data_samples": list(_samples(run, f"video-{number}"))}])
        return {name: float(value) for name, value in _bare(metric.evaluate(len(runs))).items()}


def _bare(numbers: Mapping[str, float]) -> dict[str, float]:
    """Without the prefix of the metric."""
    return {name.rpartition("/")[2]: value for name, value in numbers.items()}


def _samples(run: Tracked, name: str) -> Iterator[Any]:
    """The annotated frames of a video as mmdet's data samples."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    record, rows = run.record, run.tracks
    targets, frames = identities(record), sorted(record.image_ids)
    for number, frame in enumerate(frames):
        there = rows.frames == frame
        labelled = zip(targets[frame].tolist(), (record.boxes[frame] * SCALE).tolist(), strict=True)
        instances = [
            {"instance_id": target, "bbox": box, "mot_conf": 1, "category_id": 1, "visibility": 1}
            for target, box in labelled
        ]
        facts = {"ori_video_length": len(frames), "frame_id": number, "instances": instances}
        path = os.sep.join((name, "img1", f"{number}.png"))  # tells mmdet the name of the video
        sample = DetDataSample(metainfo={**facts, "img_path": path})
        sample.pred_track_instances = InstanceData(
            instances_id=torch.from_numpy(rows.ids[there]),
            bboxes=torch.from_numpy(rows.boxes[there].astype(np.float64) * SCALE),
            scores=torch.ones(int(there.sum()), dtype=torch.float64),
        )
        yield sample


def as_text(rows: Sequence[Row]) -> str:
    """A table for people."""
    lines = [f"{'':<18}{'ours':>12}{'mmdet':>12}{'difference':>14}"]
    for row in rows:
        form = "d" if isinstance(row.ours, int) else ".6f"
        theirs = int(row.theirs) if form == "d" else row.theirs
        lines.append(f"{row.name:<18}{row.ours:>12{form}}{theirs:>12{form}}{row.difference:>14.2g}")
    return "\n".join(lines)
