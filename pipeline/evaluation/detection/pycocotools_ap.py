"""Average precision and average recall as computed by pycocotools itself."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluation.detection.ground_truth import FrameTruth
from pipeline.evaluation.detection.predictions import PredictedBoxes

if TYPE_CHECKING:
    from pycocotools.coco import COCO

MAX_DETECTIONS_PER_CATEGORY = (1, 10, 100)
"""Maximum number of detections per frame and category for AR1, AR10 and AR100 (`maxDets` of pycocotools)."""


@dataclass(frozen=True)
class CocoMetrics:
    """AP and AR of each of K categories; NaN for a category without targets."""

    precision: np.ndarray
    """(10, K) mean interpolated precision at IoU 0.5, 0.55 … 0.95, at most 100 detections per frame."""
    recall: np.ndarray
    """(10, K, 3) highest recall at these IoUs with at most 1, 10 and 100 detections per frame."""


def coco_metrics(
    truths: Sequence[FrameTruth], predictions: Sequence[PredictedBoxes], categories: int
) -> CocoMetrics:
    """Runs pycocotools with its default parameters and boxes of all areas; frames keep their order.

    `categories` is the number of categories; categories are given by their position.
    """
    from pycocotools.cocoeval import COCOeval

    targets = [(truth.boxes, truth.categories, truth.crowds) for truth in truths]
    results = [(p.boxes, p.categories, np.zeros(len(p.scores), bool)) for p in predictions]
    scores = np.concatenate([np.zeros(0), *(p.scores for p in predictions)])
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        run = COCOeval(_coco(targets, categories), _coco(results, categories, scores), "bbox")
        run.params.areaRng, run.params.areaRngLbl = [[0, float("inf")]], ["all"]
        run.params.maxDets = list(MAX_DETECTIONS_PER_CATEGORY)
        run.evaluate()
        run.accumulate()
    # (IoU, recall, category, area range, maxDets) → (IoU, category)
    precision = run.eval["precision"][:, :, :, 0, -1].mean(axis=1)
    recall = run.eval["recall"][:, :, 0]
    return CocoMetrics(np.where(precision < 0, np.nan, precision), np.where(recall < 0, np.nan, recall))


def _coco(frames: Sequence[tuple], categories: int, scores: np.ndarray | None = None) -> COCO:
    """Returns frames of (boxes, categories, crowds) as a COCO object, annotations numbered from 1."""
    from pycocotools.coco import COCO

    rows = [
        (image, *row)
        for image, columns in enumerate(frames)
        for row in zip(*(column.tolist() for column in columns), strict=True)
    ]
    annotations: list[dict[str, Any]] = [
        {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3],
         "iscrowd": int(crowd)}
        for number, (image, box, category, crowd) in enumerate(rows, start=1)
    ]  # fmt: skip
    if scores is not None:
        for annotation, score in zip(annotations, scores.tolist(), strict=True):
            annotation["score"] = score
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in range(len(frames))],
        "annotations": annotations,
        "categories": [{"id": category} for category in range(categories)],
    }
    coco.createIndex()
    return coco
