"""Detections as arrays per frame, checked, sorted by score and truncated as COCO does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.structures.boxes import to_xywh
from pipeline.structures.detections import Detections
from pipeline.system.errors import UsageError, as_json
from pipeline.system.files import load_json

MAX_DETECTIONS = 100
"""Maximum number of detections per frame and category, highest scores first; the default of COCO."""


class CocoResult(NamedTuple):
    """One checked COCO result."""

    image_id: object
    category: int
    """Position of the category."""
    box: tuple[float, ...]
    """Left, top, width, height in pixels."""
    score: float


class PredictedBoxes(NamedTuple):
    """Detections of one frame."""

    boxes: np.ndarray
    """(N, 4) float64: left, top, width, height in pixels."""
    scores: np.ndarray
    """(N,) float64."""
    categories: np.ndarray
    """(N,) int64: position of the category."""

    @classmethod
    def from_results(cls, results: Sequence[CocoResult]) -> PredictedBoxes:
        """Converts the results of one frame."""
        return cls(
            np.array([result.box for result in results], dtype=np.float64).reshape(-1, 4),
            np.array([result.score for result in results], dtype=np.float64),
            np.array([result.category for result in results], dtype=np.int64),
        )

    @classmethod
    def from_detections(cls, detections: Detections) -> PredictedBoxes:
        """Converts the detections of one frame.

        Numbers are rounded as in a file of COCO results, so that detections and their file have equal
        metrics.
        """
        boxes = to_xywh(detections.boxes.astype(np.float64)).round(6)
        scores = np.array([float(str(score)) for score in detections.scores], dtype=np.float64)
        return cls(boxes, scores, detections.labels)

    def class_agnostic(self) -> PredictedBoxes:
        """Returns the same detections with all categories replaced by one."""
        return self._replace(categories=np.zeros_like(self.categories))

    def select(self, rows: np.ndarray) -> PredictedBoxes:
        """Returns the detections at `rows`, an (N,) bool mask or an (n,) int64 array of indices."""
        return PredictedBoxes(self.boxes[rows], self.scores[rows], self.categories[rows])

    def best(self) -> PredictedBoxes:
        """Returns the detections by descending score, at most `MAX_DETECTIONS` of each category.

        The sort is stable, so equal scores keep their order.
        """
        order = np.argsort(-self.scores, kind="stable")
        if len(order) > MAX_DETECTIONS:
            categories = self.categories[order]
            kept = [
                np.flatnonzero(categories == category)[:MAX_DETECTIONS] for category in np.unique(categories)
            ]
            order = order[np.sort(np.concatenate(kept))]
        return self.select(order)


def parse_results(
    results: Sequence[dict], images: Mapping, categories: Mapping | None
) -> Iterator[CocoResult]:
    """Yields checked COCO results.

    Args:
        results: COCO results: `image_id`, `category_id`, `bbox` and `score`; other keys are ignored.
        images: a mapping whose keys are the known image ids.
        categories: position of each category id. None to ignore categories: all positions are 0 then.

    Raises:
        UsageError: a key is missing, a number is not finite, a width or height is negative, or the image or
            the category is unknown. The message names the result by its number from 0.
    """
    for number, result in enumerate(results):
        try:
            image_id, category_id = result["image_id"], result["category_id"]
            box, score = tuple(float(side) for side in result["bbox"]), float(result["score"])
            unknown_image = image_id not in images
            unknown_category = categories is not None and category_id not in categories
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"detection {number} is not a COCO result: {_fault(result)}") from error
        if unknown_image:
            missing = f"image {as_json(image_id)}, which is not in the annotations ({_some(images)})"
            raise UsageError(f"detection {number} is on {missing}")
        if unknown_category:
            known = _some(categories or ())
            missing = f"category {as_json(category_id)}, which is not in the annotations ({known})"
            raise UsageError(f"detection {number} is of {missing}; --class-agnostic ignores categories")
        finite = len(box) == 4 and all(map(math.isfinite, box)) and math.isfinite(score)
        if not finite or min(box[2:]) < 0:
            raise UsageError(f"detection {number} has no valid box and score: {list(box)}, {score}")
        yield CocoResult(image_id, 0 if categories is None else categories[category_id], box, score)


def _some(ids: Iterable[object]) -> str:
    """Lists the first ids of annotations."""
    first = [as_json(number) for number in islice(ids, 4)]
    return ", ".join(first[:3] + ["…"] * (len(first) > 3)) or "no ids"


def _fault(result: Mapping[str, Any]) -> str:
    """Describes what keeps a JSON object from being a COCO result."""
    for key in ("image_id", "category_id", "bbox", "score"):
        if key not in result:
            return f"it has no '{key}'"
        if key.endswith("_id") and not isinstance(result[key], (int, float, str)):
            return f"its '{key}' is {as_json(result[key])}, expected a number or a text"
    sides = result["bbox"]
    if isinstance(sides, (list, tuple)) and all(isinstance(side, (int, float)) for side in sides):
        return f"its 'score' is {as_json(result['score'])}, expected a number"
    return f"its 'bbox' is {as_json(sides)}, expected four numbers"


def load_results(path: Path) -> list[dict]:
    """Reads a file of COCO results, also if they are the `annotations` of a COCO dictionary.

    Raises UsageError if they are not a JSON list of objects.
    """
    results = load_json(path, kind="detections")
    if isinstance(results, dict):
        results = results.get("annotations")
    if not isinstance(results, list) or not all(isinstance(row, dict) for row in results):
        raise UsageError(f"detections {path} are not a list of COCO results")
    return results
