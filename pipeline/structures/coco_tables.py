"""COCO dictionaries of ground truth: read from files, checked row by row, ids and boxes made uniform."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.system.errors import UsageError
from pipeline.system.files import load_json
from pipeline.system.terminal import printable

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
        "frame_id": (int, float),
        "file_name": str,
        "width": int,
        "height": int,
    },
    "videos": {"name": str, "file_name": str, "fps": (int, float), "width": int, "height": int},
}
"""Types of the other keys that are used if present; numbers must not be negative."""
REFERENCES = (
    ("images", "video_id", "videos"),
    ("annotations", "image_id", "images"),
    ("annotations", "category_id", "categories"),
)
"""(list, key, list whose ids the key refers to)."""

log = logging.getLogger(__name__)


def load_coco(path: Path, *, remark: Callable[[str], None] | None = None) -> dict:
    """Returns the COCO dictionary of a ground-truth file.

    Ids are kept, and references to them have their type: `"image_id": "7"` is the image of id 7 if there is
    none of id "7". The category that Roboflow adds for the whole dataset is left out. An annotation without
    box has the box of its polygons; one whose box is an empty list is left out. `remark` is called with one
    line for each such change of boxes; without it they are logged as warnings. Raises UsageError if the file
    is no valid ground truth.
    """
    table = load_json(path, kind="annotations")
    fault = _wrong_kind(table) or _first_fault(table)
    if not fault:
        table = _without_root_category(_with_uniform_references(table))
        fault = _first_lost(table)
    if fault:
        raise UsageError(f"annotations {path} are not COCO ground truth: {fault}")
    table, remarks = _with_boxes(table)
    for text in remarks:
        if remark:
            remark(text)
        else:
            log.warning("annotations %s: %s", printable(str(path)), text)
    return table


def _wrong_kind(table: Any) -> str | None:
    """Says what a JSON value is instead of a COCO dictionary; None if it is one."""
    missing = {"images", "annotations", "categories"} - (set(table) if isinstance(table, dict) else set())
    if not missing:
        return None
    rows = table.get("annotations") if isinstance(table, dict) else table
    results = isinstance(rows, list) and rows and isinstance(rows[0], dict) and "image_id" in rows[0]
    hint = "; these are detections, which --detections of pipeline.vid_map_coco takes" if results else ""
    return f"no {', '.join(sorted(missing))}{hint}"


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
    for number, row in enumerate(table["images"]):
        if row.get("frame_id") is not None and row["frame_id"] != int(row["frame_id"]):
            return f"images[{number}] has no valid 'frame_id'"
    for number, row in enumerate(table["annotations"]):
        if not is_box(row.get("bbox")) and row.get("bbox") != [] and _polygon_box(row) is None:
            return f"annotations[{number}] has no valid 'bbox'"
    return None


def _is_of(kind: type | tuple[type, ...], value: Any) -> bool:
    """Whether a JSON value is None or of the type, and, if it is a number, finite and not negative."""
    if isinstance(value, (int, float)):
        return isinstance(value, kind) and 0 <= value < math.inf
    return value is None or isinstance(value, kind)


def is_box(box: Any) -> bool:
    """Whether a value is a sequence of four finite numbers, the last two (width, height) not negative."""
    return _are_coordinates(box) and len(box) == 4 and min(box[2:]) >= 0


def _are_coordinates(values: Any) -> bool:
    if not isinstance(values, (list, tuple, np.ndarray)):
        return False
    numbers = all(isinstance(side, (int, float, np.number)) and not isinstance(side, bool) for side in values)
    return numbers and all(abs(side) < 1e9 for side in values)


def _polygon_box(annotation: dict) -> list[float] | None:
    """Returns the box (left, top, width, height) of the polygons of an annotation that has no box.

    None if it has a box that is wrong, or no polygons: lists x, y, x, y … of at least three points.
    """
    polygons = annotation.get("segmentation")
    if annotation.get("bbox") or not isinstance(polygons, list) or not polygons:
        return None
    if not all(_are_coordinates(points) and len(points) >= 6 and len(points) % 2 == 0 for points in polygons):
        return None
    x, y = ([value for points in polygons for value in points[axis::2]] for axis in (0, 1))
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def _with_boxes(table: dict) -> tuple[dict, list[str]]:
    """Returns the dictionary with a box in each annotation, and what was changed, one line each."""
    if all(row.get("bbox") for row in table["annotations"]):
        return table, []
    annotations, outlined, without = [], 0, 0
    for row in table["annotations"]:
        if row.get("bbox"):
            annotations.append(row)
        elif (box := _polygon_box(row)) is not None:
            outlined += 1
            annotations.append({**row, "bbox": box})
        else:
            without += 1
    counts = (
        (outlined, "have no box, so the box of their polygons counts"),
        (without, "have no box, left out"),
    )
    total = len(table["annotations"])
    remarks = [f"{count} of {total} annotations {what}" for count, what in counts if count]
    return {**table, "annotations": annotations}, remarks


def _with_uniform_references(table: dict) -> dict:
    """Returns the dictionary with references of the type of the ids that they refer to."""
    for name, key, target in REFERENCES:
        ids = [row["id"] for row in table.get(target, [])]
        table = {**table, name: uniform_references(table[name], key, ids)}
    return table


def _without_root_category(table: dict) -> dict:
    """Returns the dictionary without the category that Roboflow adds for the whole dataset.

    It is named as the supercategory of all others and has no annotations.
    """
    categories, used = table["categories"], {row["category_id"] for row in table["annotations"]}
    above = {_text(row, "supercategory") for row in categories} - {"none", ""}
    root = [row for row in categories if _text(row, "name") in above and row["id"] not in used]
    if len(root) != 1 or len(above) != 1:
        return table
    return {**table, "categories": [row for row in categories if row is not root[0]]}


def _text(row: dict, key: str) -> str:
    """Returns the value of a key that nothing depends on if it is a text, else ""."""
    value = row.get(key)
    return value if isinstance(value, str) else ""


def uniform_references(rows: Sequence[dict], key: str, ids: Iterable[Hashable]) -> list[dict]:
    """Returns rows in which references by `key` have the type of the ids that they refer to.

    "7" becomes 7 if there is an id 7 and none "7"; what refers to no id in this way is left as it is.
    """
    known = set(ids)
    same = {_plain(number): number for number in known}
    found = []
    for row in rows:
        value = row.get(key) if isinstance(row, dict) else None
        if isinstance(value, (int, float, str)) and value not in known:
            row = {**row, key: same.get(_plain(value), value)}
        found.append(row)
    return found


def _first_lost(table: dict) -> str | None:
    """Describes the first annotation whose image or category is not listed; None if all are."""
    for key, name, target in (("image_id", "image", "images"), ("category_id", "category", "categories")):
        ids = {row["id"] for row in table[target]}
        lost = [number for number, row in enumerate(table["annotations"]) if row[key] not in ids]
        if lost:
            first = table["annotations"][lost[0]][key]
            where = f"annotations[{lost[0]}] has {name} {first}, which is not among the {len(ids)} {target}"
            return f"{where}; {len(lost)} of {len(table['annotations'])} annotations have such"
    return None


def _plain(value: Any) -> str:
    """Returns the text that an id and a reference of another type have in common: "7" for 7, 7.0 and "7"."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole else str(value).strip()


def sort_ids(ids: Iterable[Hashable]) -> list:
    """Returns ids in ascending order, numbers before strings."""
    return sorted(ids, key=lambda value: (isinstance(value, str), value))


def sorted_categories(table: dict) -> list[dict]:
    """Returns the categories of a COCO dictionary in the order of their ids, which is that of labels."""
    return sorted(table["categories"], key=lambda row: (isinstance(row["id"], str), row["id"]))


def repeated_images(table: dict) -> Iterator[dict]:
    """Yields the images whose frame is listed before them; the first image of a frame is the one that counts.

    A frame is named by its video and number or, without a video, by its file.
    """
    seen = set()
    for image in table["images"]:
        frame: tuple = (image.get("video_id"), image.get("frame_id"))
        if frame[0] is None:
            frame = (image.get("file_name"),)
        if None in frame:
            continue
        if frame in seen:
            yield image
        seen.add(frame)
