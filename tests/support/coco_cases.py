"""Small ground truth and detections as COCO dictionaries, and their evaluation by pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

FRAME = 1
TARGET = [10, 10, 8, 6]


def saved(folder: Path, truth: dict, detections: list[dict]) -> list[str]:
    """Saves both as files; returns the options that pass them to a command."""
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(json.dumps(detections))
    return ["--annotations", str(folder / "truth.json"), "--detections", str(folder / "found.json")]


def truth_of(boxes: dict[int, list[tuple[list, int]]], categories: int = 1) -> dict:
    """Returns COCO ground truth for a mapping of frame id to (box x, y, width, height, category)."""
    rows = [(image, *target) for image, targets in boxes.items() for target in targets]
    return {
        "images": [{"id": image, "width": 64, "height": 48} for image in boxes],
        "annotations": [
            {"id": i, "image_id": image, "bbox": box, "category_id": category, "iscrowd": 0,
             "area": box[2] * box[3]}
            for i, (image, box, category) in enumerate(rows, start=1)
        ],
        "categories": [{"id": n, "name": f"kind {n}"} for n in range(1, categories + 1)],
    }  # fmt: skip


def found(box=TARGET, *, image=FRAME, score=0.9, category=1) -> dict:
    return {"image_id": image, "bbox": [float(n) for n in box], "score": score, "category_id": category}


def random_case(seed: int, categories: int) -> tuple[dict, list[dict]]:
    """Twenty frames, every fifth empty; four of five targets are detected, many scores are equal."""
    chance = np.random.default_rng(seed)
    boxes, detections = {}, []
    for image in range(1, 21):
        corners = chance.integers(0, 40, (0 if image % 5 == 0 else chance.integers(1, 4), 2))
        boxes[image] = [([*map(int, c), 9, 7], int(chance.integers(1, categories + 1))) for c in corners]
        for box, category in boxes[image]:
            if chance.random() < 0.8:
                shifted = np.add(box, chance.normal(0, 1, 4))
                detections.append(
                    found(shifted, image=image, score=int(chance.integers(2, 11)) / 10, category=category)
                )
        for _ in range(chance.integers(0, 3)):
            place = [*chance.integers(0, 40, 2), 9, 7]
            category = int(chance.integers(1, categories + 1))
            detections.append(
                found(place, image=image, score=int(chance.integers(1, 8)) / 10, category=category)
            )
    return truth_of(boxes, categories), detections


def crowded_case(seed: int, categories: int) -> tuple[dict, list[dict]]:
    """Twelve frames in three videos with overlapping targets of 2 to 40 pixels, some of them crowds,
    duplicate detections, random ids and order, equal scores and equal overlaps."""
    chance = np.random.default_rng(seed)
    images = [{"id": int(i), "video_id": n % 3} for n, i in enumerate(chance.permutation(100)[:12])]
    annotations, detections = [], []
    for image in images:
        for _ in range(chance.integers(0, 7)):
            corner, size = chance.integers(0, 30, 2), chance.choice([2, 4, 6, 8, 15, 16, 30, 40], 2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "bbox": [*corner.tolist(), *size.tolist()],
                    "area": int(size.prod()),
                    "category_id": int(chance.integers(1, categories + 1)),
                    "iscrowd": int(chance.random() < 0.2),
                }
            )
    for row in annotations:
        for _ in range(chance.integers(0, 4)):
            moved = np.add(row["bbox"], chance.integers(-1, 2, 4)).clip(min=0)
            score, category = int(chance.integers(1, 5)) / 4, int(chance.integers(1, categories + 1))
            detections.append(found(moved, image=row["image_id"], score=score, category=category))
    chance.shuffle(detections)
    truth = {
        "videos": [{"id": n, "name": f"video {n}"} for n in range(3)],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": n, "name": f"kind {n}"} for n in range(1, categories + 1)],
    }
    return truth, detections


def by_pycocotools(truth: dict, detections: list[dict], **parameters) -> COCOeval:
    """Evaluates with pycocotools, with `parameters` in place of its defaults."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = json.loads(json.dumps(truth))
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(json.loads(json.dumps(detections))), "bbox")
        for name, value in parameters.items():
            setattr(run.params, name, value)
        run.evaluate()
        run.accumulate()
        if not parameters:
            run.summarize()
    return run


def mean_precision(run: COCOeval, *, size: int = 0) -> float | None:
    """Returns the average precision at the first IoU over categories with targets; None without any."""
    precision = run.eval["precision"][0, :, :, size, -1]
    present = precision[0] > -1
    return float(precision[:, present].mean()) if present.any() else None
