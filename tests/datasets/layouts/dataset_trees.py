"""Miniature datasets on disk, one builder per layout."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

SIZE = (32, 24)
"""Width and height of images."""
FOREIGN_ROOT = "/home/public/DAUB"
"""Root of the paths in the lists, from another machine."""


def write_image(path: Path, *, size: tuple[int, int] = SIZE, seed: int | None = None) -> Path:
    """Writes a grey noise image, which depends on the `seed`, or on the path if that is None."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(str(path).encode()) if seed is None else seed)
    cv2.imwrite(str(path), rng.integers(0, 200, size[::-1], np.uint8))
    return path


def write_mask(
    path: Path, *boxes: tuple[int, int, int, int], size: tuple[int, int] = SIZE, level=255
) -> Path:
    """Writes a mask in which the boxes (x1 y1 x2 y2) are filled."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(size[::-1], np.uint8)
    for left, top, right, bottom in boxes:
        pixels[top:bottom, left:right] = level
    cv2.imwrite(str(path), pixels)
    return path


def write_text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def write_json(path: Path, content: dict) -> Path:
    return write_text(path, json.dumps(content))


def frame_lists(root: Path, *, name: str = "coco_train_DAUB.txt") -> Path:
    """Writes a text list of two sequences: data5 of three frames, data8 of two, the last without targets."""
    for place in ("data5/0", "data5/1", "data5/2", "data8/0", "data8/1"):
        write_image(root / "images" / "train" / f"{place}.bmp")
    folder = f"{FOREIGN_ROOT}/images/train"
    write_text(
        root / name,
        f"{folder}/data5/0.bmp 1,2,9,10,0",
        f"{folder}/data5/2.bmp 3,2,11,10,0 20,4,28,12,0",
        f"{folder}/data5/1.bmp 2,2,10,10,0",
        f"{folder}/data8/0.bmp 5,5,13,13,0",
        f"{folder}/data8/1.bmp",
    )
    return root


def coco_without_videos(root: Path, place: str = "annotations/train.json") -> Path:
    """Writes COCO without videos: frames 0, 1 of data5 and 10, 11 of data8, of which 0 to 9 do not exist."""
    files = ["data5/0.bmp", "data5/1.bmp", "data8/10.bmp", "data8/11.bmp"]
    for file in files:
        write_image(root / "images" / "train" / file)
    size = {"width": SIZE[0], "height": SIZE[1]}
    content = {
        "images": [
            {"id": 71 + n, "file_name": f"images/train/{file}", **size} for n, file in enumerate(files)
        ],
        "annotations": [
            {"id": 1, "image_id": 72, "category_id": 1, "bbox": [3.0, 4.0, 8, 8], "area": 64, "iscrowd": 0}
        ],
        "categories": [{"id": 1, "name": "target"}],
    }
    write_json(root / place, content)
    return root


def coco_video(root: Path, **video) -> Path:
    """Writes COCO-video with three frames as images, targets 4 and 5; `video` changes the video's entry."""
    for frame in range(3):
        write_image(root / "frames" / f"{frame:04d}.png")
    content = {
        "videos": [{"id": 3, "name": "walk", "width": SIZE[0], "height": SIZE[1], "fps": 12.5, **video}],
        "images": [
            {"id": 40 + frame, "video_id": 3, "frame_id": frame, "file_name": f"frames/{frame:04d}.png"}
            for frame in range(3)
        ],
        "annotations": [
            {"id": 1, "image_id": 40, "category_id": 7, "bbox": [0, 0, 1, 1], "instance_id": 4},
            {"id": 2, "image_id": 42, "category_id": 7, "bbox": [1.25, 2, 3.5, 4], "instance_id": 4},
            {"id": 3, "image_id": 42, "category_id": 9, "bbox": [20, 10, 4, 4], "instance_id": 5},
        ],
        "categories": [{"id": 9, "name": "bird"}, {"id": 7, "name": "drone"}],
    }
    write_json(root / "gt.json", content)
    return root


def mot(root: Path, *, facts: bool = True, rows: tuple[str, ...] = ()) -> Path:
    """Writes one MOT sequence of three frames in `root/train/walk`, targets 4 and 5."""
    folder = root / "train" / "walk"
    for number in (1, 2, 3):
        write_image(folder / "img1" / f"{number:06d}.png")
    standard = ("1,4,1,1,1,1,1,1,1", "3,4,2.25,3,3.5,4,1,1,0.5", "3,5,21,11,4,4,1,1,1")
    write_text(folder / "gt" / "gt.txt", *(rows or standard))
    if facts:
        width, height = SIZE
        sizes = (f"imWidth={width}", f"imHeight={height}", "imExt=.png")
        write_text(folder / "seqinfo.ini", "[Sequence]", "name=walk", "imDir=img1", "seqLength=3", *sizes)
    return root


def flat_masks(
    root: Path, *, ending: str = "", suffix: str = ".png", split: str = "splits/train.txt"
) -> Path:
    """Writes images a, b and c with masks, of which a and c are listed; a has two targets, c has none."""
    boxes = {"a": [(0, 0, 1, 1), (10, 4, 13, 9)], "b": [(5, 5, 7, 7)], "c": []}
    for name, rows in boxes.items():
        write_image(root / "images" / f"{name}.png")
        write_mask(root / "masks" / f"{name}{ending}{suffix}", *rows)
    write_text(root / split, "a", "c")
    return root
