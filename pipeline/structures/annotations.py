"""Ground truth in memory: videos, their frames, and the boxes in each; no pixels yet."""

from __future__ import annotations

import difflib
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.structures.boxes import from_xywh
from pipeline.structures.frame_paths import every_frame, inside
from pipeline.system.errors import UsageError
from pipeline.system.files import load_json

KEYS = {
    "images": ("id",),
    "annotations": ("image_id", "category_id"),
    "categories": ("id",),
    "videos": ("id", "name"),
}
"""What each row of a list is known by; all are numbers or text."""
TYPES = {
    "images": {
        "video_id": (int, float, str),
        "frame_id": int,
        "file_name": str,
        "width": int,
        "height": int,
    },
    "videos": {"name": str, "file_name": str, "fps": (int, float), "width": int, "height": int},
}
"""What else is used of a row, where it is there; no number is negative."""
MAX_FRAMES = 1_000_000
"""Of one sequence: each takes memory, annotated or not, and a single wrong number can claim any count."""


@dataclass(frozen=True, eq=False)
class VideoRecord:
    """One annotated sequence. Frames are numbered from 0; those without targets have empty arrays."""

    name: str
    file_name: str
    """Path of the video relative to the data set's root; empty where the annotations name no file."""
    width: int
    height: int
    image_ids: dict[int, int]
    """Frame number → COCO image id."""
    boxes: tuple[np.ndarray, ...]
    """Per frame (N, 4) float32 x1 y1 x2 y2 in pixels, right and bottom exclusive."""
    labels: tuple[np.ndarray, ...]
    """Per frame (N,) int64 class index from 0, in the order of the category ids."""
    files: tuple[str, ...] = ()
    """Per frame the path of its picture relative to the root ('' where none is known); empty where the
    frames are in the video `file_name`."""
    masks: tuple[str, ...] = ()
    """Per frame the path of its mask relative to the root; empty where there are none."""
    instances: tuple[np.ndarray, ...] = ()
    """Per frame (N,) int64, the same number for the same target through the sequence, -1 where it is not
    known; empty where none is."""
    fps: float = 0.0
    """Frames per second; 0 where it is not known."""

    def __len__(self) -> int:
        return len(self.boxes)


def load_coco(path: Path) -> dict:
    """The COCO dictionary of a ground-truth file. Raises UsageError when it is not one."""
    table = load_json(path, kind="annotations")
    missing = {"images", "annotations", "categories"} - (set(table) if isinstance(table, dict) else set())
    fault = f"no {', '.join(sorted(missing))}" if missing else _fault(table)
    if fault:
        raise UsageError(f"annotations {path} are not COCO ground truth: {fault}")
    return table


