"""Ground truth in memory: annotated sequences with the boxes of each frame, made from COCO-video tables."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.structures.boxes import from_xywh
from pipeline.structures.coco_tables import repeated_images, sorted_categories
from pipeline.structures.frame_paths import paths_of_all_frames, require_inside_root
from pipeline.system.errors import UsageError

MAX_FRAMES = 1_000_000
"""Maximum length of a sequence: a single wrong frame number could claim any, and each frame takes memory."""


@dataclass(frozen=True, eq=False)
class VideoRecord:
    """One annotated sequence. Frames are numbered from 0; frames without targets have empty arrays."""

    name: str
    file_name: str
    """Path of the video relative to the root of the dataset; empty if the annotations name no file."""
    width: int
    height: int
    image_ids: dict[int, int]
    """Frame number → COCO image id."""
    boxes: tuple[np.ndarray, ...]
    """Per frame (N, 4) float32 x1 y1 x2 y2 in pixels, right and bottom exclusive."""
    labels: tuple[np.ndarray, ...]
    """Per frame (N,) int64 class index from 0, in the order of the category ids."""
    files: tuple[str, ...] = ()
    """Per frame the path of its image relative to the root ('' if unknown); empty if the frames are those of
    the video `file_name`."""
    masks: tuple[str, ...] = ()
    """Per frame the path of its mask relative to the root; empty if there are no masks."""
    instances: tuple[np.ndarray, ...] = ()
    """Per frame (N,) int64: identity of each target in the sequence, -1 if unknown; empty if all are."""
    fps: float = 0.0
    """Frames per second; 0 if unknown."""

    def __len__(self) -> int:
        return len(self.boxes)


def require_frame_count(count: int, name: str) -> None:
    """Raises UsageError if a sequence claims more than MAX_FRAMES frames."""
    if count > MAX_FRAMES:
        raise UsageError(f"{name} has frames up to number {count}; sequences of up to {MAX_FRAMES} are read")


def video_records(table: dict) -> list[VideoRecord]:
    """Returns the sequences of a COCO-video dictionary, with `videos`, and `video_id`, `frame_id` per image.

    Of several images of the same frame the first one counts. The frames of a video without `file_name` are
    the files of its images. Raises UsageError if the dictionary is not COCO-video ground truth.
    """
    if not table.get("videos"):
        raise UsageError(
            "annotations have no 'videos': COCO-video ground truth is needed, which python -m "
            "datasets.convert coco-video ROOT --split FILE --to coco-video --output NEW makes of images"
        )
    try:
        return _grouped(table)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = f"a row has no valid {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"annotations are not COCO-video ground truth: {reason}") from error


def _grouped(table: dict) -> list[VideoRecord]:
    categories = {category["id"]: label for label, category in enumerate(sorted_categories(table))}
    images: dict[Any, dict[int, dict]] = defaultdict(dict)
    targets: dict[Any, list[_Target]] = defaultdict(list)
    known, repeated = set(), {image["id"] for image in repeated_images(table)}
    for number, image in enumerate(table["images"]):
        missing = [key for key in ("video_id", "frame_id") if image.get(key) is None]
        if missing:
            raise ValueError(f"images[{number}] has no '{missing[0]}'")
        known.add(image["id"])
        if image["id"] not in repeated:
            images[image["video_id"]][int(image["frame_id"])] = image
    for number, annotation in enumerate(table["annotations"]):
        fault = _fault(annotation, known, categories)
        if fault:
            raise ValueError(f"annotations[{number}] {fault}")
        target = _Target(annotation["bbox"], categories[annotation["category_id"]], _identity(annotation))
        targets[annotation["image_id"]].append(target)
    return [_record(video, images[video["id"]], targets) for video in table["videos"]]


def _fault(annotation: dict, images: set, categories: dict) -> str | None:
    """Says what is wrong with an annotation; None if nothing is."""
    _, _, width, height = annotation["bbox"]
    if width < 0 or height < 0:
        return "has a box of negative size"
    if annotation["image_id"] not in images:
        return f"is on image {annotation['image_id']}, which is not among the {len(images)} images"
    if annotation["category_id"] not in categories:
        known = ", ".join(map(str, categories))
        return f"is of category {annotation['category_id']}, which is not among the categories ({known})"
    return None


class _Target(NamedTuple):
    bbox: list[float]
    """Left, top, width, height."""
    label: int
    identity: int | str
    """Number from 0, or a name; -1 if unknown."""


def _identity(annotation: dict) -> int | str:
    """Returns the identity of a target, which goes by any of three keys; -1 if none has a value."""
    attributes = annotation.get("attributes")
    inner = attributes if isinstance(attributes, dict) else {}
    for value in (annotation.get("instance_id"), annotation.get("track_id"), inner.get("track_id")):
        if isinstance(value, float) and math.isfinite(value) and value == int(value):
            value = int(value)
        if isinstance(value, str) and value.strip():
            value = value.strip()
            return int(value) if value.isdecimal() and len(value) <= 18 else value
        if type(value) is int:
            return value if abs(value) < 2**62 else str(value)
    return -1


def _numbered(identities: Iterable[int | str]) -> dict[int | str, int]:
    """Returns a number for each identity: numbers keep theirs, and names get those after the highest."""
    values = dict.fromkeys(identities)
    names = [value for value in values if isinstance(value, str)]
    free = max((value for value in values if isinstance(value, int)), default=-1) + 1
    return {value: value for value in values if isinstance(value, int)} | {
        name: number for number, name in enumerate(names, start=max(free, 0))
    }


def _record(video: dict, images: dict[int, dict], targets: dict[Any, list[_Target]]) -> VideoRecord:
    ids = {frame: image["id"] for frame, image in images.items()}
    count = max(ids, default=-1) + 1
    require_frame_count(count, f"video {video['name']}")
    rows = [targets.get(ids.get(frame), []) for frame in range(count)]
    sized = video if "width" in video else next(iter(images.values()), video)
    names = {
        frame: _relative(image["file_name"]) for frame, image in images.items() if image.get("file_name")
    }
    in_images = names and not video.get("file_name")
    numbers = _numbered(target.identity for row in rows for target in row)
    instances = tuple(np.array([numbers[target.identity] for target in row], dtype=np.int64) for row in rows)
    return VideoRecord(
        name=video["name"],
        file_name="" if in_images else _relative(video.get("file_name") or ""),
        width=sized["width"],
        height=sized["height"],
        image_ids=ids,
        boxes=tuple(from_xywh([target.bbox for target in row]).astype(np.float32) for row in rows),
        labels=tuple(np.array([target.label for target in row], dtype=np.int64) for row in rows),
        files=paths_of_all_frames(names, len(rows)) if in_images else (),
        instances=instances if any((row >= 0).any() for row in instances) else (),
        fps=float(video.get("fps") or 0),
    )


def _relative(path: str) -> str:
    """Returns a path with forward slashes. Raises UsageError if it leads out of the root of the dataset."""
    return require_inside_root(path).replace("\\", "/")


from pipeline.structures.coco_tables import is_box, load_coco  # noqa
