"""Ground truth in memory: annotated sequences with the boxes of each frame, read from COCO-video files."""

from __future__ import annotations

import difflib
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.structures.boxes import from_xywh
from pipeline.structures.frame_paths import paths_of_all_frames, require_inside_root
from pipeline.system.errors import UsageError
from pipeline.system.files import load_json

REQUIRED_KEYS = {
    "images": ("id",),
    "annotations": ("image_id", "category_id"),
    "categories": ("id",),
    "videos": ("id", "name"),
}
"""Keys that every row of a list must have, as numbers or text."""
OPTIONAL_KEYS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "images": {
        "video_id": (int, float, str),
        "frame_id": int,
        "file_name": str,
        "width": int,
        "height": int,
    },
    "videos": {"name": str, "file_name": str, "fps": (int, float), "width": int, "height": int},
}
"""Types of the other keys that are used if present; numbers must not be negative."""
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


def load_coco(path: Path) -> dict:
    """Returns the COCO dictionary of a ground-truth file. Raises UsageError if the file is no valid one."""
    table = load_json(path, kind="annotations")
    missing = {"images", "annotations", "categories"} - (set(table) if isinstance(table, dict) else set())
    fault = f"no {', '.join(sorted(missing))}" if missing else _first_fault(table)
    if fault:
        raise UsageError(f"annotations {path} are not COCO ground truth: {fault}")
    return table


def _first_fault(table: dict) -> str | None:
    """Describes the first invalid row of a COCO dictionary; None if all rows are valid."""
    for name, keys in REQUIRED_KEYS.items():
        rows = table.get(name, [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            return f"'{name}' is not a list of objects"
        for number, row in enumerate(rows):
            wrong = [key for key in keys if type(row.get(key)) not in (int, float, str)]
            wrong += [
                key for key, kind in OPTIONAL_KEYS.get(name, {}).items() if not _is_of(kind, row.get(key))
            ]
            if wrong:
                return f"{name}[{number}] has no valid '{wrong[0]}'"
    if not table["categories"]:
        return "'categories' is empty"
    for number, row in enumerate(table["annotations"]):
        if not is_box(row.get("bbox")):
            return f"annotations[{number}] has no valid 'bbox'"
    return None


def _is_of(kind: type | tuple[type, ...], value: Any) -> bool:
    """Whether a JSON value is None or of the type, and, if it is a number, finite and not negative."""
    if isinstance(value, (int, float)):
        return isinstance(value, kind) and 0 <= value < math.inf
    return value is None or isinstance(value, kind)


def is_box(box: Any) -> bool:
    """Whether a value is a sequence of four finite numbers, the last two (width, height) not negative."""
    if not isinstance(box, (list, tuple, np.ndarray)) or len(box) != 4:
        return False
    numbers = all(isinstance(side, (int, float, np.number)) and not isinstance(side, bool) for side in box)
    return numbers and all(abs(side) < 1e9 for side in box) and min(box[2:]) >= 0


def require_frame_count(count: int, name: str) -> None:
    """Raises UsageError if a sequence claims more than MAX_FRAMES frames."""
    if count > MAX_FRAMES:
        raise UsageError(f"{name} has frames up to number {count}; sequences of up to {MAX_FRAMES} are read")


def video_records(table: dict) -> list[VideoRecord]:
    """Returns the sequences of a COCO-video dictionary, with `videos`, and `video_id`, `frame_id` per image.

    The frames of a video without `file_name` are the files of its images. Raises UsageError if the dictionary
    is not COCO-video ground truth.
    """
    if not table.get("videos"):
        raise UsageError("annotations have no 'videos': COCO-video ground truth is needed")
    try:
        return _grouped(table)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"annotations are not COCO-video ground truth: {error!r}") from error


def _grouped(table: dict) -> list[VideoRecord]:
    categories = {c["id"]: i for i, c in enumerate(sorted(table["categories"], key=lambda c: c["id"]))}
    images: dict[Any, dict[int, dict]] = defaultdict(dict)
    targets: dict[Any, list[_Target]] = defaultdict(list)
    known = set()
    for image in table["images"]:
        images[image["video_id"]][image["frame_id"]] = image
        known.add(image["id"])
    for annotation in table["annotations"]:
        _, _, width, height = annotation["bbox"]
        if width < 0 or height < 0 or annotation["image_id"] not in known:
            raise ValueError(f"annotation {annotation.get('id')} has a negative size or an unknown image")
        target = _Target(annotation["bbox"], categories[annotation["category_id"]], _identity(annotation))
        targets[annotation["image_id"]].append(target)
    return [_record(video, images[video["id"]], targets) for video in table["videos"]]


class _Target(NamedTuple):
    bbox: list[float]
    """Left, top, width, height."""
    label: int
    identity: int


def _identity(annotation: dict) -> int:
    """Returns the identity of a target, which goes by either of two keys; -1 if unknown."""
    number = annotation.get("instance_id", annotation.get("track_id"))
    return number if type(number) is int else -1


def _record(video: dict, images: dict[int, dict], targets: dict[Any, list[_Target]]) -> VideoRecord:
    ids = {frame: image["id"] for frame, image in images.items()}
    count = max(ids, default=-1) + 1
    require_frame_count(count, f"video {video['name']}")
    rows = [targets.get(ids.get(frame), []) for frame in range(count)]
    sized = video if "width" in video else next(iter(images.values()), video)
    names = {
        frame: require_inside_root(image["file_name"])
        for frame, image in images.items()
        if image.get("file_name")
    }
    in_images = names and not video.get("file_name")
    instances = tuple(np.array([target.identity for target in row], dtype=np.int64) for row in rows)
    return VideoRecord(
        name=video["name"],
        file_name="" if in_images else require_inside_root(video.get("file_name") or ""),
        width=sized["width"],
        height=sized["height"],
        image_ids=ids,
        boxes=tuple(from_xywh([target.bbox for target in row]).astype(np.float32) for row in rows),
        labels=tuple(np.array([target.label for target in row], dtype=np.int64) for row in rows),
        files=paths_of_all_frames(names, len(rows)) if in_images else (),
        instances=instances if any((row >= 0).any() for row in instances) else (),
        fps=float(video.get("fps") or 0),
    )


def match_video(records: list[VideoRecord], name: str, size: tuple[int, int]) -> VideoRecord:
    """Returns the sequence that annotates the source `name` (a path) of `size` (width, height).

    It is found by file name, then by the name without suffix; annotations of a single video match any name.
    Raises UsageError if no or several sequences match, or the size differs.
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
