"""The numbers of pycocotools, from pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.detection.ground_truth import FrameTruth
from pipeline.evaluation.detection.predictions import PredictedBoxes

LIMITS = (1, 10, 100)
"""Most detections of a frame and category that are counted, for the average recalls."""


@dataclass(frozen=True)
class CocoNumbers:
    """AP and AR of each category; NaN for a category without targets."""

    precision: np.ndarray
    """(10, K): mean interpolated precision at IoU 0.5, 0.55 … 0.95, at most 100 detections a frame."""
    recall: np.ndarray
    """(10, K, 3): highest recall at these IoUs with at most 1, 10 and 100 detections a frame."""


def coco_numbers(
    truths: Sequence[FrameTruth], found: Sequence[PredictedBoxes], categories: int
) -> CocoNumbers:
    """What pycocotools finds with its defaults and boxes of all sizes; frames in the order given."""
    from pycocotools.cocoeval import COCOeval

    boxes = [(truth.boxes, truth.categories, truth.crowds) for truth in truths]
    results = [(frame.boxes, frame.categories, np.zeros(len(frame.scores), bool)) for frame in found]
    scores = np.concatenate([np.zeros(0), *(frame.scores for frame in found)])
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        run = COCOeval(_coco(boxes, categories), _coco(results, categories, scores), "bbox")
        run.params.areaRng, run.params.areaRngLbl = [[0, float("inf")]], ["all"]
        run.params.maxDets = list(LIMITS)
        run.evaluate()
        run.accumulate()
    # (IoU, recall, category, size, limit) → (IoU, category)
    precision = run.eval["precision"][:, :, :, 0, -1].mean(axis=1)
    recall = run.eval["recall"][:, :, 0]
    return CocoNumbers(np.where(precision < 0, np.nan, precision), np.where(recall < 0, np.nan, recall))


def _coco(frames: Sequence[tuple], categories: int, scores: np.ndarray | None = None):
    """Frames of (boxes, categories, crowds) as pycocotools keeps them, annotations numbered from 1."""
    from pycocotools.coco import COCO

    rows = [
        (image, *row)
        for image, columns in enumerate(frames)
        for row in zip(*(column.tolist() for column in columns), strict=True)
    ]
    annotations = [
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