def _fault(table: dict) -> str | None:
    """What is wrong with the rows of a COCO dictionary; None where each can be used."""
    for name, keys in KEYS.items():
        rows = table.get(name, [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            return f"'{name}' is not a list of objects"
        for number, row in enumerate(rows):
            wrong = [key for key in keys if type(row.get(key)) not in (int, float, str)]
            wrong += [key for key, kind in TYPES.get(name, {}).items() if not _is_of(kind, row.get(key))]
            if wrong:
                return f"{name}[{number}] has no valid '{wrong[0]}'"
    if not table["categories"]:
        return "'categories' is empty"
    wrong = (number for number, row in enumerate(table["annotations"]) if not is_box(row.get("bbox")))
    number = next(wrong, None)
    return None if number is None else f"annotations[{number}] has no valid 'bbox'"


def _is_of(kind: type | tuple[type, ...], value: Any) -> bool:
    """Whether JSON holds a value of a kind, no negative and no infinite number, or nothing."""
    if value is None:
        return True
    return isinstance(value, kind) and (isinstance(value, str) or 0 <= value < math.inf)


def is_box(box: Any) -> bool:
    """Returns whether a value is a list, tuple or array of four finite numbers with width and height not negative."""
    if not isinstance(box, (list, tuple, np.ndarray)) or len(box) != 4:
        return False
    numbers = all(isinstance(side, (int, float, np.number)) and not isinstance(side, bool) for side in box)
    return numbers and all(abs(side) < 1e9 for side in box) and min(box[2:]) >= 0


def require_length(count: int, name: str) -> None:
    """Raise UsageError for a sequence that claims more frames than are meant."""
    if count > MAX_FRAMES:
        raise UsageError(f"{name} has frames up to number {count}; sequences of up to {MAX_FRAMES} are read")


def video_records(table: dict) -> list[VideoRecord]:
    """The sequences of a COCO-video dictionary (`videos`, and `video_id` and `frame_id` with each image).

    A video without `file_name` has its frames in the files that its images name.
    """
    if not table.get("videos"):
        raise UsageError("annotations have no 'videos': COCO-video ground truth is needed")
    try:
        return _grouped(table)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"annotations are not COCO-video ground truth: {error!r}") from error


def _grouped(table: dict) -> list[VideoRecord]:
    categories = {c["id"]: i for i, c in enumerate(sorted(table["categories"], key=lambda c: c["id"]))}
    images, boxes = defaultdict(dict), defaultdict(list)
    known = set()
    for image in table["images"]:
        images[image["video_id"]][image["frame_id"]] = image
        known.add(image["id"])
    for annotation in table["annotations"]:
        left, top, width, height = annotation["bbox"]
        if width < 0 or height < 0 or annotation["image_id"] not in known:
            raise ValueError(f"annotation {annotation.get('id')} has a negative size or an unknown image")
        row = ([left, top, width, height], categories[annotation["category_id"]], _instance(annotation))
        boxes[annotation["image_id"]].append(row)
    return [_record(video, images[video["id"]], boxes) for video in table["videos"]]


def _instance(annotation: dict) -> int:
    """Which target it is, under either of the two names in use; -1 where it is not known."""
    number = annotation.get("instance_id", annotation.get("track_id"))
    return number if type(number) is int else -1


def _record(video: dict, images: dict[int, dict], boxes: dict[int, list]) -> VideoRecord:
    ids = {frame: image["id"] for frame, image in images.items()}
    count = max(ids, default=-1) + 1
    require_length(count, f"video {video['name']}")
    found = [boxes.get(ids.get(frame), []) for frame in range(count)]
    sized = video if "width" in video else next(iter(images.values()), video)
    names = {frame: inside(image["file_name"]) for frame, image in images.items() if image.get("file_name")}
    pictures = names and not video.get("file_name")
    instances = tuple(np.array([number for _, _, number in rows], dtype=np.int64) for rows in found)
    return VideoRecord(
        name=video["name"],
        file_name="" if pictures else inside(video.get("file_name") or ""),
        width=sized["width"],
        height=sized["height"],
        image_ids=ids,
        boxes=tuple(from_xywh([box for box, _, _ in rows]).astype(np.float32) for rows in found),
        labels=tuple(np.array([label for _, label, _ in rows], dtype=np.int64) for rows in found),
        files=every_frame(names, len(found)) if pictures else (),
        instances=instances if any((row >= 0).any() for row in instances) else (),
        fps=float(video.get("fps") or 0),
    )


def match_video(records: list[VideoRecord], name: str, size: tuple[int, int]) -> VideoRecord:
    """The sequence that the source `name` (a path) of (width, height) is annotated as.

    By file name, else by the name without suffix; annotations of a single video fit any name. Raises
    UsageError when none or several fit, or the size differs.
    """
    path = Path(name)
    fitting = [r for r in records if r.file_name and Path(r.file_name).name == path.name]
    fitting = fitting or [r for r in records if path.stem in (r.name, Path(r.file_name).stem)]
    if not fitting and len(records) == 1:
        fitting = records
    if len(fitting) != 1:
        count = f"{len(fitting)} videos" if fitting else "no video"
        names = sorted(r.name for r in records)
        close = difflib.get_close_matches(path.stem, names, n=1, cutoff=0)
        raise UsageError(
            f"the annotations have {count} named '{path.stem}' (closest of {len(names)}: {', '.join(close)})"
        )
    if (fitting[0].width, fitting[0].height) != size:
        raise UsageError(
            f"'{path.name}' is {size[0]}x{size[1]}, annotated as {fitting[0].width}x{fitting[0].height}"
        )
    return fitting[0]
