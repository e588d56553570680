"""Text lists, a line for each frame: `path x1,y1,x2,y2,class …`, blanks between.

Coordinates are pixels from 0, right and bottom exclusive; classes count from 0; a path alone is a frame
without targets. The folder of a picture is its sequence, the number in its name its frame.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import numpy as np

from datasets.layouts.coco_video import with_videos
from datasets.layouts.file_names import relative
from datasets.layouts.findings import Annotations, Faults
from pipeline.imaging.image_files import IMAGE_SUFFIXES
from pipeline.structures.annotations import video_records
from pipeline.structures.boxes import to_xywh
from pipeline.system.errors import UsageError
from pipeline.system.files import read_text

_COORDINATE = r"-?\d+(?:\.\d+)?"
_OBJECT = re.compile(rf"{_COORDINATE}(?:,{_COORDINATE}){{3}},\d+")


def read_list(root: Path, place: str, classes: tuple[str, ...], faults: Faults) -> Annotations:
    """The sequences of a text list; image ids are the numbers of its lines.

    Frames that the list leaves out are in the records, without boxes and without image id. Raises UsageError
    for a line that cannot be used, and where the list has no lines.
    """
    images, annotations = [], []
    lines = read_text(root / place, kind="frame list").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            path, boxes, labels = parse_line(line)
        except UsageError as error:
            raise UsageError(f"{root / place}, line {number}: {error}") from error
        if labels.size and labels.max() >= len(classes):
            raise UsageError(f"{root / place}, line {number}: class {labels.max()} of {len(classes)} classes")
        images.append({"id": number, "file_name": path})
        annotations += [
            {"id": 0, "image_id": number, "category_id": label + 1, "bbox": box, "area": box[2] * box[3]}
            for box, label in zip(to_xywh(boxes).tolist(), labels.tolist(), strict=True)
        ]
    if not images:
        raise UsageError(f"{root / place} lists no frames")
    for number, annotation in enumerate(annotations, start=1):
        annotation |= {"id": number, "iscrowd": 0}
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    table = {"images": images, "annotations": annotations, "categories": categories}
    table = with_videos(table, root, faults)
    return Annotations(video_records(table), classes, table)


def parse_line(line: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Path relative to the root, (N, 4) float64 boxes, (N,) int64 classes. Raises UsageError."""
    tokens = line.split()
    count = len(tokens)
    while count > 1 and _OBJECT.fullmatch(tokens[count - 1]):
        count -= 1
    path = " ".join(tokens[:count])
    if PurePosixPath(path).suffix.lower() not in IMAGE_SUFFIXES:
        raise UsageError(
            f"'{path}' is not a picture's path ({', '.join(IMAGE_SUFFIXES)}), then x1,y1,x2,y2,class"
        )
    rows = np.array([token.split(",") for token in tokens[count:]], dtype=float).reshape(-1, 5)
    if (rows[:, 2:4] < rows[:, :2]).any():
        raise UsageError(f"a box ends before it begins: {' '.join(tokens[count:])}")
    return relative(path), rows[:, :4], rows[:, 4].astype(np.int64)
