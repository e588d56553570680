"""COCO-video dictionaries: made of records, and of COCO tables without videos."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from datasets.layouts.file_names import first_frame, picture_size, relative
from datasets.layouts.findings import LISTED_TWICE, Annotations, Faults
from pipeline.structures.annotations import VideoRecord, load_coco, video_records
from pipeline.structures.boxes import to_xywh
from pipeline.structures.frame_paths import frame_number, neighbour
from pipeline.system.errors import SourceError, UsageError

DECIMALS = 6  # of a pixel, in what is written: float32 is not finer for frames wider than 8 pixels


def read_coco(root: Path, place: str, classes: tuple[str, ...], faults: Faults) -> Annotations:
    """A COCO file below the root; one without `videos` has a sequence in each folder of pictures.

    Class names are those of its categories. Raises UsageError when it is no COCO ground truth.
    """
    table = load_coco(root / place)
    table = table if table.get("videos") else with_videos(table, root, faults)
    records = video_records(table)
    names = {video["id"]: video["name"] for video in table["videos"]}
    counts = Counter((image["video_id"], image["frame_id"]) for image in table["images"])
    for (video, frame), count in counts.items():
        if count > 1:
            faults.add(LISTED_TWICE, f"{names.get(video, video)} frame {frame}: {count} images")
    found = sorted(table["categories"], key=lambda category: category["id"])
    return Annotations(records, tuple(str(c.get("name", c["id"])) for c in found), table)


def with_videos(table: dict, root: Path, faults: Faults) -> dict:
    """A COCO dictionary with `videos`, and `video_id` and `frame_id` in its images; ids stay.

    A folder is a sequence, the number in a file's name its frame, counted from the first picture of the
    folder. Sizes are those of the first listed image or, where the table has none, of its picture. Of images
    of the same frame the first counts, the others are added to the `faults` and left out.
    Raises UsageError for a file name without a number.
    """
    folders: dict[str, dict[int, dict]] = defaultdict(dict)
    left_out = set()
    for image in table["images"]:
        path = relative(str(image.get("file_name", "")))
        number = frame_number(path)
        if number is None:
            raise UsageError(f"image {image['id']}: file name '{path}' has no number, which frame is it?")
        frames = folders[str(PurePosixPath(path).parent)]
        if number in frames:
            faults.add(LISTED_TWICE, path)
            left_out.add(image["id"])
        else:
            frames[number] = {**image, "file_name": path}
    videos, images = [], []
    for video_id, (folder, frames) in enumerate(folders.items(), start=1):
        lowest = min(frames)
        first = first_frame(frames, _finder(root, frames[lowest]["file_name"], lowest))
        width, height = _size(root, frames[lowest], faults)
        size = {"width": width, "height": height}
        name = folder.removeprefix("images/") if folder != "." else "frames"
        videos.append({"id": video_id, "name": name, **size, "length": max(frames) - first + 1})
        images += [
            {**size, **image, "video_id": video_id, "frame_id": number - first}
            for number, image in sorted(frames.items())
        ]
    annotations = [a for a in table["annotations"] if a["image_id"] not in left_out]
    return {**table, "videos": videos, "images": images, "annotations": annotations}


def _finder(root: Path, path: str, number: int) -> Callable[[int], bool]:
    """Whether the picture of another number lies beside the one at `path`."""
    # os.path: names that no file can have, too long for one, say, are none that it raises an error for
    return lambda other: os.path.isfile(root / neighbour(path, other - number))


def _size(root: Path, image: dict, faults: Faults) -> tuple[int, int]:
    """Width and height of an image; 0, 0 if nothing tells them."""
    if image.get("width") and image.get("height"):
        return image["width"], image["height"]
    try:
        return picture_size(root / image["file_name"])
    except SourceError:
        if faults.strict:
            raise
        return 0, 0


def coco_table(records: Sequence[VideoRecord], classes: Sequence[str]) -> dict:
    """The COCO-video dictionary of records: label n is category n + 1, image ids are those of the records.

    Boxes are left, top, width, height in pixels from 0, rounded to a millionth.
    """
    videos, images, annotations = [], [], []
    for video_id, record in enumerate(records, start=1):
        size = {"width": int(record.width), "height": int(record.height)}
        video = {"id": video_id, "name": record.name, "file_name": record.file_name, **size}
        video |= {"fps": record.fps, "length": len(record)}
        videos.append({key: value for key, value in video.items() if value or key in ("width", "height")})
        for frame, image_id in sorted(record.image_ids.items()):
            image = {"id": image_id, "video_id": video_id, "frame_id": frame, **size}
            images.append(image | ({"file_name": record.files[frame]} if record.files else {}))
            annotations += _annotations(record, frame, {"image_id": image_id, "video_id": video_id})
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    return {"videos": videos, "images": images, "annotations": annotations, "categories": categories}


def _annotations(record: VideoRecord, frame: int, place: dict) -> list[dict]:
    """The annotations of one frame, still without number."""
    rows = to_xywh(record.boxes[frame].astype(float)).round(DECIMALS).tolist()
    instances = record.instances[frame].tolist() if record.instances else [-1] * len(rows)
    return [
        {
            "id": 0,
            **place,
            "category_id": label + 1,
            **({"instance_id": instance} if instance >= 0 else {}),
            "bbox": box,
            "area": round(box[2] * box[3], DECIMALS),
            "iscrowd": 0,
        }
        for box, label, instance in zip(rows, record.labels[frame].tolist(), instances, strict=True)
    ]


def moved(table: dict, move: Callable[[str], str]) -> dict:
    """The COCO-video dictionary with `move` applied to the paths of videos, or of pictures without video."""
    videos = [
        {**video, "file_name": move(video["file_name"])} if video.get("file_name") else video
        for video in table["videos"]
    ]
    pictured = {video["id"] for video in videos if not video.get("file_name")}
    images = [
        {**image, "file_name": move(image["file_name"])}
        if image["video_id"] in pictured and image.get("file_name")
        else image
        for image in table["images"]
    ]
    return {**table, "videos": videos, "images": images}
