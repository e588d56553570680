"""COCO ground truth as arrays per frame, with categories replaced by their positions."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from pipeline.structures.coco_tables import is_box, repeated_images, sort_ids
from pipeline.system.errors import UsageError


class FrameTruth(NamedTuple):
    """Annotations of one frame."""

    boxes: np.ndarray
    """(M, 4) float64: left, top, width, height in pixels."""
    categories: np.ndarray
    """(M,) int64: position of the category."""
    crowds: np.ndarray
    """(M,) bool: a region in which detections are neither hits nor false alarms (`iscrowd` of COCO)."""

    def class_agnostic(self) -> FrameTruth:
        """Returns the same annotations with all categories replaced by one."""
        return self._replace(categories=np.zeros_like(self.categories))


@dataclass(frozen=True)
class CocoGroundTruth:
    """Annotations of all frames; frames without targets have empty arrays."""

    image_ids: list[Hashable]
    """COCO image id of each frame, in ascending order, which is the order of pycocotools."""
    frames: list[FrameTruth]
    categories: list[Hashable]
    """COCO category id of each position."""
    names: list[str]
    """Name of each category."""
    videos: list[tuple[str, np.ndarray]]
    """Name of each video and the positions of its frames; empty if the annotations have no videos."""
    repeated: frozenset[Hashable] = frozenset()
    """Image ids whose frame is that of an earlier image, which alone counts."""

    def class_agnostic(self) -> CocoGroundTruth:
        """Returns the same annotations with all categories replaced by one."""
        frames = [frame.class_agnostic() for frame in self.frames]
        return replace(self, frames=frames, categories=[0], names=["all"])


def parse_ground_truth(coco: dict) -> CocoGroundTruth:
    """Converts a COCO dictionary, which is not modified.

    Annotation ids are ignored, since pycocotools treats a match with id 0 as no match and keeps only one of
    several annotations that share an id. The size of a target is the area of its box. Raises UsageError for
    repeated image ids, for a dictionary without categories, and for annotations without a valid box or with
    an unknown image or category.
    """
    images = {image["id"]: image for image in coco["images"]}
    if len(images) < len(coco["images"]):
        repeated = _first_repeated(image["id"] for image in coco["images"])
        raise UsageError(f"the annotations have several images of id {repeated}; each frame needs its own")
    names = {category["id"]: str(category.get("name", category["id"])) for category in coco["categories"]}
    if not names:
        raise UsageError("the annotations have no categories")
    ids, categories = sort_ids(images), sort_ids(names)
    positions = {image_id: position for position, image_id in enumerate(ids)}
    category_positions = {category_id: position for position, category_id in enumerate(categories)}
    rows: list[list] = [[] for _ in ids]
    for number, annotation in enumerate(coco["annotations"]):
        position, row = _parse_annotation(number, annotation, positions, category_positions)
        rows[position].append(row)
    return CocoGroundTruth(
        image_ids=ids,
        frames=[_frame_truth(frame_rows) for frame_rows in rows],
        categories=categories,
        names=[names[category_id] for category_id in categories],
        videos=_videos(coco, positions),
        repeated=frozenset(image["id"] for image in repeated_images(coco)),
    )


def _parse_annotation(
    number: int, annotation: dict, positions: dict, category_positions: dict
) -> tuple[int, tuple]:
    """Returns the position of the frame and (box, category position, crowd) of one annotation."""
    image, category, box = (annotation.get(key) for key in ("image_id", "category_id", "bbox"))
    if image not in positions:
        raise UsageError(f"annotation {number} is on image {image}, which is not among the images")
    if category not in category_positions:
        raise UsageError(f"annotation {number} is of category {category}, which is not among the categories")
    if not is_box(box):
        raise UsageError(f"annotation {number} has no valid box: {box}")
    return positions[image], (box, category_positions[category], bool(annotation.get("iscrowd", 0)))


def _frame_truth(rows: list[tuple]) -> FrameTruth:
    return FrameTruth(
        boxes=np.array([box for box, _, _ in rows], dtype=np.float64).reshape(-1, 4),
        categories=np.array([category for _, category, _ in rows], dtype=np.int64),
        crowds=np.array([crowd for _, _, crowd in rows], dtype=bool),
    )


def _videos(coco: dict, positions: dict) -> list[tuple[str, np.ndarray]]:
    frames: dict[Hashable, list[int]] = {video["id"]: [] for video in coco.get("videos", [])}
    for image in coco["images"]:
        if image.get("video_id") in frames:
            frames[image["video_id"]].append(positions[image["id"]])
    return [(str(video["name"]), np.array(frames[video["id"]], int)) for video in coco.get("videos", [])]


def _first_repeated(ids: Iterable[Hashable]) -> Hashable:
    seen: set[Hashable] = set()
    for image_id in ids:
        if image_id in seen:
            return image_id
        seen.add(image_id)
    raise ValueError("no id occurs twice")
