"""Ground truth as the evaluator needs it: checked, arrays for each frame, categories by position."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from pipeline.system.errors import UsageError


class FrameTruth(NamedTuple):
    """What is annotated in one frame."""

    boxes: np.ndarray
    """(M, 4) float64: left, top, width, height in pixels."""
    categories: np.ndarray
    """(M,) int64: position of the category."""
    crowds: np.ndarray
    """(M,) bool: a region in which detections are neither hits nor false alarms (`iscrowd` of COCO)."""

    def pooled(self) -> FrameTruth:
        """The same with a single category for everything."""
        return self._replace(categories=np.zeros_like(self.categories))


@dataclass(frozen=True)
class Truth:
    """The annotations of all frames; those without targets have empty arrays."""

    image_ids: list[Hashable]
    """COCO image id of each frame, in the order in which pycocotools takes them."""
    frames: list[FrameTruth]
    categories: list[Hashable]
    """COCO category id of each position."""
    names: list[str]
    """Name of each category."""
    videos: list[tuple[str, np.ndarray]]
    """Name of each video and the positions of its frames; empty where the annotations have no videos."""

    def pooled(self) -> Truth:
        """The same with a single category for everything."""
        return replace(self, frames=[frame.pooled() for frame in self.frames], categories=[0], names=["all"])


def read_truth(table: dict) -> Truth:
    """The truth in a COCO dictionary, which is left as it is.

    The numbers of annotations do not matter: pycocotools takes a match with number 0 for none, and loses all
    but one of those that share a number. The size of a target is that of its box. Raises UsageError for a
    repeated image id, and for an annotation without box or on an image or of a category that is not listed.
    """
    images = {image["id"]: image for image in table["images"]}
    if len(images) < len(table["images"]):
        repeated = _first_repeated(image["id"] for image in table["images"])
        raise UsageError(f"the annotations have several images of id {repeated}; each frame needs its own")
    names = {category["id"]: str(category.get("name", category["id"])) for category in table["categories"]}
    if not names:
        raise UsageError("the annotations have no categories")
    ids, categories = ordered(images), ordered(names)
    positions = {image_id: position for position, image_id in enumerate(ids)}
    numbers = {category_id: number for number, category_id in enumerate(categories)}
    rows: list[list] = [[] for _ in ids]
    for number, annotation in enumerate(table["annotations"]):
        place, row = _row(number, annotation, positions, numbers)
        rows[place].append(row)
    return Truth(
        image_ids=ids,
        frames=[_frame_truth(frame_rows) for frame_rows in rows],
        categories=categories,
        names=[names[category_id] for category_id in categories],
        videos=_videos(table, positions),
    )


def ordered(ids: Iterable[Hashable]) -> list:
    """Ids in ascending order, numbers before texts."""
    return sorted(ids, key=lambda value: (isinstance(value, str), value))


def _row(number: int, annotation: dict, positions: dict, numbers: dict) -> tuple[int, tuple]:
    """Position of the frame, and (box, category, crowd) of one annotation."""
    image, category, box = (annotation.get(key) for key in ("image_id", "category_id", "bbox"))
    if image not in positions:
        raise UsageError(f"annotation {number} is on image {image}, which is not among the images")
    if category not in numbers:
        raise UsageError(f"annotation {number} is of category {category}, which is not among the categories")
    if not _is_box(box):
        raise UsageError(f"annotation {number} has no valid box: {box}")
    return positions[image], (box, numbers[category], bool(annotation.get("iscrowd", 0)))


def _is_box(box: Any) -> bool:
    try:
        return len(box) == 4 and all(map(math.isfinite, box)) and min(box[2], box[3]) >= 0
    except TypeError:
        return False


def _frame_truth(rows: list[tuple]) -> FrameTruth:
    return FrameTruth(
        boxes=np.array([box for box, _, _ in rows], dtype=np.float64).reshape(-1, 4),
        categories=np.array([category for _, category, _ in rows], dtype=np.int64),
        crowds=np.array([crowd for _, _, crowd in rows], dtype=bool),
    )


def _videos(table: dict, positions: dict) -> list[tuple[str, np.ndarray]]:
    frames: dict[Hashable, list[int]] = {video["id"]: [] for video in table.get("videos", [])}
    for image in table["images"]:
        if image.get("video_id") in frames:
            frames[image["video_id"]].append(positions[image["id"]])
    return [(str(video["name"]), np.array(frames[video["id"]], int)) for video in table.get("videos", [])]


def _first_repeated(ids: Iterable[Hashable]) -> Hashable:
    seen: set[Hashable] = set()
    return next(one for one in ids if one in seen or seen.add(one))
