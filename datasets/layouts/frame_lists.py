"""Text lists with one line per frame: `path x1,y1,x2,y2,class …`, separated by blanks.

Coordinates are pixels from 0, right and bottom exclusive; classes count from 0; a line with a path alone is a
frame without targets. The folder of an image is its sequence, and the number in its name its frame.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import numpy as np

from datasets.layouts.coco_video import add_videos
from datasets.layouts.file_names import root_relative
from datasets.layouts.findings import Annotations, FindingLog
from pipeline.imaging.image_files import IMAGE_SUFFIXES
from pipeline.structures.annotations import video_records
from pipeline.structures.boxes import to_xywh
from pipeline.system.errors import UsageError
from pipeline.system.files import read_text

_COORDINATE = r"-?\d+(?:\.\d+)?"
_OBJECT = re.compile(rf"{_COORDINATE}(?:,{_COORDINATE}){{3}},\d+")


def read_frame_list(root: Path, place: str, classes: tuple[str, ...], findings: FindingLog) -> Annotations:
    """Reads the sequences of the text list `place` below the root; image ids are line numbers.

    Frames that the list leaves out are in the records, without boxes and without image id. Raises UsageError
    if a line is invalid or the list is empty.
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
    coco = {"images": images, "annotations": annotations, "categories": categories}
    coco = add_videos(coco, root, findings)
    return Annotations(video_records(coco), classes, coco)


def parse_line(line: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Parses a line of a list.

    Returns the path relative to the root, (N, 4) float64 boxes x1 y1 x2 y2, and (N,) int64 classes. Raises
    UsageError if the line is invalid.
    """
    tokens = line.split()
    count = len(tokens)
    while count > 1 and _OBJECT.fullmatch(tokens[count - 1]):
        count -= 1
    path = " ".join(tokens[:count])
    if PurePosixPath(path).suffix.lower() not in IMAGE_SUFFIXES:
        raise UsageError(
            f"'{path}' is not the path of an image ({', '.join(IMAGE_SUFFIXES)}), then x1,y1,x2,y2,class"
        )
    rows = np.array([token.split(",") for token in tokens[count:]], dtype=float).reshape(-1, 5)
    if (rows[:, 2:4] < rows[:, :2]).any():
        raise UsageError(f"a box ends before it begins: {' '.join(tokens[count:])}")
    return root_relative(path), rows[:, :4], rows[:, 4].astype(np.int64)
