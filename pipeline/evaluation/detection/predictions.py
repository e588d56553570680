"""Detections as the evaluator needs them: checked, arrays for each frame, the best ones of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.structures.boxes import to_xywh
from pipeline.structures.detections import Detections
from pipeline.system.errors import UsageError
from pipeline.system.files import load_json

MAX_DETECTIONS = 100
"""Detections of one category that count in a frame, the best ones: the default of COCO."""


class PredictedBoxes(NamedTuple):
    """What was found in one frame."""

    boxes: np.ndarray
    """(N, 4) float64: left, top, width, height in pixels."""
    scores: np.ndarray
    """(N,) float64."""
    categories: np.ndarray
    """(N,) int64: position of the category."""


class Row(NamedTuple):
    """One COCO result, checked."""

    image: object
    category: int
    box: tuple[float, ...]
    score: float


def rows_of(results: Sequence[dict], images: Mapping, categories: Mapping | None) -> Iterator[Row]:
    """COCO results with the position of the category; 0 for all where `categories` is None.

    Raises UsageError, which names the detection by its number from 0, for one without a frame, category, box
    or score, with a number that is not finite, a negative size, or an unknown image or category.
    """
    for number, result in enumerate(results):
        try:
            image, category = result["image_id"], result["category_id"]
            box, score = tuple(float(side) for side in result["bbox"]), float(result["score"])
            unknown = image not in images
            stray = categories is not None and category not in categories
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"detection {number} is not a COCO result: {error!r}") from error
        if unknown:
            raise UsageError(f"detection {number} is on image {image}, which is not in the annotations")
        if stray:
            raise UsageError(f"detection {number} is of category {category}, which is not in the annotations")
        finite = len(box) == 4 and all(map(math.isfinite, box)) and math.isfinite(score)
        if not finite or min(box[2:]) < 0:
            raise UsageError(f"detection {number} has no valid box and score: {list(box)}, {score}")
        yield Row(image, 0 if categories is None else categories[category], box, score)


def from_rows(rows: Sequence[Row]) -> PredictedBoxes:
    """The results of one frame."""
    return PredictedBoxes(
        np.array([row.box for row in rows], dtype=np.float64).reshape(-1, 4),
        np.array([row.score for row in rows], dtype=np.float64),
        np.array([row.category for row in rows], dtype=np.int64),
    )


def from_detections(detections: Detections) -> PredictedBoxes:
    """The detections of one frame, as they read in a file of COCO results, so that both score the same."""
    boxes = to_xywh(detections.boxes.astype(np.float64)).round(6)
    scores = np.array([float(str(score)) for score in detections.scores], dtype=np.float64)
    return PredictedBoxes(boxes, scores, detections.labels)


def pooled(found: PredictedBoxes) -> PredictedBoxes:
    """The same with a single category for everything."""
    return found._replace(categories=np.zeros_like(found.categories))


def best_of(found: PredictedBoxes) -> PredictedBoxes:
    """Best first, equal scores in their order, cut to the best `MAX_DETECTIONS` of each category."""
    order = np.argsort(-found.scores, kind="stable")
    if len(order) > MAX_DETECTIONS:
        categories = found.categories[order]
        best = [np.flatnonzero(categories == category)[:MAX_DETECTIONS] for category in np.unique(categories)]
        order = order[np.sort(np.concatenate(best))]
    return PredictedBoxes(*(column[order] for column in found))


def load_results(path: Path) -> list[dict]:
    """A COCO results file. Raises UsageError when it is not one."""
    results = load_json(path, kind="detections")
    if not isinstance(results, list) or not all(isinstance(row, dict) for row in results):
        raise UsageError(f"detections {path} are not a list of COCO results")
    return results
