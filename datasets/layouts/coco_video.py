"""COCO-video dictionaries: read from files, completed with `videos`, and made from records."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from datasets.layouts.file_names import first_frame_number, image_size, root_relative
from datasets.layouts.findings import CONVENTION, LISTED_TWICE, Annotations, FindingLog
from datasets.layouts.image_places import locate_images
from pipeline.evaluation.truth.box_conventions import suspect_boxes
from pipeline.structures.annotations import VideoRecord, video_records
from pipeline.structures.boxes import to_xywh
from pipeline.structures.coco_tables import load_coco, sorted_categories
from pipeline.structures.frame_paths import frame_number, neighbour_path
from pipeline.system.errors import SourceError, UsageError

DECIMALS = 6
"""Digits after the point of written coordinates; float32 is not finer for frames wider than 8 pixels."""


def read_coco(root: Path, place: str, classes: tuple[str, ...], findings: FindingLog) -> Annotations:
    """Reads the COCO file `place` below the root; without `videos`, each folder of images is a sequence.

    Class names are those of its categories, not `classes`. Raises UsageError if it is no COCO ground truth.
    """
    coco = load_coco(root / place, remark=lambda text: findings.add(CONVENTION, f"{place}: {text}"))
    notes: tuple[str, ...] = ()
    if not coco.get("videos"):
        coco, notes = _with_located_images(coco, root, place)
        coco = add_videos(coco, root, findings)
    records = video_records(coco)
    names = {video["id"]: video["name"] for video in coco["videos"]}
    counts = Counter((image["video_id"], image["frame_id"]) for image in coco["images"])
    for (video, frame), count in counts.items():
        if count > 1:
            findings.add(LISTED_TWICE, f"{names.get(video, video)} frame {frame}: {count} images")
    for sign in suspect_boxes(records):
        findings.add(CONVENTION, f"{place}: {sign}")
    names_of_labels = tuple(str(row.get("name", row["id"])) for row in sorted_categories(coco))
    return Annotations(records, names_of_labels, coco, notes)


def _with_located_images(coco: dict, root: Path, place: str) -> tuple[dict, tuple[str, ...]]:
    """Returns the dictionary with the paths that its images have below the root, and what was changed."""
    names = [str(image.get("file_name") or "") for image in coco["images"]]
    paths = locate_images(names, root, place)
    if paths == names:
        return coco, ()
    images = [{**image, "file_name": path} for image, path in zip(coco["images"], paths, strict=True)]
    return {**coco, "images": images}, (f"images are read from other places: {names[0]} is {paths[0]}",)


def add_videos(coco: dict, root: Path, findings: FindingLog) -> dict:
    """Returns a COCO dictionary with `videos` added, and `video_id` and `frame_id` in its images; ids stay.

    A folder is a sequence, and the number in the name of a file its frame, counted from the first image of
    the folder. Sizes are those of the first listed image or, if the dictionary has none, of its file. Of
    several images of the same frame the first one is used; the others are added to the `findings` and left
    out. Raises UsageError for a file name without a number.
    """
    folders: dict[str, dict[int, dict]] = defaultdict(dict)
    left_out = set()
    for image in coco["images"]:
        path = root_relative(str(image.get("file_name", "")))
        number = frame_number(path)
        if number is None:
            raise UsageError(f"image {image['id']}: file name '{path}' has no number, which frame is it?")
        frames = folders[str(PurePosixPath(path).parent)]
        if number in frames:
            findings.add(LISTED_TWICE, path)
            left_out.add(image["id"])
        else:
            frames[number] = {**image, "file_name": path}
    videos, images = [], []
    for video_id, (folder, frames) in enumerate(folders.items(), start=1):
        lowest = min(frames)
        first = first_frame_number(frames, _neighbour_exists(root, frames[lowest]["file_name"], lowest))
        width, height = _size(root, frames[lowest], findings)
        size = {"width": width, "height": height}
        name = folder.removeprefix("images/") if folder != "." else "frames"
        videos.append({"id": video_id, "name": name, **size, "length": max(frames) - first + 1})
        images += [
            {**size, **image, "video_id": video_id, "frame_id": number - first}
            for number, image in sorted(frames.items())
        ]
    annotations = [a for a in coco["annotations"] if a["image_id"] not in left_out]
    return {**coco, "videos": videos, "images": images, "annotations": annotations}


def _neighbour_exists(root: Path, path: str, number: int) -> Callable[[int], bool]:
    """Returns a function that tells if the folder of the image `path`, frame `number`, has another frame."""
    # os.path.isfile is False for names that no file can have, such as too long ones; Path.is_file raises
    return lambda other: os.path.isfile(root / neighbour_path(path, other - number))


def _size(root: Path, image: dict, findings: FindingLog) -> tuple[int, int]:
    """Returns the width and height of an image; 0, 0 if they are unknown and reading is not strict."""
    if image.get("width") and image.get("height"):
        return image["width"], image["height"]
    try:
        return image_size(root / image["file_name"])
    except SourceError:
        if findings.strict:
            raise
        return 0, 0


def records_to_coco(records: Sequence[VideoRecord], classes: Sequence[str]) -> dict:
    """Returns the COCO-video dictionary of records: label n is category n + 1, and image ids are kept.

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


def _annotations(record: VideoRecord, frame: int, ids: dict[str, int]) -> list[dict]:
    """Returns the annotations of one frame with the ids of its image and video, not yet numbered."""
    rows = to_xywh(record.boxes[frame].astype(float)).round(DECIMALS).tolist()
    instances = record.instances[frame].tolist() if record.instances else [-1] * len(rows)
    return [
        {
            "id": 0,
            **ids,
            "category_id": label + 1,
            **({"instance_id": instance} if instance >= 0 else {}),
            "bbox": box,
            "area": round(box[2] * box[3], DECIMALS),
            "iscrowd": 0,
        }
        for box, label, instance in zip(rows, record.labels[frame].tolist(), instances, strict=True)
    ]


def map_file_names(coco: dict, convert: Callable[[str], str]) -> dict:
    """Returns a COCO-video dictionary with `convert` applied to every path that is used.

    Those are the paths of videos, and those of images that belong to no video file.
    """
    videos = [
        {**video, "file_name": convert(video["file_name"])} if video.get("file_name") else video
        for video in coco["videos"]
    ]
    without_file = {video["id"] for video in videos if not video.get("file_name")}
    images = [
        {**image, "file_name": convert(image["file_name"])}
        if image["video_id"] in without_file and image.get("file_name")
        else image
        for image in coco["images"]
    ]
    return {**coco, "videos": videos, "images": images}
